//! Types: a parsed expression. Macros are recognised, not expanded: a loop knows that it is one, so it needs no
//! generic fold to run.

use super::value::Constant;

/// One expression. `id` numbers the expressions of one source from 0, so that tables can stand beside the tree.
#[derive(Debug)]
pub struct Expr {
    pub id: usize,
    /// Where it stands in the source, in characters; for a call, its operator or its parenthesis.
    pub at: usize,
    /// How many expressions deep it is, itself included.
    pub depth: usize,
    /// In a box, so that what passes expressions on does not need much stack for each.
    pub kind: Box<Kind>,
}

#[derive(Debug)]
pub enum Kind {
    Literal(Constant),
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        mode: Mode,
    },
    Call {
        function: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    /// `a && b && c`, with where each operator stands.
    Logical {
        or: bool,
        terms: Vec<Expr>,
        operators: Vec<usize>,
    },
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<Init>,
    },
    Macro(Box<Macro>),
}

/// How a field is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    /// `has(a.b)`
    Test,
    /// `a.?b`
    Optional,
}

#[derive(Debug)]
pub struct Element {
    pub value: Expr,
    /// `[?a]`: only if it has a value.
    pub optional: bool,
}

#[derive(Debug)]
pub struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// A field of a message: `Object{spec: …}`.
#[derive(Debug)]
pub struct Init {
    pub at: usize,
    pub name: String,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Debug)]
pub struct Macro {
    pub kind: Loop,
    pub range: Expr,
    /// One name, or two for index or key and value.
    pub variables: Vec<String>,
    pub filter: Option<Expr>,
    /// The predicate or the result of each step.
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    All,
    Exists,
    ExistsOne,
    /// `map`, `filter` and `transformList`
    Map,
    TransformMap,
    TransformMapEntry,
    OptMap,
    OptFlatMap,
    SortBy,
    /// `cel.bind`: no loop, but a variable all the same.
    Bind,
}

impl Expr {
    /// The dotted name that the expression spells, if it is one: `a.b.c`.
    #[must_use]
    pub fn qualified_name(&self) -> Option<String> {
        match &*self.kind {
            Kind::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
            Kind::Select { operand, field, mode: Mode::Plain } => {
                operand.qualified_name().map(|name| format!("{name}.{field}"))
            }
            _ => None,
        }
    }
}
