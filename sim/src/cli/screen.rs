//! What goes to a terminal: colours if it is one, aligned columns, a progress bar. It decides nothing.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For standard output: colours on a terminal only, and none if `NO_COLOR` is set.
    pub(crate) fn stdout() -> Paint {
        Paint(io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    pub(crate) fn is_on(self) -> bool {
        self.0
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows with columns of equal width; numbers, which are what begins with a digit in every row, stand at the right.
pub(crate) fn columns(head: &[&str], rows: &[Vec<String>], paint: Paint) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let is_number = |cell: &str| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let right: Vec<bool> =
        (0..head.len()).map(|column| !rows.is_empty() && rows.iter().all(|row| is_number(&row[column]))).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let blanks = " ".repeat(width(column) - cell.chars().count());
            let (before, after) = if right[column] { (blanks, String::new()) } else { (String::new(), blanks) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        line.trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|text| (*text).to_owned()).collect();
    let mut out = format!("{}\n", paint.bold(&line(&head)));
    for row in rows {
        out.push_str(&line(row));
        out.push('\n');
    }
    out
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A line on standard error that tells how far something is: a bar on a terminal, else a line now and then.
pub(crate) struct Progress {
    terminal: bool,
    since: Instant,
    last: Option<Instant>,
    drawn: bool,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal(), since: Instant::now(), last: None, drawn: false }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Shows `part` of 1 and a text, if it is time to.
    pub(crate) fn show(&mut self, part: f64, text: impl FnOnce() -> String) {
        let every = if self.terminal { Duration::from_millis(150) } else { Duration::from_secs(15) };
        if self.last.unwrap_or(self.since).elapsed() < every {
            return;
        }
        self.last = Some(Instant::now());
        let part = part.clamp(0.0, 1.0);
        if self.terminal {
            let done = (part * f64::from(BAR_WIDTH)) as u32;
            let bar: String = (0..BAR_WIDTH).map(|cell| if cell < done { '█' } else { '░' }).collect();
            eprint!("\r\x1b[K{bar} {:3.0} %  {}", part * 100.0, text());
            let _ = io::stderr().flush();
            self.drawn = true;
        } else {
            eprintln!("{:3.0} %  {}", part * 100.0, text());
        }
    }

    /// Makes room for other output.
    pub(crate) fn clear(&mut self) {
        if core::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
            let _ = io::stderr().flush();
        }
    }
}

const BAR_WIDTH: u32 = 30;

#[cfg(test)]
mod tests {
    use super::{Paint, columns, grouped};

    #[test]
    fn numbers_stand_at_the_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table =
            columns(&["bug", "cases", "why"], &[row(["é", "7", "x"]), row(["long", "1,234", ""])], Paint(false));
        assert_eq!(table, "bug   cases  why\né         7  x\nlong  1,234\n");
    }

    #[test]
    fn digits_in_groups() {
        let all = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
    }
}
