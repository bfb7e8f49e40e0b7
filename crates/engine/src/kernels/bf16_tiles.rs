//! Products with weights in bfloat16 by AMX, 32 rows of input by 32 of the weights at once.
//!
//! A panel of [`Bf16Panels`] lies as the instruction wants its second operand: 16 lines of it are two tiles side by side.
//! Its sums run along the input in steps of 32, in an order of its own. So that a row's result does not depend on how many
//! there are, a processor that has these tiles takes them for every product.

use std::arch::asm;

use super::{
    Bf16Panels, Cpu,
    bf16_panels::{STEP_LINES, join},
    panels::{Ahead, CACHE_LINE, PANEL, Panels, Pass, Tile},
    tiles::TileSession,
};

/// Rows of a tile.
const ROWS: usize = 16;

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
        let Pass { panel, steps, ahead, .. } = pass;
        let lines = self.0.panel(panel);
        let lines = &lines[steps.start * STEP_LINES..lines.len().min(steps.end * STEP_LINES)];
        let group = self.packed_width() * ROWS;
        let part = |of: &[u32]| of[steps.start * TILE..steps.end * TILE].as_ptr();
        let (first, second) = packed.split_at(group);
        if steps.is_empty() {
            return;
        }
        assert!(tile.len() >= 2 * ROWS, "a tile has 32 rows");
        let (sums, weights) = (tile.as_mut_ptr().cast::<f32>(), lines.as_ptr().cast::<u8>());
        // SAFETY: the processor has tiles, for these panels are made only there, and the caller has begun a session. The
        // slices were cut to the same steps, and 32 rows of 32 sums were checked.
        #[allow(unsafe_code, reason = "calls a function that takes pointers")]
        unsafe {
            if second.is_empty() {
                sixteen_rows(sums, part(first), weights, steps.len(), ahead);
            } else {
                thirty_two_rows(sums, [part(first), part(second)], weights, steps.len(), ahead);
            }
        }
    }

    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL] {
        self.0.block(panel, columns)
    }
}

/// The fetches of a step, as [`super::panels::fetch`] does them: half of each of its 16 lines, `$ahead` bytes behind `w`; none
/// where that is 0. `$after` is a label of its own.
macro_rules! fetch_halves {
    ($ahead:literal, $after:literal) => {
        concat!(
            "test {",
            $ahead,
            "}, {",
            $ahead,
            "}\njz ",
            $after,
            "f\n",
            concat!(
                ".irp line,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n",
                "prefetcht1 [{w} + {",
                $ahead,
                "} + 128*\\line]\n",
                ".endr\n",
            ),
            $after,
            ":"
        )
    };
}

/// Bytes from the first half of a line to what is fetched for its second half.
fn second_half(ahead: Ahead) -> usize {
    if ahead[1] == 0 { 0 } else { ahead[1] + CACHE_LINE }
}

/// `sums` `[32, 32] += x wᵀ` over `steps` steps of 32 inputs: `x` are two times 16 rows.
///
/// # Safety
/// A session is on this thread; each of `x` holds `steps` tiles, `w` `steps` times as many lines as the session's tiles are
/// deep, and there is at least one step.
#[allow(unsafe_code, reason = "instructions that have no stable name")]
unsafe fn thirty_two_rows(sums: *mut f32, x: [*const u32; 2], w: *const u8, steps: usize, ahead: Ahead) {
    // SAFETY: the caller's promise; a fetch of what is not there does nothing.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {line}*1]",
            "tileloadd tmm1, [{sums} + {line}*1 + 64]",
            "tileloadd tmm2, [{sums} + {line}*1 + 2048]",
            "tileloadd tmm3, [{sums} + {line}*1 + 2112]",
            "2:",
            "tileloadd tmm6, [{w} + {line}*1]",
            "tileloadd tmm4, [{x0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x1} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            fetch_halves!("ahead0", "3"),
            fetch_halves!("ahead1", "4"),
            "add {x0}, 1024",
            "add {x1}, 1024",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 64], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 2112], tmm3",
            sums = in(reg) sums,
            line = in(reg) 4 * PANEL,
            row = in(reg) 4 * STEP_LINES,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            ahead0 = in(reg) ahead[0],
            ahead1 = in(reg) second_half(ahead),
            options(nostack),
        );
    }
}

/// The first 16 rows of what [`thirty_two_rows`] does.
///
/// # Safety
/// As there.
#[allow(unsafe_code, reason = "instructions that have no stable name")]
unsafe fn sixteen_rows(sums: *mut f32, x: *const u32, w: *const u8, steps: usize, ahead: Ahead) {
    // SAFETY: the caller's promise; a fetch of what is not there does nothing.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {line}*1]",
            "tileloadd tmm1, [{sums} + {line}*1 + 64]",
            "2:",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tileloadd tmm6, [{w} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {line}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            fetch_halves!("ahead0", "3"),
            fetch_halves!("ahead1", "4"),
            "add {x}, 1024",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 64], tmm1",
            sums = in(reg) sums,
            line = in(reg) 4 * PANEL,
            row = in(reg) 4 * STEP_LINES,
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            ahead0 = in(reg) ahead[0],
            ahead1 = in(reg) second_half(ahead),
            options(nostack),
        );
    }
}
