//! Products with weights in bfloat16 by AMX, 32 rows of input by 32 of the weights at once.
//!
//! A panel of [`Bf16Panels`] lies as the instruction wants its second operand: 16 lines of it are two tiles side by side.
//! Its sums run along the input in steps of 32, in an order of its own. So that a row's result does not depend on how many
//! there are, a processor that has these tiles takes them for every product.

use std::arch::asm;

use super::{
    Bf16Panels, Cpu,
    bf16_panels::{STEP_LINES, join},
    out::Sums,
    panels::{PANEL, Panels, Pass, Tile},
    tiles::TileSession,
};

/// Rows of a tile.
pub(super) const ROWS: usize = 16;

/// Inputs that one product of tiles covers.
const DEPTH: usize = 2 * STEP_LINES;

/// Values of a tile of inputs, each a pair.
const TILE: usize = ROWS * STEP_LINES;

/// Bytes of a step of a panel: 16 lines of 32 pairs.
const STEP_BYTES: usize = STEP_LINES * PANEL * 4;

/// [`Bf16Panels`], multiplied by tiles.
#[derive(Debug)]
pub(super) struct Bf16Tiles<'a>(pub(super) &'a Bf16Panels);

impl Panels for Bf16Tiles<'_> {
    type Packed = u32;
    type Session = TileSession;
    const ROWS: usize = 2 * ROWS;
    const ROWS_MULTIPLE: usize = ROWS;
    const STEP: usize = DEPTH;
    const PACKED_PER_STEP: usize = STEP_LINES;
    const BYTES_PER_STEP: usize = STEP_BYTES;
    /// Results are written and read again for each block, at the price of many products of tiles: long blocks.
    const BLOCK_BYTES: usize = 128 << 10;

    fn shape(&self) -> (usize, usize) {
        self.0.shape()
    }

    fn session(&self) -> TileSession {
        TileSession::new(self.shape().1.div_ceil(2).min(STEP_LINES))
    }

    /// `[⌈rows / 16⌉][steps][16 rows][16 pairs]`; rows and columns that are not there are zeros.
    fn pack(&self, into: &mut [u32], x: &[f32], rows: usize, scale: f32) {
        let d_in = self.shape().1;
        let group = self.packed_width() * ROWS;
        if !rows.is_multiple_of(ROWS) {
            into[rows / ROWS * group..].fill(0);
        }
        for (row, x) in x.chunks_exact(d_in).enumerate() {
            let tiles = into[row / ROWS * group..].chunks_exact_mut(TILE);
            for (tile, x) in tiles.zip(x.chunks(DEPTH)) {
                let into = &mut tile[row % ROWS * STEP_LINES..][..STEP_LINES];
                let (pairs, rest) = x.as_chunks::<2>();
                let (whole, end) = into.split_at_mut(pairs.len());
                for (into, pair) in whole.iter_mut().zip(pairs) {
                    *into = join(pair[0] * scale, pair[1] * scale);
                }
                end.fill(0);
                if let ([last], Some(into)) = (rest, end.first_mut()) {
                    *into = join(last * scale, 0.0);
                }
            }
        }
    }

    fn kernel(&self, tile: &mut Tile, packed: &[u32], pass: Pass, _: Cpu) {
        assert!(tile.len() >= 2 * ROWS, "a tile has 32 rows");
        let sums = Sums { at: tile.as_mut_ptr().cast(), stride: PANEL, keep: true };
        // SAFETY: the tile has as many rows as can be packed.
        #[allow(unsafe_code, reason = "calls a function that takes a pointer")]
        unsafe {
            self.multiply(sums, packed, &pass);
        }
    }

    #[allow(unsafe_code, reason = "sums are rows of a larger matrix")]
    unsafe fn straight(&self, sums: Sums, packed: &[u32], pass: &Pass) -> bool {
        let whole = pass.rows.is_multiple_of(ROWS);
        if whole {
            // SAFETY: the caller's promise; whole tiles are packed.
            unsafe { self.multiply(sums, packed, pass) };
        }
        whole
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        self.0.block(panel, columns)
    }
}

impl Bf16Tiles<'_> {
    /// Adds to the sums, or writes them.
    ///
    /// # Safety
    /// They are as many rows as are packed, to whole tiles, and nobody else reads or writes them meanwhile.
    #[allow(unsafe_code, reason = "calls functions that take pointers")]
    unsafe fn multiply(&self, sums: Sums, packed: &[u32], pass: &Pass) {
        let steps = pass.steps.clone();
        let lines = self.0.panel(pass.panel);
        let lines = &lines[steps.start * STEP_LINES..lines.len().min(steps.end * STEP_LINES)];
        let (first, second) = packed.split_at(self.packed_width() * ROWS);
        let part = |of: &[u32]| of[steps.start * TILE..steps.end * TILE].as_ptr();
        if steps.is_empty() {
            return;
        }
        let w = lines.as_ptr().cast::<u8>();
        let (ahead, lines) = pass.next.lines(steps.len() * STEP_BYTES, steps.len());
        let fetch = Fetch { at: w.wrapping_add(ahead), lines };
        // SAFETY: the processor has tiles, for these panels are made only there, and the caller has begun a session. The
        // slices were cut to the same steps, and the caller promises the sums.
        unsafe {
            if second.is_empty() {
                sums.load::<false>();
                sixteen_rows(part(first), w, steps.len(), fetch);
                sums.store::<false>();
            } else {
                sums.load::<true>();
                thirty_two_rows([part(first), part(second)], w, steps.len(), fetch);
                sums.store::<true>();
            }
        }
    }
}

#[allow(unsafe_code, reason = "instructions that have no stable name")]
impl Sums {
    /// 16 rows of sums to tiles 0 and 1, and with `MORE` the next 16 to 2 and 3: what is there, or zeros.
    ///
    /// # Safety
    /// A session is on this thread, and there are as many rows.
    pub(super) unsafe fn load<const MORE: bool>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            if !self.keep {
                asm!("tilezero tmm0", "tilezero tmm1", options(nostack, nomem));
                if MORE {
                    asm!("tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
                }
                return;
            }
            asm!(
                "tileloadd tmm0, [{at} + {stride}*1]",
                "tileloadd tmm1, [{at} + {stride}*1 + 64]",
                at = in(reg) self.at,
                stride = in(reg) 4 * self.stride,
                options(nostack, readonly),
            );
            if MORE {
                asm!(
                    "tileloadd tmm2, [{at} + {stride}*1]",
                    "tileloadd tmm3, [{at} + {stride}*1 + 64]",
                    at = in(reg) self.at.add(ROWS * self.stride),
                    stride = in(reg) 4 * self.stride,
                    options(nostack, readonly),
                );
            }
        }
    }

    /// Back from the tiles that [`Sums::load`] filled.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn store<const MORE: bool>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilestored [{at} + {stride}*1], tmm0",
                "tilestored [{at} + {stride}*1 + 64], tmm1",
                at = in(reg) self.at,
                stride = in(reg) 4 * self.stride,
                options(nostack),
            );
            if MORE {
                asm!(
                    "tilestored [{at} + {stride}*1], tmm2",
                    "tilestored [{at} + {stride}*1 + 64], tmm3",
                    at = in(reg) self.at.add(ROWS * self.stride),
                    stride = in(reg) 4 * self.stride,
                    options(nostack),
                );
            }
        }
    }
}

/// Cache lines that are fetched into the second cache in each step, one behind the other from `at` on; what is not there is
/// not fetched.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    pub(super) at: *const u8,
    pub(super) lines: usize,
}

/// The fetches of a step, between labels of their own.
macro_rules! fetch_lines {
    () => {
        concat!(
            "mov {left}, {lines}\n",
            "test {left}, {left}\n",
            "jz 4f\n",
            "3:\n",
            "prefetcht1 [{next}]\n",
            "add {next}, 64\n",
            "dec {left}\n",
            "jnz 3b\n",
            "4:",
        )
    };
}

/// Tiles 0 to 3 `+= x wᵀ` over `steps` steps of 32 inputs: `x` are two times 16 rows.
///
/// # Safety
/// A session is on this thread; each of `x` holds `steps` tiles, `w` `steps` times as many lines as the session's tiles are
/// deep, and there is at least one step.
#[allow(unsafe_code, reason = "instructions that have no stable name")]
pub(super) unsafe fn thirty_two_rows(x: [*const u32; 2], w: *const u8, steps: usize, fetch: Fetch) {
    // SAFETY: the caller's promise; a fetch of what is not there does nothing.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm6, [{w} + {line}*1]",
            "tileloadd tmm4, [{x0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x1} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            fetch_lines!(),
            "add {x0}, 1024",
            "add {x1}, 1024",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            line = in(reg) 4 * PANEL,
            row = in(reg) 4 * STEP_LINES,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            next = inout(reg) fetch.at => _,
            lines = in(reg) fetch.lines,
            left = out(reg) _,
            options(nostack, readonly),
        );
    }
}

/// The first 16 rows of what [`thirty_two_rows`] does.
///
/// # Safety
/// As there.
#[allow(unsafe_code, reason = "instructions that have no stable name")]
pub(super) unsafe fn sixteen_rows(x: *const u32, w: *const u8, steps: usize, fetch: Fetch) {
    // SAFETY: the caller's promise; a fetch of what is not there does nothing.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tileloadd tmm6, [{w} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            fetch_lines!(),
            "add {x}, 1024",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            line = in(reg) 4 * PANEL,
            row = in(reg) 4 * STEP_LINES,
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            next = inout(reg) fetch.at => _,
            lines = in(reg) fetch.lines,
            left = out(reg) _,
            options(nostack, readonly),
        );
    }
}
