//! Keys and values of all sequences in one tensor a layer, handed out in pages.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use parking_lot::Mutex;

use crate::{EngineError, PAGE_TOKENS, Result};

/// Room for the keys and values of a fixed number of pages, so that a step writes all of its tokens with one kernel a
/// layer and gathers with another, however many pages they lie in.
#[derive(Debug)]
pub(super) struct Arena {
    layers: Vec<Tensor>, // [pages PAGE_TOKENS, keys and values]
    free: Arc<Mutex<Vec<u32>>>,
    pages: usize,
}

/// A page of an arena on the device; its place goes back when it is dropped.
#[derive(Debug)]
pub struct DevicePage {
    place: Option<u32>, // `None` where the arena had no more
    free: Arc<Mutex<Vec<u32>>>,
}

impl Drop for DevicePage {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.free.lock().push(place);
        }
    }
}

impl Arena {
    /// An arena of `pages` pages for keys of `kv_width` values and values as wide.
    pub(super) fn new(
        pages: usize,
        layers: usize,
        kv_width: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let places = u32::try_from(pages * PAGE_TOKENS)
            .map_err(|_| EngineError::Request(format!("{pages} pages are more than a device can number")))?;
        let layers = (0..layers)
            .map(|_| Ok(Tensor::zeros((places as usize, 2 * kv_width), dtype, device)?))
            .collect::<Result<_>>()?;
        // The lowest place is on top of the pile.
        let free = (0..places / PAGE_TOKENS as u32).rev().collect();
        Ok(Self { layers, free: Arc::new(Mutex::new(free)), pages })
    }

    /// A page, without a place where all are taken.
    pub(super) fn page(&self) -> DevicePage {
        DevicePage { place: self.free.lock().pop(), free: Arc::clone(&self.free) }
    }

    /// The rows of the tokens `positions` of a sequence with these pages.
    pub(super) fn rows(
        &self,
        pages: &[Arc<DevicePage>],
        positions: impl Iterator<Item = usize>,
    ) -> Result<Vec<u32>> {
        let row = |position: usize| {
            let page = pages.get(position / PAGE_TOKENS).and_then(|page| page.place);
            let page = page.ok_or(EngineError::CacheFull { pages: self.pages })?;
            Ok(page * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32)
        };
        positions.map(row).collect()
    }

    /// Writes `[rows, keys and values]` to the places that `into`, of the same shape, names.
    pub(super) fn write(&self, layer: usize, into: &Tensor, keys_and_values: &Tensor) -> Result<()> {
        // In place: nobody reads these rows, which belong to pages that are held by one sequence.
        Ok(self.layers[layer].scatter_set(into, keys_and_values, 0)?)
    }

    /// The rows `[rows, keys and values]` that `from` names.
    pub(super) fn read(&self, layer: usize, from: &Tensor) -> Result<Tensor> {
        Ok(self.layers[layer].index_select(from, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_to_one_page_at_a_time() {
        let arena = Arena::new(2, 1, 4, DType::F32, &Device::Cpu).unwrap();
        let (first, second) = (Arc::new(arena.page()), Arc::new(arena.page()));
        let pages = [Arc::clone(&second), Arc::clone(&first)];
        assert_eq!(arena.rows(&pages, [0, 31, 32].into_iter()).unwrap(), [32, 63, 0]);
        let third = [Arc::new(arena.page())];
        let error = arena.rows(&third, 0..1).unwrap_err();
        assert_eq!(error, EngineError::CacheFull { pages: 2 });
        drop((first, second, pages));
        assert_eq!(arena.rows(&[Arc::new(arena.page())], 0..1).unwrap().len(), 1);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_beside_it_changes() {
        let arena = Arena::new(1, 2, 1, DType::F32, &Device::Cpu).unwrap();
        let tensor =
            |values: &[f32]| Tensor::from_slice(values, (values.len() / 2, 2), &Device::Cpu).unwrap();
        let into = Tensor::new(&[[5u32, 5], [2, 2]], &Device::Cpu).unwrap();
        arena.write(1, &into, &tensor(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        let from = Tensor::new(&[2u32, 3, 5], &Device::Cpu).unwrap();
        let read = |layer| arena.read(layer, &from).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(read(1), [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]);
        assert_eq!(read(0), [[0.0; 2]; 3]);
    }
}
