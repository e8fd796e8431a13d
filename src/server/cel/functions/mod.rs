//! Types: the table of all functions and operators: what their arguments are, what they give, what they cost and
//! which Rust function does them. A library is a file with its rows; all overloads of a name share one function, which
//! looks at the values it gets, because what is dynamic is only known then.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::types::{Decl, ListKind, ListType, MapType, Type};
use super::value::{Error, Value};

mod authorizer;
mod conversions;
pub mod cost;
mod format;
mod formats;
pub(super) mod lists;
mod net;
pub mod opaque;
pub(super) mod operators;
mod optional;
mod quantity;
pub(super) mod regex;
pub mod semver;
mod sets;
mod strings;
mod time;
mod url;

pub use cost::Cost;

/// Does a function: may take its arguments out of the slice, the target first.
pub type Call = for<'a> fn(&mut [Value<'a>]) -> Result<Value<'a>, Error>;

/// Name, signatures as cel-go's documentation writes them (`(int) -> string`, `string.(int) -> string`, with `;`
/// between), cost, function.
pub(super) type Row = (&'static str, &'static str, Cost, Call);

/// One signature of a function.
#[derive(Debug)]
pub struct Overload {
    pub name: &'static str,
    /// Called as `target.name(…)`; the target is the first parameter.
    pub member: bool,
    /// With [`Type::Param`]s from 0 for `A`, `B`, `K` and `V`.
    pub parameters: Vec<Type>,
    pub result: Type,
    pub cost: Cost,
    pub call: Call,
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let libraries: [&[Row]; 16] = [
        operators::ROWS,
        conversions::ROWS,
        strings::ROWS,
        format::ROWS,
        time::ROWS,
        lists::ROWS,
        sets::ROWS,
        optional::ROWS,
        regex::ROWS,
        url::ROWS,
        net::ROWS,
        quantity::ROWS,
        semver::ROWS,
        formats::ROWS,
        formats::NAMED,
        authorizer::ROWS,
    ];
    let mut table: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for (name, signatures, cost, call) in libraries.into_iter().flatten() {
        for signature in signatures.split(';') {
            table.entry(name).or_default().push(overload(name, signature.trim(), *cost, *call));
        }
    }
    table
});

/// All overloads of a name; none if there is no such function.
#[must_use]
pub fn overloads(name: &str) -> &'static [Overload] {
    TABLE.get(name).map_or(&[], Vec::as_slice)
}

fn overload(name: &'static str, signature: &'static str, cost: Cost, call: Call) -> Overload {
    let mut reader = Reader { rest: signature };
    let target = if signature.starts_with('(') { None } else { Some(reader.ty()) };
    let member = target.is_some();
    if member {
        reader.expect(".");
    }
    reader.expect("(");
    let mut parameters: Vec<Type> = target.into_iter().collect();
    while !reader.eat(")") {
        parameters.push(reader.ty());
        reader.eat(",");
    }
    reader.expect("->");
    let result = reader.ty();
    Overload { name, member, parameters, result, cost, call }
}

/// Reads the signatures of the table; what it cannot read is our bug and a test finds it.
struct Reader {
    rest: &'static str,
}

impl Reader {
    fn eat(&mut self, sign: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, sign: &str) {
        assert!(self.eat(sign), "the table of functions: {sign:?} expected at {:?}", self.rest);
    }

    fn ty(&mut self) -> Type {
        self.rest = self.rest.trim_start();
        // The only names with dots in them come with `#`, because a dot also ends a target.
        let end = self.rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        match name {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "type" => Type::Type,
            "A" | "K" => Type::Param(0),
            "B" | "V" => Type::Param(1),
            "list" => {
                let element = Decl::of(self.parameters(1).remove(0));
                Type::List(Arc::new(ListType { element, kind: ListKind::Atomic }))
            }
            "optional" => Type::optional(self.parameters(1).remove(0)),
            "map" => {
                let mut parts = self.parameters(2);
                let value = Decl::of(parts.remove(1));
                Type::Map(Arc::new(MapType { key: parts.remove(0), value }))
            }
            name => Type::Opaque(opaque::full_name(name)),
        }
    }

    fn parameters(&mut self, count: usize) -> Vec<Type> {
        self.expect("(");
        let mut types = Vec::new();
        for index in 0..count {
            if index > 0 {
                self.expect(",");
            }
            types.push(self.ty());
        }
        self.expect(")");
        types
    }
}

/// What a function says of arguments that it has no overload for.
pub(super) fn no_overload<'a>(name: &str, arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let types: Vec<&str> = arguments.iter().map(Value::type_name).collect();
    Err(Error::Failed(format!("no such overload: {name}({})", types.join(", ")).into()))
}

/// An error with a text of its own.
pub(super) fn failed<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Failed(text.into().into_boxed_str()))
}
