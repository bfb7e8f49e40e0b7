//! What this processor can do, found once.

use std::sync::OnceLock;

/// Instruction sets that the kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// AVX-512 F, BW, VL and DQ.
    pub(crate) avx512: bool,
    /// AVX-512 BF16: products of pairs of bfloat16.
    pub(crate) avx512_bf16: bool,
    /// AVX-512 VNNI: products of four bytes.
    pub(crate) avx512_vnni: bool,
    /// AMX with products of bfloat16, and leave of the system to use it.
    pub(crate) amx_bf16: bool,
    /// AMX with products of bytes, and leave of the system to use it.
    pub(crate) amx_int8: bool,
    /// AVX2 with FMA.
    pub(crate) avx2: bool,
}

impl Cpu {
    #[cfg(any(test, not(target_arch = "x86_64")))]
    /// Nothing beyond what the target always has.
    pub(crate) const PLAIN: Self = Self {
        avx512: false,
        avx512_bf16: false,
        avx512_vnni: false,
        amx_bf16: false,
        amx_int8: false,
        avx2: false,
    };

    /// This processor.
    pub(crate) fn detected() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(Self::detect)
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        use std::arch::is_x86_feature_detected as has;
        let avx512 =
            has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("fma");
        let (amx_bf16, amx_int8) = if avx512 { super::tiles::available() } else { (false, false) };
        Self {
            avx512,
            avx512_bf16: avx512 && has!("avx512bf16"),
            avx512_vnni: avx512 && has!("avx512vnni"),
            amx_bf16,
            amx_int8,
            avx2: has!("avx2") && has!("fma"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Self {
        Self::PLAIN
    }

    /// This processor and every lesser one that it can stand in for, so that tests reach all code paths.
    #[cfg(test)]
    pub(crate) fn each() -> Vec<Self> {
        let best = Self::detected();
        let no_tiles = Self { amx_bf16: false, amx_int8: false, ..best };
        let no_extensions = Self { avx512_bf16: false, avx512_vnni: false, ..no_tiles };
        let no_avx512 = Self { avx512: false, ..no_extensions };
        let mut all = vec![best, no_tiles, no_extensions, no_avx512, Self::PLAIN];
        all.dedup();
        all
    }
}
