//! Decides: Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

struct Family {
    kind: Kind,
    help: &'static str,
    samples: String,
}

/// Samples by family: those of one must stand together, in whatever order they were measured.
#[derive(Default)]
pub struct Figures(BTreeMap<&'static str, Family>);

impl Figures {
    /// Names a family, so that it is shown even when it has no samples.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        self.0.entry(name).or_insert(Family { kind, help, samples: String::new() });
    }

    /// A sample of a family that was named. `at` is in milliseconds since the epoch.
    pub fn put(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64, at: Option<i64>) {
        let Some(family) = self.0.get_mut(name) else { return };
        let out = &mut family.samples;
        out.push_str(name);
        for (n, (label, value)) in labels.iter().enumerate() {
            out.push(if n == 0 { '{' } else { ',' });
            let _ = write!(out, "{label}=\"");
            value.chars().for_each(|c| match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            });
            out.push('"');
        }
        out.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = write!(out, "{value}");
        if let Some(at) = at {
            let _ = write!(out, " {at}");
        }
        out.push('\n');
    }

    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            let kind = if family.kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{}", family.help, family.samples);
        }
        text
    }
}

/// As a double, which is all that the format knows.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "readers parse doubles")]
pub fn number(value: u64) -> f64 {
    value as f64
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(nanoseconds: u64) -> f64 {
    number(nanoseconds) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together() {
        let mut figures = Figures::default();
        figures.family("b_total", Kind::Counter, "Of b.");
        figures.family("a", Kind::Gauge, "Of a.");
        figures.put("b_total", &[("x", "1"), ("y", "a\"b\\\n")], 2.0, None);
        figures.put("a", &[], 1.5, Some(7));
        figures.put("b_total", &[("x", "2")], 3e10, None);
        figures.put("unnamed", &[], 1.0, None);
        let expect = "# HELP a Of a.\n# TYPE a gauge\na 1.5 7\n# HELP b_total Of b.\n# TYPE b_total counter\n\
                      b_total{x=\"1\",y=\"a\\\"b\\\\\\n\"} 2\nb_total{x=\"2\"} 30000000000\n";
        assert_eq!(figures.render(), expect);
    }
}
