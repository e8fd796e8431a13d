//! Decides: lists of completion indexes, `1,3-5,7`: increasing, each below the number of completions.

/// How many indexes a list has.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn count(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut before) = (0, None);
    for part in text.split(',') {
        let (first, last) = interval(part, completions)?;
        if let Some(before) = before.filter(|before| *before >= first) {
            return Err(disordered(before, first));
        }
        total += last - first + 1;
        before = Some(last);
    }
    Ok(total)
}

/// The first index that is in both lists. Parts that are malformed are someone else's error.
pub fn overlap(completed: &str, failed: &str, completions: i32) -> Option<i32> {
    let intervals = |text: &str| text.split(',').filter_map(|i| interval(i, completions).ok()).collect::<Vec<_>>();
    let (completed, failed) = (intervals(completed), intervals(failed));
    let (mut i, mut j) = (0, 0);
    while let (Some(one), Some(other)) = (completed.get(i), failed.get(j)) {
        if one.0 <= other.1 && other.0 <= one.1 {
            return Some(one.0.max(other.0));
        }
        if one.0 <= other.0 {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let (first, last) = match parts.as_slice() {
        [one] => return index(one, completions).map(|i| (i, i)),
        [first, last] => (index(first, completions)?, index(last, completions)?),
        _ => {
            return Err(format!(
                "the fragment {text:?} violates the requirement that an index interval can have at most two parts \
                 separated by '-'"
            ));
        }
    };
    if first >= last { Err(disordered(first, last)) } else { Ok((first, last)) }
}

fn index(text: &str, completions: i32) -> Result<i32, String> {
    let index: i64 = text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
    i32::try_from(index).ok().filter(|i| *i < completions).ok_or_else(|| format!("too large index: {text:?}"))
}

fn disordered(before: i32, now: i32) -> String {
    format!("non-increasing order, previous: {before}, current: {now}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_increasing_and_below_the_completions() {
        for (text, expect) in [
            ("", Ok(0)),
            ("3", Ok(1)),
            ("1,3-5,7", Ok(5)),
            ("8", Err("too large index: \"8\"")),
            ("1-8", Err("too large index: \"8\"")),
            ("3-1", Err("non-increasing order, previous: 3, current: 1")),
            ("0-3,2", Err("non-increasing order, previous: 3, current: 2")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            ("1,", Err("cannot convert string to integer for index: \"\"")),
            (
                "1-2-3",
                Err("the fragment \"1-2-3\" violates the requirement that an index interval can have at most two \
                     parts separated by '-'"),
            ),
        ] {
            assert_eq!(count(text, 8), expect.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn lists_overlap() {
        for (completed, failed, expect) in [
            ("", "", None),
            ("0-2,5", "3,6", None),
            ("0-2,5", "4-6", Some(5)),
            ("1-x,5", "3,5", Some(5)),
            ("7", "1-7", Some(7)),
        ] {
            assert_eq!(overlap(completed, failed, 8), expect, "{completed} {failed}");
        }
    }
}
