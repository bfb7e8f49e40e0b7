//! One loop, compiled three times: for AVX-512, for AVX2 with FMA, and for whatever the target has.

/// Defines a function whose body is compiled for several CPU feature sets; the best one that the CPU has is
/// taken at run time. Inside the body, `FMA` says whether [`f32::mul_add`] is one instruction.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters, reason = "not every loop multiplies and adds")]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                let cpu = $crate::kernels::Cpu::detected();
                if cpu.avx512 {
                    // SAFETY: the features that `avx512` is compiled for were found on this CPU.
                    #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
                    return unsafe { avx512($($arg),*) };
                }
                if cpu.avx2 {
                    // SAFETY: the features that `avx2` is compiled for were found on this CPU.
                    #[allow(unsafe_code, reason = "calls a function compiled for detected CPU features")]
                    return unsafe { avx2($($arg),*) };
                }
            }
            body::<false>($($arg),*)
        }
    };
}

pub(crate) use vectorized;

/// `a * b + c`, fused where that is one instruction (a call into libm where it is not would be slow).
#[inline(always)]
pub(crate) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` within 2 units in the last place for finite results, written so that loops over it vectorise.
///
/// Cody-Waite reduction by ln 2 and the degree 6 Taylor-like polynomial of Cephes `expf`; below -87.3 the
/// result is flushed to 0 within rounding, above 88.7 it saturates near the largest float.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Added to a number of less than 22 bits it leaves no place for a fraction: the sum is rounded to the nearest integer,
    /// which stands in its lowest bits. A cast to an integer, which saturates, would not vectorise.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    let x = x.clamp(-87.336_54, 88.376_26);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = multiply_add::<FMA>(n, -0.693_359_4, x);
    let r = multiply_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_2e-4;
    p = multiply_add::<FMA>(p, r, 1.398_2e-3);
    p = multiply_add::<FMA>(p, r, 8.333_452e-3);
    p = multiply_add::<FMA>(p, r, 4.166_579_6e-2);
    p = multiply_add::<FMA>(p, r, 1.666_666_5e-1);
    p = multiply_add::<FMA>(p, r, 0.5);
    let e = multiply_add::<FMA>(p * r, r, r) + 1.0;
    // 2^n by the exponent bits: n is within -126..=127 after the clamp.
    e * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_close_to_the_standard_library_s() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (ours, theirs) = (super::exp::<false>(x), x.exp());
            assert!((ours - theirs).abs() <= 4e-7 * theirs, "e^{x}: {ours} instead of {theirs}");
        }
    }
}
