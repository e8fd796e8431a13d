//! Types: a set of logical CPUs, written as the kernel's lists are: `0-3,8` (cpuset(7), "List format").

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The most CPUs that a kernel can be built for, and then some.
const MOST: u32 = 1 << 16;

#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSet(BTreeSet<u32>);

impl CpuSet {
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// What is in either.
    #[must_use]
    pub fn or(&self, other: &CpuSet) -> CpuSet {
        self.0.union(&other.0).copied().collect()
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &CpuSet) -> CpuSet {
        self.0.intersection(&other.0).copied().collect()
    }

    #[must_use]
    pub fn without(&self, other: &CpuSet) -> CpuSet {
        self.0.difference(&other.0).copied().collect()
    }

    #[must_use]
    pub fn is_within(&self, other: &CpuSet) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> CpuSet {
        CpuSet(cpus.into_iter().collect())
    }
}

impl FromStr for CpuSet {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuSet, String> {
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u32>().ok().filter(|cpu| *cpu < MOST);
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cpus.extend(first..=last),
                _ => return Err(format!("{part:?} is not a CPU, nor a range of CPUs such as 0-3")),
            }
        }
        Ok(CpuSet(cpus))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (text, expect) in [
            ("", Ok("")),
            ("0", Ok("0")),
            ("0-3\n", Ok("0-3")),
            ("3,1,2,7", Ok("1-3,7")),
            ("0-1, 2-4,9-9", Ok("0-4,9")),
            ("2-1", Err(())),
            ("a", Err(())),
            ("-1", Err(())),
            ("0-4294967295", Err(())),
        ] {
            let found = text.parse::<CpuSet>().map(|set| set.to_string()).map_err(drop);
            assert_eq!(found, expect.map(str::to_owned), "{text}");
        }
        let set = |text: &str| text.parse::<CpuSet>().expect("a list");
        let (a, b) = (set("0-3"), set("2-5"));
        assert_eq!([a.or(&b), a.and(&b), a.without(&b)], [set("0-5"), set("2-3"), set("0-1")]);
        assert!(set("1").is_within(&a) && !b.is_within(&a));
    }
}
