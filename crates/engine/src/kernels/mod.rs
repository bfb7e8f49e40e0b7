//! The loops that cost time: matrix products, normalisation, activations, rotary embedding, attention.
//!
//! Everything works on row-major `f32` slices and, for the base's weights, panels. This is the one place for `unsafe`:
//! calls into `gemm` and into functions compiled for CPU features that were found at run time, vector loads, and
//! threads that write disjoint columns of one result. Each kernel has a naive reference in its tests.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        reason = "what is fetched ahead, and sums without a tile, are for the vector kernels of x86-64"
    )
)]

mod activation;
mod attention;
mod bf16_panels;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod bf16_tiles;
mod bytes;
mod cpu;
mod dispatch;
mod dot;
mod f32_panels;
mod gated;
mod large;
mod matmul;
mod matrix;
mod norm;
mod out;
mod paged;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod paged_tiles;
mod panels;
mod q4_panels;
mod q8_panels;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod q8_tiles;
mod rope;
mod rows;
mod softmax;
mod tiles;

pub(crate) use activation::{add_assign, swiglu, swiglu_backward};
pub(crate) use attention::{AttentionShape, attention_backward, attention_forward};
pub(crate) use bf16_panels::Bf16Panels;
pub(crate) use cpu::Cpu;
pub(crate) use dispatch::vectorized;
pub(crate) use dot::dot;
pub(crate) use f32_panels::F32Panels;
pub(crate) use gated::Gated;
pub(crate) use matmul::{Mat, MatMut, Threads, matmul};
pub use matrix::WeightFormat;
pub(crate) use matrix::{Matrix, Weights};
pub(crate) use norm::{rms_norm, rms_norm_backward};
pub(crate) use paged::{CachedSequence, attention_over_pages};
pub use paged::{KvPage, PAGE_TOKENS};
pub(crate) use panels::PANEL;
pub(crate) use q4_panels::{Q4Panels, q4_levels};
pub(crate) use q8_panels::Q8Panels;
pub(crate) use rope::{RotaryTable, rotate, rotate_back};
pub(crate) use rows::share_rows;
pub(crate) use softmax::{cross_entropy_row, distillation_row, softmax_in_place};
