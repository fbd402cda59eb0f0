//! A number as text with a fixed number of digits: what `f64` itself prints, in a fifth of the time.
//!
//! A decision prints a dozen of them, and `f64` computes each exactly, with arbitrarily long numbers where two digits are
//! asked for. Here the digits come from one multiplication wherever its rounding error cannot matter, else from `f64`.

use std::fmt;

/// Prints like the number it holds; `{:.2}` and the like, with up to six digits, are fast.
#[derive(Clone, Copy, Debug)]
pub struct Decimal(pub f64);

/// Below this a product's rounding error is under 1.2e-7, a tenth of [`DOUBT`].
const LARGEST: f64 = 1e9;
/// Nearer than this to the middle between two results the product does not say which one it is.
const DOUBT: f64 = 1e-6;
const POWERS: [u32; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(x) = *self;
        let plain = f.width().is_none() && !f.sign_plus();
        let digits = f.precision().filter(|_| plain);
        let Some((digits, power)) = digits.and_then(|digits| Some((digits, *POWERS.get(digits)?))) else {
            return x.fmt(f);
        };
        let scaled = x.abs() * f64::from(power);
        let rest = scaled.fract();
        if !(scaled < LARGEST && (rest - 0.5).abs() > DOUBT) {
            return x.fmt(f); // Also infinite, or not a number.
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1e9")]
        let mut left = scaled as u32 + u32::from(rest > 0.5);
        let least = if digits == 0 { 1 } else { digits + 2 };
        let mut text = [b'0'; 12];
        let mut length = 0;
        for (place, to) in text.iter_mut().rev().enumerate() {
            if place >= least && left == 0 {
                break;
            }
            length += 1;
            if digits > 0 && place == digits {
                *to = b'.';
                continue;
            }
            *to = b'0' + (left % 10) as u8;
            left /= 10;
        }
        if x.is_sign_negative() {
            f.write_str("-")?;
        }
        let text = text.get(text.len() - length..).unwrap_or_default();
        f.write_str(std::str::from_utf8(text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(x: f64) {
        let of = Decimal(x);
        assert_eq!(format!("{of:.0}"), format!("{x:.0}"));
        assert_eq!(format!("{of:.1}"), format!("{x:.1}"));
        assert_eq!(format!("{of:.2}"), format!("{x:.2}"));
        assert_eq!(format!("{of:.3}"), format!("{x:.3}"));
        assert_eq!(format!("{of:.6}"), format!("{x:.6}"));
        assert_eq!(format!("{of:.9} {of:8.2} {of:+.1} {of}"), format!("{x:.9} {x:8.2} {x:+.1} {x}"));
    }

    #[test]
    fn prints_what_the_number_prints_where_rounding_is_delicate() {
        let odd =
            [0.0, -0.0, 0.5, 1.5, 2.5, 0.05, 0.25, 0.125, 0.005, 1.005, 0.995, 9.995, 99.5, 0.999_999_9, 1e9, 1e12];
        for x in odd.into_iter().chain([
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::INFINITY,
            f64::NAN,
            999_999_999.5,
            4_294_967_295.0,
        ]) {
            check(x);
            check(-x);
            check(f64::from_bits(x.to_bits().wrapping_add(1)));
            check(f64::from_bits(x.to_bits().wrapping_sub(1)));
        }
    }

    proptest! {
        #[test]
        fn prints_what_the_number_prints(bits in any::<u64>(), x in -2e3_f64..2e3, n in -2_000_000_i32..2_000_000) {
            check(f64::from_bits(bits));
            check(x);
            check(f64::from(n) / 2000.0);
        }
    }
}
