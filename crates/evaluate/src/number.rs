//! Numbers as people write them: separators, signs, percent, units.
//!
//! In: text. Out: the [`Quantity`] that a whole text states, or the quantities that occur in it.

use std::sync::LazyLock;

use regex::Regex;

/// A finite number with an optional unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// The number in the unit's base where the unit is known (`1 km` is 1000 m).
    pub value: f64,
    /// The number as it was written.
    pub written: f64,
    /// Digits of an integer as it was written, with its sign, without leading zeros.
    pub integer: Option<String>,
    /// What is measured: a base unit (`m`, `g`, `s`, `%`, `$`), or the unit as it was written.
    pub unit: Option<String>,
}

/// Known units: spellings, what they are expressed in, and by how much.
const UNITS: &[(&[&str], &str, f64)] = &[
    (&["mm", "millimeter", "millimeters", "millimetre", "millimetres"], "m", 1e-3),
    (&["cm", "centimeter", "centimeters", "centimetre", "centimetres"], "m", 1e-2),
    (&["m", "meter", "meters", "metre", "metres"], "m", 1.0),
    (&["km", "kilometer", "kilometers", "kilometre", "kilometres"], "m", 1e3),
    (&["mg", "milligram", "milligrams"], "g", 1e-3),
    (&["g", "gram", "grams"], "g", 1.0),
    (&["kg", "kilogram", "kilograms", "kilo", "kilos"], "g", 1e3),
    (&["ms", "millisecond", "milliseconds"], "s", 1e-3),
    (&["s", "sec", "secs", "second", "seconds"], "s", 1.0),
    (&["min", "mins", "minute", "minutes"], "s", 60.0),
    (&["h", "hr", "hrs", "hour", "hours"], "s", 3600.0),
    (&["day", "days"], "s", 86_400.0),
    (&["%", "percent", "pct"], "%", 1.0),
    (&["$", "usd", "dollar", "dollars"], "$", 1.0),
    (&["€", "eur", "euro", "euros"], "€", 1.0),
    (&["£", "gbp", "pound", "pounds"], "£", 1.0),
    (&["¥", "jpy", "yen"], "¥", 1.0),
    (&["₹", "inr", "rupee", "rupees"], "₹", 1.0),
];

/// One number with what may stand around it. Thousands are grouped by comma, apostrophe, underscore or a
/// narrow or fixed space, or by points when there are at least two.
#[expect(clippy::expect_used, reason = "a constant expression, compiled in every test of this module")]
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        (?P<sign> [-+\u{2212}]\s? )?
        (?P<currency> [$€£¥₹]\s? )?
        (?P<inner> [-\u{2212}] )?
        (?P<body>
            \d{1,3} (?: [,'’_\u{A0}\u{2009}\u{202F}] \d{3} )+ (?: \.\d+ )?
          | \d{1,3} (?: \.\d{3} ){2,} (?: ,\d+ )?
          | \d{1,3} \.\d{3} ,\d+
          | \d+ (?: [.,]\d+ )?
          | \.\d+
        )
        (?P<exponent> [eE][-+]?\d{1,4} )?
        (?P<unit> [\s\u{A0}]? (?: [%€£¥₹$°] | \p{L}+ ) )?",
    )
    .expect("constant")
});

/// Most quantities that are looked for in one text.
const MOST: usize = 1000;

/// The quantity that the whole of `text` states, or `None` when it says anything else.
pub fn parse(text: &str) -> Option<Quantity> {
    let text = western_digits(text);
    let text = text.trim().trim_end_matches(['.', '!']).trim_end();
    let found = NUMBER.captures(text)?;
    let whole = found.get(0)?;
    if whole.start() != 0 || whole.end() != text.len() {
        return None;
    }
    quantity(&found, None)
}

/// The quantities in `text`, in order, at most 1000. Digits inside a word (`B2B`) are not quantities.
pub fn find_all(text: &str) -> Vec<Quantity> {
    let text = western_digits(text);
    let mut found = Vec::new();
    for captures in NUMBER.captures_iter(&text).take(MOST) {
        let Some(whole) = captures.get(0) else { continue };
        let before = text.get(..whole.start()).and_then(|head| head.chars().next_back());
        found.extend(quantity(&captures, before));
    }
    found
}

fn quantity(captures: &regex::Captures<'_>, before: Option<char>) -> Option<Quantity> {
    let part = |name| captures.name(name).map(|found| found.as_str().trim());
    let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if inside_word && part("sign").is_none() && part("currency").is_none() {
        return None;
    }
    if part("sign").is_some() && part("inner").is_some() && part("currency").is_none() {
        return None;
    }
    // In `10-5` and `covid-19` the line is no sign.
    let negative = match (part("sign"), part("inner")) {
        (Some("-" | "\u{2212}"), _) => !inside_word,
        (_, Some(_)) => true,
        _ => false,
    };
    let body = part("body")?;
    let plain = plain_digits(body);
    let exponent = part("exponent").unwrap_or("");
    let magnitude: f64 = format!("{plain}{exponent}").parse().ok()?;
    let (unit, factor) = match part("currency").or(part("unit")) {
        Some(written) => known_unit(written),
        None => (None, 1.0),
    };
    let written = if negative { -magnitude } else { magnitude };
    let value = written * factor;
    if !value.is_finite() {
        return None;
    }
    let whole = exponent.is_empty() && plain.bytes().all(|b| b.is_ascii_digit());
    let integer = whole.then(|| {
        let digits = plain.trim_start_matches('0');
        match (digits.is_empty(), negative) {
            (true, _) => "0".to_owned(),
            (false, true) => format!("-{digits}"),
            (false, false) => digits.to_owned(),
        }
    });
    Some(Quantity { value, written, integer, unit })
}

fn known_unit(written: &str) -> (Option<String>, f64) {
    let lower = written.to_lowercase();
    for (spellings, base, factor) in UNITS {
        if spellings.contains(&lower.as_str()) {
            return (Some((*base).to_owned()), *factor);
        }
    }
    (Some(crate::text::stem(&lower).to_owned()), 1.0)
}

/// Whether a quantity's unit is one that is known (`m`, `g`, `s`, `%`, a currency).
pub(crate) fn is_base_unit(unit: &str) -> bool {
    UNITS.iter().any(|(_, base, _)| *base == unit)
}

/// The digits with at most one decimal point, as `f64::from_str` reads them.
fn plain_digits(body: &str) -> String {
    let points = body.matches('.').count();
    let commas = body.matches(',').count();
    let comma_groups = commas > 1
        || points == 1 && commas == 1 && body.find(',') < body.find('.')
        || points == 0 && commas == 1 && body.rsplit(',').next().is_some_and(|tail| tail.len() == 3);
    let leading_zero = body.starts_with('0');
    let european = points > 1 || (points == 1 && commas == 1 && body.find('.') < body.find(','));
    // `0,125` cannot be a thousand.
    let decimal_comma = commas == 1 && (!comma_groups || (leading_zero && points == 0));
    let decimal = match points {
        _ if european || decimal_comma => Some(','),
        1 => Some('.'),
        _ => None,
    };
    body.chars()
        .filter_map(|c| match c {
            _ if c.is_ascii_digit() => Some(c),
            _ if Some(c) == decimal => Some('.'),
            _ => None,
        })
        .collect()
}

/// Decimal digits of the common scripts as ASCII digits.
fn western_digits(text: &str) -> String {
    const ZEROES: &[u32] = &[
        0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
        0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810, 0xFF10,
    ];
    text.chars()
        .map(|c| {
            let code = u32::from(c);
            ZEROES
                .iter()
                .find(|zero| (**zero..**zero + 10).contains(&code))
                .and_then(|zero| char::from_digit(code - zero, 10))
                .unwrap_or(match c {
                    '٫' => '.',
                    '٬' => ',',
                    other => other,
                })
        })
        // Marks that a right-to-left text puts around a number.
        .filter(|c| !matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'))
        .collect()
}

/// Whether two quantities state the same. Integers must agree in every digit unless `tolerance` was given;
/// other numbers may differ by `tolerance`, or by `default_tolerance`, relative to the larger one. Where both have
/// a unit, it must be of the same sort, and `1 km` is `1000 m`; where one has none, the other's is ignored.
pub fn agree(left: &Quantity, right: &Quantity, tolerance: Option<f64>, default_tolerance: f64) -> bool {
    let measured = left.unit.is_some() && right.unit.is_some();
    if measured && left.unit != right.unit {
        return false;
    }
    let (left_value, right_value) =
        if measured { (left.value, right.value) } else { (left.written, right.written) };
    let scaled = measured && (left.value != left.written || right.value != right.written);
    if tolerance.is_none()
        && !scaled
        && let (Some(left), Some(right)) = (&left.integer, &right.integer)
    {
        return left == right;
    }
    let allowed = tolerance.unwrap_or(default_tolerance) * left_value.abs().max(right_value.abs());
    (left_value - right_value).abs() <= allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, value) in [
            ("42", 42.0),
            (" 42. ", 42.0),
            ("1,234,567", 1_234_567.0),
            ("1,234", 1234.0),
            ("1,5", 1.5),
            ("0,125", 0.125),
            ("1.234", 1.234),
            ("1.234.567", 1_234_567.0),
            ("1.234,56", 1234.56),
            ("1,234.56", 1234.56),
            ("1'000", 1000.0),
            ("1\u{202F}000\u{202F}000", 1_000_000.0),
            ("1_000", 1000.0),
            ("-3", -3.0),
            ("\u{2212}3", -3.0),
            ("-$1,000.50", -1000.5),
            ("$-5", -5.0),
            (".5", 0.5),
            ("6.02e23", 6.02e23),
            ("٣٤", 34.0),
            ("１２", 12.0),
            ("१२", 12.0),
            ("\u{200F}42\u{200E}", 42.0),
            ("2 km", 2000.0),
            ("90 min", 5400.0),
        ] {
            assert_eq!(parse(text).map(|q| q.value), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in
            ["", "NaN", "inf", "1e9999", "2026-11-24", "1 2 3", "a1", "12 angry men", "1.2.3", "--5", "∞"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        let huge = "9".repeat(400);
        assert_eq!(parse(&huge), None, "more than f64 holds");
    }

    #[test]
    fn numbers_agree_or_not() {
        for (left, right, expected) in [
            ("1,000", "1000", true),
            ("1000000", "1000001", false),
            ("10000000000000000000000000000000000000001", "10000000000000000000000000000000000000002", false),
            ("007", "7", true),
            ("-0", "0", true),
            ("0.333333333", "0.33333333", true),
            ("0.33", "0.34", false),
            ("5%", "5", true),
            ("5%", "5 kg", false),
            ("1 km", "1000 m", true),
            ("1 km", "1 m", false),
            ("5 km", "5", true),
            ("5 km", "5000", false),
            ("$5", "5 dollars", true),
            ("$5", "€5", false),
            ("3 apples", "3 apple", true),
        ] {
            let (left_q, right_q) = (parse(left).unwrap(), parse(right).unwrap());
            assert_eq!(agree(&left_q, &right_q, None, 1e-6), expected, "{left} / {right}");
            assert_eq!(agree(&right_q, &left_q, None, 1e-6), expected, "{right} / {left}");
        }
        assert!(agree(&parse("100").unwrap(), &parse("101").unwrap(), Some(0.01), 0.0));
    }

    #[test]
    fn numbers_are_found_in_text() {
        let values = |text: &str| find_all(text).iter().map(|q| q.value).collect::<Vec<_>>();
        assert_eq!(values("She had 1,200 and lost 10-5 of covid-19, so B2B."), [1200.0, 10.0, 5.0, 19.0]);
        assert_eq!(values("#### 72"), [72.0]);
        assert_eq!(values("it is -4 degrees"), [-4.0]);
        assert!(find_all(&"1 ".repeat(5000)).len() == 1000);
    }
}
