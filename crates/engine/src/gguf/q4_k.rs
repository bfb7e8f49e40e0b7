//! The search behind q4_K: scales and minima of 256 values at 4 bits with the least squared error.
//!
//! ggml's reference tries 21 scales a group and rounds what it finds to 6 bits. Here what comes after the
//! rounding is searched as well: the integers beside the rounded ones, and the two scales of the block that
//! fit best once all integers are fixed.

use half::f16;

/// Values of a block and of a group.
const BLOCK: usize = 256;
const GROUP: usize = 32;
const GROUPS: usize = BLOCK / GROUP;
/// Largest code and largest scale or minimum.
const CODES: f32 = 15.0;
const LEVELS: f32 = 63.0;
/// Scales that are tried for a group, around the one that spans it.
const TRIES: usize = 24;

/// What a block is made of, before it is packed.
#[derive(Clone, Copy)]
struct Block {
    d: f32,     // of the scales; a 16-bit float's value
    d_min: f32, // of the minima
    scales: [u8; GROUPS],
    mins: [u8; GROUPS],
}

/// A line `scale q - min` and the squared error it leaves.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    min: f32,
    error: f32,
}

/// Writes 256 `values` as the 144 bytes of a block.
pub(super) fn encode(values: &[f32], bytes: &mut [u8]) {
    let lines: [Line; GROUPS] = std::array::from_fn(|group| fit(&values[group * GROUP..][..GROUP]));
    let largest = |part: fn(&Line) -> f32| lines.iter().map(part).fold(0.0, f32::max);
    let mut best = round(values, &lines, largest(|l| l.scale) / LEVELS, largest(|l| l.min) / LEVELS);
    // Each pass fits the two scales to the integers and the integers to the scales; two are enough to settle.
    for _ in 0..2 {
        let (d, d_min) = refit(values, &best.0);
        let candidate = round(values, &lines, d, d_min);
        if candidate.1 < best.1 {
            best = candidate;
        }
    }
    pack(values, &best.0, bytes);
}

/// The best line for a group without regard to 6 bits: each scale that is tried gives codes, and the codes give
/// the line of least squares.
fn fit(values: &[f32]) -> Line {
    let lowest = values.iter().copied().fold(0.0, f32::min); // a minimum is subtracted and never negative
    let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = highest - lowest;
    if span <= 0.0 {
        return Line { scale: 0.0, min: -lowest, error: 0.0 };
    }
    let line = |scale: f32, min: f32| Line { scale, min, error: error(values, scale, min) };
    let mut best = line(span / CODES, -lowest);
    for attempt in 0..TRIES {
        // Steps of 0.1 code from 14 codes a span to 16.3: a few values may be cut off at the ends.
        let codes = CODES - 1.0 + 0.1 * attempt as f32;
        let inverse = codes / span;
        let (scale, min) =
            least_squares(values, |value| ((value - lowest) * inverse).round().clamp(0.0, CODES));
        let candidate = line(scale, min);
        if candidate.error < best.error {
            best = candidate;
        }
    }
    best
}

/// The line `value ≈ scale code - min` of least squares with `min >= 0`.
fn least_squares(values: &[f32], code: impl Fn(f32) -> f32) -> (f32, f32) {
    let (mut q, mut qq, mut x, mut xq) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for &value in values {
        let code = code(value);
        q += code;
        qq += code * code;
        x += value;
        xq += value * code;
    }
    let count = values.len() as f32;
    let determinant = count * qq - q * q;
    if determinant > 0.0 {
        let scale = (count * xq - x * q) / determinant;
        let min = (q * xq - qq * x) / determinant;
        if min >= 0.0 && scale > 0.0 {
            return (scale, min);
        }
    }
    // Through the origin.
    (if qq > 0.0 { (xq / qq).max(0.0) } else { 0.0 }, 0.0)
}

/// The nearest code to `value` on a line.
fn nearest(value: f32, inverse: f32, min: f32) -> f32 {
    ((value + min) * inverse).round().clamp(0.0, CODES)
}

/// The squared error that a line leaves over `values`.
fn error(values: &[f32], scale: f32, min: f32) -> f32 {
    let inverse = inverse(scale);
    values
        .iter()
        .map(|&value| {
            let error = scale * nearest(value, inverse, min) - min - value;
            error * error
        })
        .sum()
}

fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// The block with these scales (as 16-bit floats) whose integers are the best near the lines; and its error.
fn round(values: &[f32], lines: &[Line; GROUPS], d: f32, d_min: f32) -> (Block, f32) {
    let (d, d_min) = (f16::from_f32(d).to_f32(), f16::from_f32(d_min).to_f32());
    let mut block = Block { d, d_min, scales: [0; GROUPS], mins: [0; GROUPS] };
    let mut total = 0.0;
    for (group, line) in lines.iter().enumerate() {
        let values = &values[group * GROUP..][..GROUP];
        let around = |value: f32, unit: f32| {
            let middle = (value * inverse(unit)).round();
            [-1.0, 0.0, 1.0].map(|step| (middle + step).clamp(0.0, LEVELS))
        };
        let mut least = f32::INFINITY;
        for scale in around(line.scale, d) {
            for min in around(line.min, d_min) {
                let error = error(values, d * scale, d_min * min);
                if error < least {
                    least = error;
                    block.scales[group] = scale as u8;
                    block.mins[group] = min as u8;
                }
            }
        }
        total += least;
    }
    (block, total)
}

/// The two scales of least squares for the integers of `block`: minimises `Σ (d s q - dmin m - x)²`.
fn refit(values: &[f32], block: &Block) -> (f32, f32) {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for group in 0..GROUPS {
        let (scale, min) = (f32::from(block.scales[group]), f32::from(block.mins[group]));
        let (step, low) = (block.d * scale, block.d_min * min);
        for &value in &values[group * GROUP..][..GROUP] {
            let a = scale * nearest(value, inverse(step), low);
            aa += a * a;
            ab += a * min;
            bb += min * min;
            ax += a * value;
            bx += min * value;
        }
    }
    let determinant = aa * bb - ab * ab;
    if determinant > 0.0 {
        let (d, d_min) = ((bb * ax - ab * bx) / determinant, (ab * ax - aa * bx) / determinant);
        if d > 0.0 && d_min >= 0.0 {
            return (d, d_min);
        }
    }
    (block.d, block.d_min)
}

fn pack(values: &[f32], block: &Block, bytes: &mut [u8]) {
    bytes.fill(0);
    bytes[..2].copy_from_slice(&f16::from_f32(block.d).to_le_bytes());
    bytes[2..4].copy_from_slice(&f16::from_f32(block.d_min).to_le_bytes());
    for group in 0..GROUPS {
        let (scale, min) = (block.scales[group], block.mins[group]);
        if group < 4 {
            bytes[4 + group] |= scale;
            bytes[8 + group] |= min;
        } else {
            bytes[8 + group] |= (scale & 15) | (min & 15) << 4;
            bytes[group] |= scale >> 4 << 6;
            bytes[4 + group] |= min >> 4 << 6;
        }
        let (step, low) = (block.d * f32::from(scale), block.d_min * f32::from(min));
        let inverse = inverse(step);
        let codes = &mut bytes[16 + group / 2 * GROUP..][..GROUP];
        for (byte, &value) in codes.iter_mut().zip(&values[group * GROUP..]) {
            *byte |= (nearest(value, inverse, low) as u8) << (4 * (group % 2));
        }
    }
}
