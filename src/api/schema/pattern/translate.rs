//! Decides: an expression in Go's syntax becomes one in that of the `regex` crate, which reads some texts otherwise: `\d`,
//! `\w`, `\s` and `\b` are ASCII in Go, a class knows no operators and no class inside it, and a brace that is no repetition
//! is a brace.

/// The most repetitions that RE2 accepts, also of repetitions inside of repetitions.
const MAX_REPEAT: u32 = 1000;

/// What is wrong, and the part of the text that is.
pub(super) type Wrong = (&'static str, String);

fn wrong<T>(what: &'static str, part: &str) -> Result<T, Wrong> {
    Err((what, part.to_owned()))
}

/// The same expression in the crate's syntax.
pub(super) fn translate(text: &str) -> Result<String, Wrong> {
    let out = String::with_capacity(text.len() + 16);
    let mut walk = Walk { text, at: 0, out, groups: Vec::new(), most: 1, times: 1, operand: false };
    // Where the repetition before starts, for `a**`.
    let mut before = None;
    while let Some(c) = walk.peek() {
        let start = walk.at;
        if let Some(repetition) = walk.repetition()? {
            if !walk.operand {
                return wrong("missing argument to repetition operator", repetition);
            }
            if let Some(first) = before {
                return wrong("invalid nested repetition operator", &text[first..walk.at]);
            }
            walk.repeat(repetition)?;
            before = Some(start);
            continue;
        }
        before = None;
        walk.times = 1;
        match c {
            '(' => walk.open()?,
            ')' => match walk.groups.pop() {
                None => return wrong("unexpected )", text),
                Some(outside) => {
                    walk.times = walk.most;
                    walk.most = outside.max(walk.most);
                    walk.take(1, true);
                }
            },
            '|' => walk.take(1, false),
            '^' | '$' | '.' => walk.take(1, true),
            '[' => walk.class()?,
            '\\' => walk.escape()?,
            _ => {
                walk.at += c.len_utf8();
                walk.literal(c);
            }
        }
    }
    if walk.groups.is_empty() { Ok(walk.out) } else { wrong("missing closing )", text) }
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    out: String,
    /// For each open group, `most` of what is before it.
    groups: Vec<u32>,
    /// The most that anything in this group is repeated, with what is in it.
    most: u32,
    /// How often what is in the operand is repeated.
    times: u32,
    /// Whether there is something to repeat.
    operand: bool,
}

impl<'a> Walk<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Copies what both syntaxes share.
    fn take(&mut self, length: usize, operand: bool) {
        self.out.push_str(&self.rest()[..length]);
        self.at += length;
        self.operand = operand;
    }

    fn literal(&mut self, c: char) {
        push_literal(&mut self.out, c);
        self.operand = true;
    }

    /// `*`, `+?`, `{1,3}`: passed over and returned. A brace that counts nothing is none.
    fn repetition(&mut self) -> Result<Option<&'a str>, Wrong> {
        let rest = self.rest();
        let mut length = match rest.as_bytes().first() {
            Some(b'*' | b'+' | b'?') => 1,
            Some(b'{') => match counted(rest) {
                None => return Ok(None),
                Some((length, None)) => return wrong("invalid repeat count", &rest[..length]),
                Some((length, Some(_))) => length,
            },
            _ => return Ok(None),
        };
        if rest[length..].starts_with('?') {
            length += 1;
        }
        self.at += length;
        Ok(Some(&rest[..length]))
    }

    fn repeat(&mut self, repetition: &str) -> Result<(), Wrong> {
        let count = counted(repetition).and_then(|(_, count)| count).unwrap_or(1);
        self.times = self.times.saturating_mul(count.max(1));
        if self.times > MAX_REPEAT && count > 1 {
            return wrong("invalid repeat count", repetition);
        }
        self.most = self.most.max(self.times);
        self.out.push_str(repetition);
        Ok(())
    }

    /// A group, or flags. Nobody reads what groups catch, so that none does.
    fn open(&mut self) -> Result<(), Wrong> {
        let rest = self.rest();
        if !rest.starts_with("(?") {
            self.at += 1;
            self.group("(?:");
            return Ok(());
        }
        let name_at = if rest.starts_with("(?P<") { 4 } else { 3 };
        if name_at == 4 || rest.starts_with("(?<") {
            let Some(end) = rest.find('>') else { return wrong("invalid named capture", rest) };
            let name = &rest[name_at..end];
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return wrong("invalid named capture", &rest[..=end]);
            }
            self.at += end + 1;
            self.group("(?:");
            return Ok(());
        }
        let (mut negated, mut any) = (false, false);
        for (i, c) in rest.char_indices().skip(2) {
            match c {
                'i' | 'm' | 's' | 'U' => any = true,
                '-' if !negated => (negated, any) = (true, false),
                ':' | ')' if !negated || any => {
                    self.at += i + 1;
                    if c == ':' {
                        self.group(&rest[..=i]);
                    } else if i > 2 {
                        // `(?)` is nothing to RE2 and an error to the crate.
                        self.out.push_str(&rest[..=i]);
                    }
                    return Ok(());
                }
                _ => return wrong("invalid or unsupported Perl syntax", &rest[..i + c.len_utf8()]),
            }
        }
        wrong("missing closing )", self.text)
    }

    fn group(&mut self, open: &str) {
        self.out.push_str(open);
        self.groups.push(std::mem::replace(&mut self.most, 1));
        self.operand = false;
    }

    /// What a backslash starts, outside of classes.
    fn escape(&mut self) -> Result<(), Wrong> {
        let rest = self.rest();
        let Some(c) = rest.chars().nth(1) else { return wrong("trailing backslash at end of expression", "") };
        let translated = match c {
            'A' | 'z' => &rest[..2],
            'b' => r"(?-u:\b)",
            'B' => r"\B",
            'C' => "(?s:.)",
            'p' | 'P' => {
                let class = self.unicode()?;
                self.out.push_str(class);
                self.operand = true;
                return Ok(());
            }
            'Q' => {
                let quoted = &rest[2..];
                let end = quoted.find(r"\E");
                quoted[..end.unwrap_or(quoted.len())].chars().for_each(|c| self.literal(c));
                self.at += end.map_or(rest.len(), |e| e + 4);
                return Ok(());
            }
            _ => match perl(c) {
                Some((set, negated)) => {
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(set);
                    "]"
                }
                None => {
                    let c = self.escaped()?;
                    self.literal(c);
                    return Ok(());
                }
            },
        };
        self.out.push_str(translated);
        self.at += 2;
        self.operand = true;
        Ok(())
    }

    /// `\pL`, `\p{Greek}`: passed over and returned.
    fn unicode(&mut self) -> Result<&'a str, Wrong> {
        let rest = self.rest();
        let third = rest.chars().nth(2);
        let end = match third {
            Some('{') => rest.find('}').map(|e| e + 1),
            Some(c) => Some(2 + c.len_utf8()),
            None => None,
        };
        let Some(end) = end else { return wrong("invalid character class range", rest) };
        self.at += end;
        Ok(&rest[..end])
    }

    /// The character that a backslash and what follows stand for: `\n`, `\x41`, `\/`.
    fn escaped(&mut self) -> Result<char, Wrong> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.next() else { return wrong("trailing backslash at end of expression", "") };
        let octal = |walk: &Self| walk.peek().and_then(|c| c.to_digit(8));
        let found = match c {
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            'x' => self.hexadecimal(),
            // One digit alone would be a reference to a group.
            '0'..='7' if c == '0' || octal(self).is_some() => {
                let mut code = c.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = octal(self) else { break };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                char::from_u32(code)
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c),
            _ => None,
        };
        found.map_or_else(|| wrong("invalid escape sequence", &self.text[start..self.at]), Ok)
    }

    fn hexadecimal(&mut self) -> Option<char> {
        let rest = self.rest();
        let (digits, length) = match rest.strip_prefix('{') {
            Some(inner) => inner.find('}').map(|end| (&inner[..end], end + 2))?,
            None => (rest.get(..2)?, 2),
        };
        self.at += length;
        u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
    }

    /// `[^a-z\d[:punct:]]`
    fn class(&mut self) -> Result<(), Wrong> {
        let whole = self.rest();
        self.out.push('[');
        self.at += 1;
        if self.peek() == Some('^') {
            self.at += 1;
            self.out.push('^');
        }
        let mut first = true;
        while first || self.peek() != Some(']') {
            first = false;
            let rest = self.rest();
            if let Some(end) = rest.find(":]").filter(|_| rest.starts_with("[:")) {
                let name = &rest[..end + 2];
                if !POSIX.contains(&name[2..end].trim_start_matches('^')) {
                    return wrong("invalid character class range", name);
                }
                self.out.push_str(name);
                self.at += name.len();
                continue;
            }
            if let Some(c) = rest.strip_prefix('\\').and_then(|r| r.chars().next()) {
                if c == 'p' || c == 'P' {
                    let class = self.unicode()?;
                    self.out.push_str(class);
                    continue;
                }
                if let Some((set, negated)) = perl(c) {
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(set);
                    self.out.push(']');
                    self.at += 2;
                    continue;
                }
            }
            self.range(whole)?;
        }
        self.out.push(']');
        self.at += 1;
        self.operand = true;
        Ok(())
    }

    /// `a` or `a-z` in the class `whole`.
    fn range(&mut self, whole: &str) -> Result<(), Wrong> {
        let start = self.at;
        let low = self.member(whole)?;
        push_literal(&mut self.out, low);
        let rest = self.rest().as_bytes();
        if rest.first() == Some(&b'-') && rest.get(1).is_some_and(|b| *b != b']') {
            self.at += 1;
            let high = self.member(whole)?;
            if high < low {
                return wrong("invalid character class range", &self.text[start..self.at]);
            }
            self.out.push('-');
            push_literal(&mut self.out, high);
        }
        Ok(())
    }

    fn member(&mut self, whole: &str) -> Result<char, Wrong> {
        match self.peek() {
            None => wrong("missing closing ]", whole),
            Some('\\') => self.escaped(),
            Some(c) => {
                self.at += c.len_utf8();
                Ok(c)
            }
        }
    }
}

const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// The ASCII characters of a Perl class, and whether they are those that it has not.
fn perl(c: char) -> Option<(&'static str, bool)> {
    let set = match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\x0C\r\x20",
        'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some((set, c.is_ascii_uppercase()))
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!(r"\x{:02X}", u32::from(c)));
    }
}

/// The length of `{n}`, `{n,}` or `{n,m}` at the start of a text, and the most repetitions, when so many are allowed.
fn counted(text: &str) -> Option<(usize, Option<u32>)> {
    let inner = text.strip_prefix('{')?;
    let end = inner.find('}')?;
    let number = |digits: &str| {
        let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        // RE2 reads no number with a zero before it.
        (all && (digits == "0" || !digits.starts_with('0'))).then(|| digits.parse::<u32>().unwrap_or(u32::MAX))
    };
    let (low, high) = match inner[..end].split_once(',') {
        None => (number(&inner[..end])?, None),
        Some((low, "")) => (number(low)?, None),
        Some((low, high)) => (number(low)?, Some(number(high)?)),
    };
    let most = high.unwrap_or(low);
    Some((end + 2, (most <= MAX_REPEAT && low <= most).then_some(most)))
}
