//! A terminal whose keys come one by one, and whose screen is the demo's until this is dropped.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal.
#[derive(Debug)]
pub struct Terminal {
    before: Termios,
    keys: Receiver<u8>,
}

impl Terminal {
    /// Takes it; none if the program has none.
    ///
    /// # Errors
    /// The operating system's.
    pub fn take() -> io::Result<Option<Terminal>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let (key, keys) = mpsc::channel();
        thread::spawn(move || {
            let mut byte = [0];
            while io::stdin().read_exact(&mut byte).is_ok() && key.send(byte[0]).is_ok() {}
        });
        let terminal = Terminal { before, keys };
        terminal.write("\x1b[?1049h\x1b[?25l");
        Ok(Some(terminal))
    }

    /// The next key, if one was pressed. What is no character comes in pieces.
    pub fn key(&self) -> Option<u8> {
        self.keys.try_recv().ok()
    }

    /// Shows these lines, each cut off at the edge, in place of what is there.
    pub fn show(&self, lines: &[String]) {
        let (columns, rows) = tcgetwinsize(io::stdout()).map_or((80, 24), |size| (size.ws_col, size.ws_row));
        let (columns, rows) = if columns == 0 || rows == 0 { (80, 24) } else { (columns, rows) };
        let mut out = String::from("\x1b[H");
        for (at, line) in lines.iter().take(usize::from(rows)).enumerate() {
            if at > 0 {
                out.push_str("\r\n");
            }
            out.push_str(&clipped(line, usize::from(columns)));
            out.push_str("\x1b[0m\x1b[K");
        }
        out.push_str("\x1b[J");
        self.write(&out);
    }

    fn write(&self, text: &str) {
        let mut out = io::stdout().lock();
        // Nobody may be looking any more.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.write("\x1b[0m\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The first characters of a line; what sets a colour takes no room.
fn clipped(line: &str, columns: usize) -> String {
    let (mut out, mut taken, mut escaped) = (String::new(), 0, false);
    for character in line.chars() {
        if character == '\x1b' {
            escaped = true;
        }
        if !escaped {
            if taken == columns {
                continue;
            }
            taken += 1;
        }
        out.push(character);
        escaped &= character != 'm';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        assert_eq!(clipped("\x1b[1mabc\x1b[0md", 2), "\x1b[1mab\x1b[0m");
        assert_eq!(clipped("äöü", 3), "äöü");
    }
}
