//! Decides: formats of addresses and names of hosts, as Go's `net`, `net/url` and `net/mail` read them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An address with a dot. Zeros may stand before a number, as before Go 1.17.
pub fn ipv4(text: &str) -> bool {
    dotted(text) || (text.contains('.') && text.contains(':') && sloppy_ipv6(text))
}

pub fn ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

pub fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = if dotted(address) {
        32
    } else if sloppy_ipv6(address) {
        128
    } else {
        return false;
    };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    digits && length.parse::<u32>().is_ok_and(|l| l <= most)
}

fn dotted(text: &str) -> bool {
    let number = |part: &str| {
        let digits = part.trim_start_matches('0');
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (digits.is_empty() || digits.parse::<u8>().is_ok())
    };
    text.split('.').count() == 4 && text.split('.').all(number)
}

/// Also with an IPv4 address at its end that has zeros before its numbers.
fn sloppy_ipv6(text: &str) -> bool {
    if ipv6(text) {
        return true;
    }
    text.rsplit_once(':').is_some_and(|(head, tail)| dotted(tail) && ipv6(&format!("{head}:{}", Ipv4Addr::UNSPECIFIED)))
}

/// 6, 8 or 20 bytes: `00:00:5e:00:53:01`, `00-00-5e-…`, `0000.5e00.5301`.
pub fn mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| {
        let fine = text.split(separator).all(|g| g.len() == width && g.bytes().all(|b| b.is_ascii_hexdigit()));
        fine && [6, 8, 20].contains(&(text.split(separator).count() * width / 2))
    };
    match (text.as_bytes().get(2), text.as_bytes().get(4)) {
        (Some(b':'), _) => groups(':', 2),
        (Some(b'-'), _) => groups('-', 2),
        (_, Some(b'.')) => groups('.', 4),
        _ => false,
    }
}

/// One label, or several of which the last has only letters. Letters and symbols of any script are fine.
pub fn hostname(text: &str) -> bool {
    let letter = |c: char| c.is_alphabetic() && !c.is_numeric();
    // Symbols: what is neither a letter nor a number nor a space, and not punctuation of ASCII but these.
    let symbol = |c: char| match c {
        '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => true,
        c => !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace() && !c.is_control(),
    };
    let edge = |c: char| c.is_ascii_digit() || letter(c) || symbol(c);
    if text.len() > 255 || text.split('.').any(|label| label.len() > 63) {
        return false;
    }
    let label = |label: &str| {
        label.chars().next().is_some_and(edge)
            && label.chars().next_back().is_some_and(edge)
            && label.chars().all(|c| edge(c) || c == '-')
    };
    match text.rsplit_once('.') {
        None => {
            // One dash, after the first character.
            let mut rest = text.chars();
            let first = rest.next().is_some_and(edge);
            let rest = rest.as_str();
            first && rest.strip_prefix('-').unwrap_or(rest).chars().all(edge)
        }
        Some((labels, last)) => labels.split('.').all(label) && last.chars().count() >= 2 && last.chars().all(letter),
    }
}

/// `url.ParseRequestURI`: an absolute URI, or an absolute path.
pub fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return false;
    }
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = scheme(text) else { return false };
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    if !rest.starts_with('/') {
        // What follows a scheme without a slash is not looked at: `mailto:a@b.c`.
        return scheme;
    }
    let path = match rest.strip_prefix("//").filter(|_| scheme) {
        None => rest,
        Some(authority) => {
            let end = authority.find('/').unwrap_or(authority.len());
            if !self::authority(&authority[..end]) {
                return false;
            }
            &authority[end..]
        }
    };
    escapes(path)
}

/// Whether a text has a scheme, and what follows it. `None` when a colon comes first.
fn scheme(text: &str) -> Option<(bool, &str)> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return None,
            b':' => return Some((true, &text[i + 1..])),
            _ => break,
        }
    }
    Some((false, text))
}

fn authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
    let fine_user = |user: &str| {
        escapes(user) && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b))
    };
    if !user.is_none_or(fine_user) {
        return false;
    }
    let port =
        |text: &str| text.is_empty() || text.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let port_at = match host.strip_prefix('[') {
        Some(_) => match host.rfind(']') {
            Some(end) => end + 1,
            None => return false,
        },
        None => host.rfind(':').unwrap_or(host.len()),
    };
    port(&host[port_at..]) && host_characters(&host[..port_at])
}

/// Percent escapes in hosts are for what is not ASCII, and for the percent sign of a zone.
fn host_characters(text: &str) -> bool {
    let fine = |b: u8| !b.is_ascii() || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b);
    let high = |at: usize| text[at..].starts_with("%25") || text.as_bytes().get(at + 1).is_some_and(|b| *b >= b'8');
    escapes(text) && text.bytes().all(fine) && text.match_indices('%').all(|(at, _)| high(at))
}

fn escapes(text: &str) -> bool {
    let digits = |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
    text.match_indices('%').all(|(at, _)| digits(at))
}

/// `mail.ParseAddress`: `a@b.c`, `Name <a@b.c>`, `"any thing"@b.c`.
pub fn email(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    match text.strip_suffix('>') {
        None => address(text),
        Some(inner) => {
            let Some((name, address_part)) = inner.rsplit_once('<') else { return false };
            phrase(name.trim()) && address(address_part)
        }
    }
}

fn address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let local_fine = quoted(local) || atoms(local);
    let literal = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']'));
    local_fine && literal.map_or_else(|| atoms(domain), |l| dotted(l) || l.strip_prefix("IPv6:").is_some_and(ipv6))
}

fn quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            c if c.is_control() && c != '\t' => return false,
            _ => {}
        }
    }
    !escaped && text.len() >= 2
}

fn atom(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
}

fn atoms(text: &str) -> bool {
    text.split('.').all(atom)
}

/// Words, of which any may be quoted, and dots between them.
fn phrase(text: &str) -> bool {
    text.is_empty()
        || quoted(text)
        || text.split_whitespace().all(|word| quoted(word) || word.split('.').all(|a| a.is_empty() || atom(a)))
}
