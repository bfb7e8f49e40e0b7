//! A double of a model: its logits are a hash of all tokens so far and of the adapter. Whoever feeds it a wrong
//! token, cache, order or adapter gets a different answer.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use autoglm_domain::Adapter;
use autoglm_engine::{Decoder, EngineError, PAGE_TOKENS, PagedCache, Result, SequenceStep};
use parking_lot::{Condvar, Mutex};

/// The token that ends an answer.
pub(crate) const EOS: u32 = 1;

/// What the steps so far looked like.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) steps: AtomicUsize,
    pub(crate) most_sequences: AtomicUsize,
    pub(crate) most_tokens: AtomicUsize,
    pub(crate) most_adapters: AtomicUsize,
}

/// What the next step does instead of computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Error,
    Panic,
    ShortLogits,
    NotANumber,
    /// Only in the last of several sequences.
    NotANumberInLast,
}

#[derive(Debug)]
pub(crate) struct HashDecoder {
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    pub(crate) seen: Seen,
    pub(crate) pages: AtomicUsize, // made so far
    pub(crate) fault: Mutex<Option<Fault>>,
    pub(crate) endless: AtomicBool, // never ends an answer by itself
    pub(crate) step_ms: AtomicU64,  // how long a step takes at least
    closed: Mutex<bool>,
    opened: Condvar,
}

/// The tokens of a page, and the adapter that they went through.
#[derive(Debug, Default)]
pub(crate) struct HashPage {
    tokens: Vec<u32>,
    adapter: Option<u64>,
}

impl HashDecoder {
    pub(crate) fn new(vocab: usize, context: usize) -> Self {
        Self {
            vocab,
            context,
            seen: Seen::default(),
            pages: AtomicUsize::new(0),
            fault: Mutex::new(None),
            endless: AtomicBool::new(false),
            step_ms: AtomicU64::new(0),
            closed: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    /// Holds steps back until [`HashDecoder::open`].
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }

    fn row(&self, tokens: &[u32], adapter: Option<u64>) -> Vec<f32> {
        let mut state = adapter.map_or(17, |salt| salt.wrapping_mul(0x9E37_79B9).wrapping_add(99));
        for token in tokens {
            state = mix(state ^ (u64::from(*token) + 1));
        }
        let mut row: Vec<f32> =
            (0..self.vocab as u64).map(|id| (mix(state ^ (id << 32)) >> 40) as f32 * 4e-7).collect();
        // About one answer token in twelve is the end.
        let ends = mix(state).is_multiple_of(12) && !self.endless.load(Ordering::SeqCst);
        row[EOS as usize] = if ends { 20.0 } else { f32::NEG_INFINITY };
        row
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let value = (value ^ (value >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    value ^ (value >> 33)
}

/// Writes the new tokens into the cache's pages; gives back all that it holds then.
fn append(cache: &mut PagedCache<HashPage>, tokens: &[u32], adapter: Option<u64>) -> Vec<u32> {
    assert!(cache.is_writable(tokens.len()), "no page to write to");
    for (position, token) in (cache.tokens()..).zip(tokens) {
        let page = cache.page_mut(position / PAGE_TOKENS).unwrap();
        // What an earlier sequence has left means nothing.
        page.tokens.truncate(position % PAGE_TOKENS);
        page.tokens.push(*token);
        page.adapter = adapter;
    }
    cache.advance(tokens.len());
    let held = cache.pages().iter().take(cache.tokens().div_ceil(PAGE_TOKENS));
    let all: Vec<u32> = held
        .inspect(|page| assert_eq!(page.adapter, adapter, "a page of another adapter"))
        .flat_map(|page| page.tokens.iter().copied())
        .collect();
    assert_eq!(all.len(), cache.tokens(), "a page does not hold what the cache says");
    all
}

impl Decoder for HashDecoder {
    type Page = HashPage;
    type Adapter = u64;

    fn new_page(&self) -> HashPage {
        self.pages.fetch_add(1, Ordering::SeqCst);
        HashPage::default()
    }

    fn step(&self, batch: &mut [SequenceStep<'_, HashPage, u64>]) -> Result<Vec<f32>> {
        let mut closed = self.closed.lock();
        // A test that failed with the gate closed is to end all the same.
        let _ = self.opened.wait_while_for(&mut closed, |closed| *closed, Duration::from_secs(20));
        drop(closed);
        std::thread::sleep(Duration::from_millis(self.step_ms.load(Ordering::SeqCst)));
        let fault = {
            let mut fault = self.fault.lock();
            if *fault == Some(Fault::NotANumberInLast) && batch.len() < 2 { None } else { fault.take() }
        };
        match fault {
            Some(Fault::Error) => return Err(EngineError::Internal("the double was told to fail".into())),
            Some(Fault::Panic) => panic!("the double was told to panic"),
            _ => {}
        }
        let mut logits = Vec::new();
        let mut adapters: Vec<Option<u64>> = Vec::new();
        for part in batch.iter_mut() {
            let adapter = part.adapter.copied();
            adapters.push(adapter);
            assert!(!part.tokens.is_empty(), "a sequence without tokens");
            let tokens = append(part.cache, part.tokens, adapter);
            if part.wants_logits {
                logits.extend(self.row(&tokens, adapter));
            }
        }
        adapters.sort_unstable();
        adapters.dedup();
        self.seen.steps.fetch_add(1, Ordering::SeqCst);
        self.seen.most_sequences.fetch_max(batch.len(), Ordering::SeqCst);
        self.seen.most_adapters.fetch_max(adapters.len(), Ordering::SeqCst);
        let tokens = batch.iter().map(|part| part.tokens.len()).sum();
        self.seen.most_tokens.fetch_max(tokens, Ordering::SeqCst);
        match fault {
            Some(Fault::ShortLogits) => drop(logits.pop()),
            Some(Fault::NotANumber) => logits[0] = f32::NAN,
            Some(Fault::NotANumberInLast) => logits.iter_mut().rev().take(1).for_each(|l| *l = f32::NAN),
            _ => {}
        }
        Ok(logits)
    }

    fn score(
        &self,
        tokens: &[u32],
        adapter: Option<&u64>,
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        for index in 1..tokens.len() {
            each(index, &mut self.row(&tokens[..index], adapter.copied()));
        }
        Ok(())
    }

    fn load_adapter(&self, adapter: &Adapter) -> Result<u64> {
        std::str::from_utf8(&adapter.config)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| EngineError::Adapter("no salt".into()))
    }

    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn context_length(&self) -> usize {
        self.context
    }
}
