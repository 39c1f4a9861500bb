//! The tokens of Erlang terms, as far as `acl.conf` has them.

use super::AclError;

/// A position in the text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: u32,
    /// In characters.
    pub(super) column: u32,
}

impl At {
    pub(super) fn error(self, message: impl Into<String>) -> AclError {
        AclError { line: self.line, column: self.column, message: message.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// One of `{ } [ ] , .`
    Mark(char),
    Atom(String),
    /// `"…"` or `<<"…">>`
    Text(String),
    End,
}

impl Token {
    /// For a sentence.
    pub(super) fn name(&self) -> String {
        match self {
            Token::Mark(mark) => format!("`{mark}`"),
            Token::Atom(atom) => format!("`{}`", shortened(atom)),
            Token::Text(text) => format!("the string \"{}\"", shortened(text)),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

/// So that a message stays a line, whatever the file is.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

pub(super) struct Lexer<'a> {
    rest: core::iter::Peekable<core::str::Chars<'a>>,
    at: At,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Lexer { rest: text.chars().peekable(), at: At { line: 1, column: 1 } }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token, At), AclError> {
        self.skip_blank();
        let at = self.at;
        let token = match self.advance() {
            None => Token::End,
            Some(mark @ ('{' | '}' | '[' | ']' | ',' | '.')) => Token::Mark(mark),
            Some('"') => Token::Text(self.quoted('"', at)?),
            Some('\'') => Token::Atom(self.quoted('\'', at)?),
            Some('<') => self.binary(at)?,
            Some(first) if first.is_ascii_lowercase() => Token::Atom(self.word(first)),
            Some(first) if first.is_ascii_digit() => return Err(at.error("a number has no place in a rule")),
            Some(first) if first.is_ascii_uppercase() || first == '_' => {
                let word = self.word(first);
                return Err(at.error(format!("`{}`: words are written in small letters", shortened(&word))));
            }
            Some(other) => return Err(at.error(format!("`{}` has no place in a rule", other.escape_debug()))),
        };
        Ok((token, at))
    }

    fn advance(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.at = At { line: self.at.line.saturating_add(1), column: 1 };
        } else {
            self.at.column = self.at.column.saturating_add(1);
        }
        Some(next)
    }

    fn skip_blank(&mut self) {
        while let Some(next) = self.rest.peek() {
            if *next == '%' {
                while self.rest.peek().is_some_and(|next| *next != '\n') {
                    self.advance();
                }
            } else if next.is_whitespace() || next.is_control() {
                self.advance();
            } else {
                return;
            }
        }
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(next) = self.rest.next_if(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '@')) {
            self.at.column = self.at.column.saturating_add(1);
            word.push(next);
        }
        word
    }

    /// `<<"…">>`, perhaps with `/utf8`.
    fn binary(&mut self, at: At) -> Result<Token, AclError> {
        let wrong = || at.error("a binary is written <<\"text\">>");
        if self.advance() != Some('<') {
            return Err(wrong());
        }
        self.skip_blank();
        let inner = self.at;
        if self.advance() != Some('"') {
            return Err(wrong());
        }
        let text = self.quoted('"', inner)?;
        self.skip_blank();
        if self.rest.peek() == Some(&'/') {
            self.advance();
            let kind = self.word('/');
            if kind != "/utf8" {
                return Err(wrong());
            }
            self.skip_blank();
        }
        if self.advance() != Some('>') || self.advance() != Some('>') {
            return Err(wrong());
        }
        Ok(Token::Text(text))
    }

    /// The text up to the closing quote; the opening one was read.
    fn quoted(&mut self, quote: char, begin: At) -> Result<String, AclError> {
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.advance() {
                None => return Err(begin.error("this quote is never closed")),
                Some('\n') => return Err(begin.error("this quote is not closed on its line")),
                Some('\\') => text.push(self.escaped(at)?),
                Some(next) if next == quote => return Ok(text),
                Some(next) => text.push(next),
            }
        }
    }

    /// What follows a backslash: the escape sequences of Erlang.
    fn escaped(&mut self, at: At) -> Result<char, AclError> {
        let code = match self.advance() {
            Some('b') => 0x08,
            Some('d') => 0x7F,
            Some('e') => 0x1B,
            Some('f') => 0x0C,
            Some('n') => 0x0A,
            Some('r') => 0x0D,
            Some('s') => 0x20,
            Some('t') => 0x09,
            Some('v') => 0x0B,
            Some('x') if self.rest.peek() == Some(&'{') => {
                self.advance();
                let code = self.digits(16, 6);
                if self.advance() != Some('}') {
                    return Err(at.error("`\\x{` is not closed"));
                }
                code.ok_or_else(|| at.error("`\\x{…}` needs hexadecimal digits"))?
            }
            Some('x') => self.digits(16, 2).ok_or_else(|| at.error("`\\x` needs two hexadecimal digits"))?,
            Some(digit @ '0'..='7') => {
                let first = digit as u32 - '0' as u32;
                match (self.digit(8), self.digit(8)) {
                    (Some(second), Some(third)) => first * 64 + second * 8 + third,
                    (Some(second), None) => first * 8 + second,
                    (None, _) => first,
                }
            }
            Some('^') => match self.advance() {
                Some(control @ '@'..='_') => control as u32 & 0x1F,
                _ => return Err(at.error("`\\^` needs a control letter")),
            },
            Some('\n') | None => return Err(at.error("nothing follows the backslash")),
            Some(other) => other as u32,
        };
        match char::from_u32(code) {
            Some('\0') => Err(at.error("no topic or name has a null character")),
            Some(character) => Ok(character),
            None => Err(at.error("this is no character")),
        }
    }

    fn digit(&mut self, radix: u32) -> Option<u32> {
        let next = self.rest.next_if(|next| next.is_digit(radix))?;
        self.at.column = self.at.column.saturating_add(1);
        next.to_digit(radix)
    }

    /// One digit at least and at most `max`.
    fn digits(&mut self, radix: u32, max: usize) -> Option<u32> {
        let mut code = self.digit(radix)?;
        for _ in 1..max {
            let Some(digit) = self.digit(radix) else { break };
            code = code * radix + digit;
        }
        Some(code)
    }
}
