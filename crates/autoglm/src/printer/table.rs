//! Aligned columns, and texts of strangers made fit for a terminal.

use autoglm_domain::Timestamp;

/// Rows of text under a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a leading `>` puts a column to the right, for numbers.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self {
            right: columns.iter().map(|name| name.starts_with('>')).collect(),
            header: columns.iter().map(|name| name.trim_start_matches('>').to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// One more row. Control characters in it are taken out.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| oneline(&cell)).collect());
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table's text; `heading` dresses the first line.
    pub(crate) fn render(&self, heading: impl Fn(&str) -> String) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for ((cell, width), right) in cells.zip(&widths).zip(&self.right) {
                if !text.is_empty() {
                    text.push_str("  ");
                }
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                let parts = if *right { [gap.as_str(), cell] } else { [cell, gap.as_str()] };
                text.extend(parts);
            }
            text.trim_end().to_owned()
        };
        let mut text = heading(&line(&mut self.header.iter().map(String::as_str)));
        for row in &self.rows {
            text.push('\n');
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        text
    }
}

/// `text` without control characters that could move the cursor, colour or retitle a terminal; line ends and
/// tabs stay.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || is_bidi(*c))).collect()
}

/// `text` on one line, without control characters.
pub(crate) fn oneline(text: &str) -> String {
    let spaced = text.chars().map(|c| if matches!(c, '\n' | '\t' | '\r') { ' ' } else { c });
    spaced.filter(|c| !(c.is_control() || is_bidi(*c))).collect()
}

/// Characters that reverse the order of what follows.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The beginning of `text` on one line of at most `most` characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let line = oneline(text.trim());
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// A time for people: UTC, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('T').zip(text.get(11..19)) {
        Some(((day, _), clock)) => format!("{day} {clock}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["VERSION", ">LOSS", "NOTE"]);
        table.row(["v1".into(), "0.5".into(), "größer\nals".into()]);
        table.row(["v12".into(), "10.25".into(), String::new()]);
        let text = table.render(str::to_owned);
        assert_eq!(text, "VERSION   LOSS  NOTE\nv1         0.5  größer als\nv12      10.25");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d"), "a[31mb\ncd");
        assert_eq!(oneline("a\r\nb\u{7}"), "a  b");
        assert_eq!(shortened("  one two three ", 7), "one tw…");
        assert_eq!(shortened("one", 3), "one");
    }

    #[test]
    fn a_time_is_written_to_the_second() {
        assert_eq!(time(Timestamp(1_795_000_000_123)), "2026-11-18 11:06:40Z");
    }
}
