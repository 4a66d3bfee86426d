//! Columns of text, as wide as their widest cell.

use std::fmt::Write as _;

use anstyle::Style;

/// Two blanks between columns keep narrow tables readable.
const GAP: usize = 2;

/// A cell and how it is shown on a terminal.
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new())
    }

    /// Text with a style.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        let text = text.into();
        Self { text, style }
    }
}

/// Draw a header and rows; the last column is not padded.
pub fn draw(header: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|title| title.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let bold = Style::new().bold();
    let titles: Vec<_> = header.iter().map(|t| Cell::styled(*t, bold)).collect();
    let mut text = line(&titles, &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line(cells: &[Cell], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let Cell { text: words, style } = cell;
        let _ = write!(text, "{style}{words}{style:#}");
        if index + 1 < cells.len() {
            let padding = width - words.chars().count() + GAP;
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec![Cell::plain("long-name"), Cell::plain("x")]];
        let drawn = anstream::adapter::strip_str(&draw(&["A", "B"], &rows)).to_string();
        assert_eq!(drawn, "A          B\nlong-name  x\n");
    }
}
