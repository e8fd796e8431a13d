//! Types: where in an object we are, as a list on the stack. It costs nothing until an error wants to show it.

use std::fmt::Write as _;

use super::field::Path;

/// A step from a value to one inside it.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Root,
    /// One of `properties`.
    Field(&'a str),
    /// A key of a map (`additionalProperties`).
    Key(&'a str),
    Index(usize),
}

/// The steps from the root.
#[derive(Clone, Copy, Debug)]
pub struct Trail<'a> {
    parent: Option<&'a Trail<'a>>,
    step: Step<'a>,
}

impl<'a> Trail<'a> {
    pub const ROOT: Trail<'static> = Trail { parent: None, step: Step::Root };

    #[must_use]
    pub fn then(&'a self, step: Step<'a>) -> Trail<'a> {
        Trail { parent: Some(self), step }
    }

    #[must_use]
    pub fn field(&'a self, name: &'a str) -> Trail<'a> {
        self.then(Step::Field(name))
    }

    #[must_use]
    pub fn index(&'a self, index: usize) -> Trail<'a> {
        self.then(Step::Index(index))
    }

    #[must_use]
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// As `kube-openapi` names values in its messages: `spec.labels.app`, `spec.ports[0]`. A key of a map at the root
    /// starts with a dot.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.text(|step, text| match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) | Step::Key(name) => text.extend([".", name]),
            Step::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
            Step::Root => {}
        })
    }

    /// The fields alone, as type errors of Go's JSON package name a place: `spec.ports`.
    #[must_use]
    pub fn fields(&self) -> String {
        self.text(|step, text| {
            if let Step::Field(name) = step {
                text.extend([if text.is_empty() { "" } else { "." }, name]);
            }
        })
    }

    /// As warnings about unknown fields name them: like [`Self::dotted`], but never with a dot at the start.
    #[must_use]
    pub fn plain(&self) -> String {
        let text = self.dotted();
        text.strip_prefix('.').map_or(text.clone(), str::to_owned)
    }

    /// As a field path below `base`: `spec.labels[app]`.
    #[must_use]
    pub fn below(&self, base: Option<&Path>) -> Path {
        let Some(parent) = self.parent else { return base.map_or_else(nowhere, Clone::clone) };
        let at = match parent.parent {
            None => base.cloned().unwrap_or_default(),
            Some(_) => parent.below(base),
        };
        match self.step {
            Step::Field(name) => at.child(name),
            Step::Key(key) => at.key(key),
            Step::Index(index) => at.index(index),
            Step::Root => at,
        }
    }

    /// What `add` makes of one step after the other.
    #[must_use]
    pub fn text(&self, mut add: impl FnMut(Step<'a>, &mut String)) -> String {
        let mut text = String::new();
        self.write(&mut add, &mut text);
        text
    }

    fn write(&self, add: &mut impl FnMut(Step<'a>, &mut String), text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(add, text);
        }
        add(self.step, text);
    }
}

/// How Go prints the path of a whole object: that of no field.
#[must_use]
pub fn nowhere() -> Path {
    Path::new("<nil>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_upstreams() {
        let root = Trail::ROOT;
        let spec = root.field("spec");
        let ports = spec.field("ports");
        let first = ports.index(0);
        let labels = first.field("labels");
        let app = labels.then(Step::Key("app"));
        assert_eq!((app.dotted().as_str(), app.fields().as_str()), ("spec.ports[0].labels.app", "spec.ports.labels"));
        assert_eq!(app.below(None).to_string(), "spec.ports[0].labels[app]");
        assert_eq!(app.below(Some(&Path::new("x"))).to_string(), "x.spec.ports[0].labels[app]");
        assert_eq!((root.dotted().as_str(), root.below(None).to_string().as_str()), ("", "<nil>"));
        let key = root.then(Step::Key("a"));
        assert_eq!((key.dotted().as_str(), key.plain().as_str()), (".a", "a"));
    }
}
