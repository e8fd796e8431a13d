//! Decides: sets of completion indexes, in the form that the status keeps: `1,3-5,7`.

use std::fmt;

/// Ordered intervals with a gap between any two. A Job may have a hundred million indexes, but few gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// What is not below `completions` is left out: a Job that was scaled down forgets it. So is what is malformed.
    #[must_use]
    pub fn parse(text: &str, completions: i32) -> Self {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            let last = last.min(completions.saturating_sub(1));
            (0 <= first && first <= last).then_some((first, last))
        };
        Self::joined(text.split(',').filter_map(interval).collect())
    }

    fn joined(mut intervals: Vec<(i32, i32)>) -> Self {
        intervals.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::new();
        for (first, last) in intervals {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::joined([self.0.as_slice(), other.0.as_slice()].concat())
    }

    #[must_use]
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| (last - first).saturating_add(1)).fold(0, i32::saturating_add)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes are in both.
    #[must_use]
    pub fn shared(&self, other: &Self) -> i32 {
        let (mut i, mut j, mut shared) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            shared += (a.1.min(b.1) - a.0.max(b.0)).saturating_add(1).max(0);
            if a.1 <= b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        shared
    }

    /// The first `count` indexes below `completions` that are not in it. Takes as long as there are gaps, and results.
    #[must_use]
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            let gap = next..first.min(completions);
            missing.extend(gap.take(count - missing.len()));
            next = last.saturating_add(1);
        }
        missing
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<T: IntoIterator<Item = i32>>(indexes: T) -> Self {
        Self::joined(indexes.into_iter().map(|index| (index, index)).collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, completions: i32, expect: &str, total: i32) {
        let indexes = Indexes::parse(text, completions);
        assert_eq!((indexes.to_string().as_str(), indexes.total()), (expect, total), "{text}");
    }

    #[test]
    fn the_text_form() {
        check("", 10, "", 0);
        check("1,3-5,7", 10, "1,3-5,7", 5);
        check("0-1,2,3", 10, "0-3", 4);
        check("4,5", 10, "4,5", 2);
        check("7,1-2", 10, "1,2,7", 3);
    }

    #[test]
    fn scaling_down_forgets_and_nonsense_is_ignored() {
        check("1,3-5,7", 5, "1,3,4", 3);
        check("1,3-5,7", 0, "", 0);
        check("1,x,3-,-4,9-8,5-6", 10, "1,5,6", 3);
        check("2147483647", i32::MAX, "", 0);
    }

    #[test]
    fn sets() {
        let set = Indexes::parse("1,3-5,7", 10);
        assert_eq!((0..9).filter(|i| set.has(*i)).collect::<Vec<_>>(), [1, 3, 4, 5, 7]);
        assert_eq!(set.union(&[2, 9, 4].into_iter().collect()).to_string(), "1-5,7,9");
        assert_eq!(set.missing(4, 10), [0, 2, 6, 8]);
        assert_eq!(set.missing(9, 10), [0, 2, 6, 8, 9]);
        assert_eq!(set.missing(9, 5), [0, 2]);
        assert_eq!(Indexes::default().missing(2, i32::MAX), [0, 1]);
        assert_eq!(set.shared(&Indexes::parse("0-3,5-9", 10)), 4);
        assert_eq!(set.shared(&Indexes::default()), 0);
    }
}
