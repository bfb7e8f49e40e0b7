//! Small helpers of the hand-written SVG: escaping, scales, wrapped labels.

use std::fmt::Write as _;

/// `text` for use in HTML and SVG, in attributes too.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are not allowed in XML, not even escaped.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A linear map from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// The value at `left`.
    pub(crate) from: f64,
    /// The value at `right`.
    pub(crate) to: f64,
    /// First pixel.
    pub(crate) left: f64,
    /// Last pixel.
    pub(crate) right: f64,
}

impl Scale {
    /// The pixel of `value`, held inside the picture.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let span = (self.to - self.from).max(f64::MIN_POSITIVE);
        let share = ((value - self.from) / span).clamp(0.0, 1.0);
        self.left + share * (self.right - self.left)
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `span` into at most `most` parts.
pub(crate) fn step(span: f64, most: usize) -> f64 {
    let rough = (span / most.max(1) as f64).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough)
}

/// `text` in up to `lines` lines of up to `width` characters, broken at spaces and underscores.
pub(crate) fn wrapped(text: &str, width: usize, lines: usize) -> Vec<String> {
    let width = width.max(2);
    let mut wrapped: Vec<String> = Vec::new();
    for word in text.split([' ', '_']).filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        match wrapped.last_mut() {
            Some(line) if line.chars().count() + 1 + length <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => wrapped.push(cut(word, width)),
        }
    }
    let over = wrapped.len() > lines;
    wrapped.truncate(lines);
    if over && let Some(last) = wrapped.last_mut() {
        let kept: String = last.chars().take(width - 1).collect();
        *last = format!("{kept}…");
    }
    wrapped
}

fn cut(word: &str, width: usize) -> String {
    if word.chars().count() <= width {
        return word.to_owned();
    }
    word.chars().take(width - 1).chain(std::iter::once('…')).collect()
}

/// A text element of one or more lines, centred at `x`, the first line at `y`.
pub(crate) fn lines(svg: &mut String, class: &str, x: f64, y: f64, lines: &[String]) {
    let _ = write!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="middle">"#);
    for (at, line) in lines.iter().enumerate() {
        let dy = if at == 0 { "0" } else { "1.15em" };
        let _ = write!(svg, r#"<tspan x="{x:.1}" dy="{dy}">{}</tspan>"#, escape(line));
    }
    svg.push_str("</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_stream_names_can_become_markup() {
        assert_eq!(escape(r#"<b a="1">'&'</b>"#), "&lt;b a=&quot;1&quot;&gt;&#39;&amp;&#39;&lt;/b&gt;");
        assert_eq!(escape("a\u{7}b"), "a\u{fffd}b");
    }

    #[test]
    fn labels_are_wrapped_at_words_and_cut_where_they_do_not_fit() {
        assert_eq!(wrapped("auto_and_commute", 9, 3), ["auto and", "commute"]);
        assert_eq!(wrapped("a very long name of a task", 6, 2), ["a very", "long…"]);
        assert_eq!(wrapped("internationalisation", 8, 2), ["interna…"]);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(step(360.0, 8), 50.0);
        assert_eq!(step(15_000.0, 8), 2000.0);
        assert_eq!(step(1.0, 10), 0.1);
        let scale = Scale { from: 0.0, to: 10.0, left: 100.0, right: 200.0 };
        assert_eq!((scale.at(5.0), scale.at(20.0)), (150.0, 200.0));
    }
}
