//! Decides: which tokens an expression is made of (the lexical part of the CEL grammar).

use super::issue::Issue;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(String),
    Int(String),
    Uint(String),
    Float(String),
    String(String),
    Bytes(Vec<u8>),
    /// Operators, brackets and the words `in`, `true`, `false`, `null`.
    Sign(&'static str),
    End,
}

/// A token with where it begins and how the source spells it, for messages.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub token: Token,
    pub at: usize,
    pub text: String,
}

/// Longest first.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// The tokens of a source, the last of them the end. What is no token is reported and left out.
pub(super) fn tokens(source: &[char], issues: &mut Vec<Issue>) -> Vec<Spanned> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at;
        if at == source.len() {
            tokens.push(Spanned { token: Token::End, at, text: "<EOF>".into() });
            return tokens;
        }
        let token = lexer.token();
        let text: String = source[at..lexer.at].iter().collect();
        match token {
            Some(token) => tokens.push(Spanned { token, at, text }),
            None => {
                let shown = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                issues.push(Issue::new(at, format!("Syntax error: token recognition error at: '{shown}'")));
            }
        }
    }
}

struct Lexer<'a> {
    source: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.source.get(self.at + ahead).copied()
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// The next token, or `None` for characters that are none; either way they are passed.
    fn token(&mut self) -> Option<Token> {
        let c = self.peek(0)?;
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return Some(self.number());
        }
        if let Some((raw, bytes, prefix)) = self.string_prefix() {
            self.at += prefix;
            return self.string(raw, bytes);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let from = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let word: String = self.source[from..self.at].iter().collect();
            return Some(match WORDS.into_iter().find(|w| *w == word) {
                Some(word) => Token::Sign(word),
                None => Token::Ident(word),
            });
        }
        let found = SIGNS.into_iter().find(|sign| sign.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)));
        if let Some(sign) = found {
            self.at += sign.len();
            return Some(Token::Sign(sign));
        }
        // Half an operator takes the next character along, as the generated lexer of cel-go does.
        self.at += if "|&=".contains(c) && self.peek(1).is_some() { 2 } else { 1 };
        None
    }

    fn number(&mut self) -> Token {
        let from = self.at;
        let digits = |lexer: &mut Self, ok: fn(char) -> bool| {
            while lexer.peek(0).is_some_and(ok) {
                lexer.at += 1;
            }
        };
        let hex = self.peek(0) == Some('0')
            && self.peek(1) == Some('x')
            && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit());
        let mut float = false;
        if hex {
            self.at += 2;
            digits(self, |c| c.is_ascii_hexdigit());
        } else {
            digits(self, |c| c.is_ascii_digit());
            if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1;
                digits(self, |c| c.is_ascii_digit());
            }
            let signed = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + signed).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1 + signed;
                digits(self, |c| c.is_ascii_digit());
            }
        }
        let text: String = self.source[from..self.at].iter().collect();
        if float {
            Token::Float(text)
        } else if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            Token::Uint(text)
        } else {
            Token::Int(text)
        }
    }

    /// `(raw, bytes, length of the prefix)` if a string begins here.
    fn string_prefix(&self) -> Option<(bool, bool, usize)> {
        let quote = |i| matches!(self.peek(i), Some('"' | '\''));
        let is = |i, c: char| self.peek(i).is_some_and(|found| found.eq_ignore_ascii_case(&c));
        if quote(0) {
            Some((false, false, 0))
        } else if is(0, 'r') && quote(1) {
            Some((true, false, 1))
        } else if is(0, 'b') && quote(1) {
            Some((false, true, 1))
        } else if is(0, 'b') && is(1, 'r') && quote(2) {
            Some((true, true, 2))
        } else {
            None
        }
    }

    fn string(&mut self, raw: bool, bytes: bool) -> Option<Token> {
        let quote = self.peek(0)?;
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if triple { 3 } else { 1 };
        let (mut text, mut octets) = (String::new(), Vec::new());
        let mut good = true;
        loop {
            let c = self.peek(0)?;
            if c == quote && (!triple || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote))) {
                self.at += if triple { 3 } else { 1 };
                break;
            }
            if !triple && (c == '\n' || c == '\r') {
                return None;
            }
            self.at += 1;
            if c == '\\' && !raw {
                good &= self.escape(bytes, &mut text, &mut octets).is_some();
            } else if bytes {
                octets.extend(c.encode_utf8(&mut [0; 4]).bytes());
            } else {
                text.push(c);
            }
        }
        good.then_some(if bytes { Token::Bytes(octets) } else { Token::String(text) })
    }

    /// One escape, of which the backslash is passed.
    fn escape(&mut self, bytes: bool, text: &mut String, octets: &mut Vec<u8>) -> Option<()> {
        let c = self.peek(0)?;
        self.at += 1;
        let plain = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => c,
            'x' | 'X' => return self.code(2, 16, bytes, text, octets),
            'u' if !bytes => return self.code(4, 16, false, text, octets),
            'U' if !bytes => return self.code(8, 16, false, text, octets),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes, text, octets);
            }
            _ => return None,
        };
        if bytes {
            octets.push(plain as u8);
        } else {
            text.push(plain);
        }
        Some(())
    }

    /// So many digits of a character's number; of a byte's in bytes.
    fn code(&mut self, digits: usize, base: u32, bytes: bool, text: &mut String, octets: &mut Vec<u8>) -> Option<()> {
        let written: String = self.source.get(self.at..self.at + digits)?.iter().collect();
        let code = u32::from_str_radix(&written, base).ok().filter(|_| !written.starts_with('+'))?;
        self.at += digits;
        if bytes {
            octets.push(u8::try_from(code).ok()?);
        } else {
            text.push(char::from_u32(code)?);
        }
        Some(())
    }
}
