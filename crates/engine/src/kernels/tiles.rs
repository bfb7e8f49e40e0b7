//! AMX: eight registers of 16 rows by 64 bytes, *tiles*, and products of them.
//!
//! Linux lets a process use them once it has asked; a thread configures them before it computes with them. The
//! instructions are written out, as the compiler has no stable name for them.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code, reason = "instructions that have no stable name, and a system call")]
mod amx {
    use std::{arch::asm, marker::PhantomData};

    /// Whether there are tiles for bfloat16 and for bytes, and the system lets this process use them.
    pub(in crate::kernels) fn available() -> (bool, bool) {
        const TILES: u32 = 1 << 24;
        const BF16: u32 = 1 << 22;
        const INT8: u32 = 1 << 25;
        let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
        if features & TILES == 0 || !ask() {
            return (false, false);
        }
        (features & BF16 != 0, features & INT8 != 0)
    }

    /// Asks the system to keep the tiles of this process's threads; false where it knows no tiles or refuses.
    fn ask() -> bool {
        /// `ARCH_REQ_XCOMP_PERM` and `XFEATURE_XTILEDATA` of Linux's `asm/prctl.h` and `asm/fpu/types.h`.
        const REQUEST: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: the call takes two numbers and touches no memory of the program.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    }

    /// The shape of each tile (Intel SDM, LDTILECFG).
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_a_row: [u16; 16],
        rows: [u8; 16],
    }

    #[cfg(debug_assertions)]
    thread_local! { static CONFIGURED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) }; }

    /// Tiles are configured on this thread, by one session at a time: 0 to 3 for sums of 16 rows by 16 columns, 4 and 5 for 16 rows of input, 6
    /// and 7 for weights. When it is dropped, they are as if nobody had used them.
    #[derive(Debug)]
    pub(in crate::kernels) struct TileSession(PhantomData<*const ()>); // stays on its thread

    impl TileSession {
        /// For products over `depth` packed values, of four bytes each, at once: 1 to 16.
        pub(in crate::kernels) fn new(depth: usize) -> Self {
            let depth = depth.clamp(1, 16) as u8;
            let mut shapes =
                Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes_a_row: [0; 16], rows: [0; 16] };
            for tile in 0..8 {
                let (rows, values) = match tile {
                    0..4 => (16, 16),
                    4 | 5 => (16, depth),
                    _ => (depth, 16),
                };
                shapes.rows[tile] = rows;
                shapes.bytes_a_row[tile] = u16::from(values) * 4;
            }
            #[cfg(debug_assertions)]
            assert!(!CONFIGURED.replace(true), "a session within a session would leave it without tiles");
            // SAFETY: only who found tiles makes a session; the shapes are those of the first palette.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
            Self(PhantomData)
        }
    }

    impl Drop for TileSession {
        fn drop(&mut self) {
            #[cfg(debug_assertions)]
            CONFIGURED.set(false);
            // SAFETY: the tiles are this session's.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use amx::{TileSession, available};

/// Elsewhere there are none, or nobody to ask.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
pub(super) fn available() -> (bool, bool) {
    (false, false)
}
