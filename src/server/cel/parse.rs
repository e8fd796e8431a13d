//! Decides: what an expression means by its grammar (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>).
//! A parser by precedence, bounded in length and depth before anything is built.

use super::ast::{Element, Entry, Expr, Init, Kind, Mode};
use super::issue::Issue;
use super::lex::{Spanned, Token, tokens};
use super::value::Constant;

mod macros;

/// cel-go's own limits, with its messages. The depth also bounds what checks and evaluates the tree, on any stack.
const MAX_CHARACTERS: usize = 100_000;
const MAX_DEPTH: usize = 250;

/// Words of other languages, which CEL keeps for itself.
pub(in crate::server) const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The operators between two operands, how strongly they bind, and the function that they call.
const OPERATORS: [(&str, u8, &str); 14] = [
    ("||", 0, ""),
    ("&&", 1, ""),
    ("<", RELATION, "_<_"),
    ("<=", RELATION, "_<=_"),
    (">=", RELATION, "_>=_"),
    (">", RELATION, "_>_"),
    ("==", RELATION, "_==_"),
    ("!=", RELATION, "_!=_"),
    ("in", RELATION, "@in"),
    ("+", 3, "_+_"),
    ("-", 3, "_-_"),
    ("*", 4, "_*_"),
    ("/", 4, "_/_"),
    ("%", 4, "_%_"),
];
const RELATION: u8 = 2;

const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// The expression of a source, and how many expressions it has. `with_bind`: `cel.bind` is a macro.
pub(super) fn parse(source: &str, with_bind: bool) -> Result<(Expr, usize), Vec<Issue>> {
    let characters: Vec<char> = source.chars().take(MAX_CHARACTERS + 1).collect();
    if characters.len() > MAX_CHARACTERS {
        let size = source.chars().count();
        return Err(vec![Issue::whole(format!(
            "expression code point size exceeds limit: size: {size}, limit {MAX_CHARACTERS}"
        ))]);
    }
    let mut issues = Vec::new();
    let tokens = tokens(&characters, &mut issues);
    let mut parser = Parser { tokens, next: 0, ids: 0, nesting: 0, with_bind, issues };
    let parsed = parser.expression().and_then(|expression| {
        parser.end()?;
        Ok(expression)
    });
    match parsed {
        Ok(expression) if parser.issues.is_empty() => return Ok((expression, parser.ids)),
        Ok(_) => {}
        Err(issue) => parser.issues.push(*issue),
    }
    Err(parser.issues)
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    ids: usize,
    /// Expressions that have begun and not ended.
    nesting: usize,
    with_bind: bool,
    /// What is wrong but does not stop the parser.
    issues: Vec<Issue>,
}

type Parsed<T> = Result<T, Box<Issue>>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    /// Passes a sign if it is next.
    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Parsed<()> {
        if self.eat(sign) {
            return Ok(());
        }
        let spanned = &self.tokens[self.next];
        // What the generated parser says when it could go on had the sign been there.
        let message = if spanned.token == Token::End && sign != "}" {
            format!("Syntax error: missing '{sign}' at '<EOF>'")
        } else {
            format!("Syntax error: mismatched input '{}' expecting '{sign}'", spanned.text)
        };
        Err(Issue::new(spanned.at, message).into())
    }

    fn unexpected(&self, expecting: &str) -> Box<Issue> {
        let spanned = &self.tokens[self.next];
        // One token too many is told from a wrong one by what follows it.
        let follows = self.tokens.get(self.next + 1).map(|t| &t.token);
        let extra = spanned.token != Token::End
            && match expecting {
                "<EOF>" => follows == Some(&Token::End),
                _ => follows.is_some_and(|t| !matches!(t, Token::End | Token::Sign(")" | "]" | "}" | "," | ":" | "?"))),
            };
        let what = if extra { "extraneous" } else { "mismatched" };
        Issue::new(spanned.at, format!("Syntax error: {what} input '{}' expecting {expecting}", spanned.text)).into()
    }

    fn end(&mut self) -> Parsed<()> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected("<EOF>")) }
    }

    fn too_deep() -> Box<Issue> {
        Issue::whole(format!("expression recursion limit exceeded: {MAX_DEPTH}")).into()
    }

    fn node(&mut self, at: usize, kind: Kind) -> Parsed<Expr> {
        let depth = 1 + deepest(&kind);
        if depth > MAX_DEPTH {
            return Err(Self::too_deep());
        }
        let id = self.ids;
        self.ids += 1;
        Ok(Expr { id, at, depth, kind: Box::new(kind) })
    }

    fn call(&mut self, at: usize, function: &str, arguments: Vec<Expr>) -> Parsed<Expr> {
        self.node(at, Kind::Call { function: function.to_owned(), target: None, arguments })
    }

    /// `condition ? a : b`
    fn expression(&mut self) -> Parsed<Expr> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(Self::too_deep());
        }
        let condition = self.binary(0)?;
        let expression = if matches!(self.peek(), Token::Sign("?")) { self.choice(condition)? } else { condition };
        self.nesting -= 1;
        Ok(expression)
    }

    fn choice(&mut self, condition: Expr) -> Parsed<Expr> {
        let at = self.at();
        self.expect("?")?;
        let yes = self.binary(0)?;
        self.expect(":")?;
        let no = self.expression()?;
        self.call(at, "_?_:_", vec![condition, yes, no])
    }

    /// Operands with operators between them that bind at least as strongly. One function for all levels, because
    /// each costs stack for every parenthesis.
    fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        loop {
            let Token::Sign(sign) = *self.peek() else { return Ok(left) };
            let Some((_, level, function)) = OPERATORS.iter().find(|(s, level, _)| *s == sign && *level >= least)
            else {
                return Ok(left);
            };
            left = if *level < RELATION {
                self.logical(left, sign, *level)?
            } else {
                self.relation(left, *level, function)?
            };
        }
    }

    fn relation(&mut self, left: Expr, level: u8, function: &str) -> Parsed<Expr> {
        let at = self.at();
        self.next += 1;
        let right = self.binary(level + 1)?;
        self.call(at, function, vec![left, right])
    }

    /// All terms of `||` or of `&&` that follow each other.
    fn logical(&mut self, left: Expr, sign: &str, level: u8) -> Parsed<Expr> {
        let (mut terms, mut operators) = (vec![left], Vec::new());
        loop {
            let at = self.at();
            if !self.eat(sign) {
                break;
            }
            operators.push(at);
            terms.push(self.binary(level + 1)?);
        }
        let at = operators[operators.len() / 2];
        self.node(at, Kind::Logical { or: sign == "||", terms, operators })
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let at = self.at();
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            let minus = sign == "-";
            let number =
                |p: &Self| matches!(p.tokens.get(p.next + 1).map(|t| &t.token), Some(Token::Int(_) | Token::Float(_)));
            if minus && matches!(self.peek(), Token::Sign("-")) && number(self) {
                self.next += 1;
                let literal = self.number(at, "-")?;
                return self.members(literal);
            }
            let mut times = 0_usize;
            while self.eat(sign) {
                times += 1;
            }
            if times > 0 {
                let operand = self.member()?;
                // Twice is nothing, as in cel-go.
                return if times.is_multiple_of(2) { Ok(operand) } else { self.call(at, function, vec![operand]) };
            }
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Expr> {
        let primary = self.primary()?;
        self.members(primary)
    }

    /// `.field`, `.call()`, `[index]` and `{…}` after a primary.
    fn members(&mut self, mut operand: Expr) -> Parsed<Expr> {
        loop {
            operand = match self.peek() {
                Token::Sign(".") => self.dotted(operand)?,
                Token::Sign("[") => self.indexed(operand)?,
                Token::Sign("{") => match operand.qualified_name() {
                    Some(name) => {
                        let at = self.at();
                        self.next += 1;
                        let fields = self.inits()?;
                        self.node(at, Kind::Struct { name, fields })?
                    }
                    None => return Ok(operand),
                },
                _ => return Ok(operand),
            };
        }
    }

    fn dotted(&mut self, operand: Expr) -> Parsed<Expr> {
        let at = self.at();
        self.expect(".")?;
        let optional = self.eat("?");
        let name = self.name()?;
        let open = self.at();
        if !optional && self.eat("(") {
            let arguments = self.arguments(")")?;
            return self.member_call(open, operand, name, arguments);
        }
        let mode = if optional { Mode::Optional } else { Mode::Plain };
        self.node(at, Kind::Select { operand: Box::new(operand), field: name, mode })
    }

    fn indexed(&mut self, operand: Expr) -> Parsed<Expr> {
        let at = self.at();
        self.expect("[")?;
        let function = if self.eat("?") { "_[?_]" } else { "_[_]" };
        let index = self.expression()?;
        self.expect("]")?;
        self.call(at, function, vec![operand, index])
    }

    fn name(&mut self) -> Parsed<String> {
        match self.peek().clone() {
            Token::Ident(name) => {
                self.next += 1;
                Ok(name)
            }
            _ => {
                let text = &self.tokens[self.next].text;
                Err(Issue::new(self.at(), format!("Syntax error: no viable alternative at input '.{text}'")).into())
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        match self.peek() {
            Token::Sign("(") => {
                self.next += 1;
                let expression = self.expression()?;
                self.expect(")")?;
                Ok(expression)
            }
            Token::Sign("[") => self.list(),
            Token::Sign("{") => self.map(),
            Token::Sign(".") | Token::Ident(_) => self.named(),
            _ => self.literal(),
        }
    }

    fn list(&mut self) -> Parsed<Expr> {
        let at = self.at();
        self.expect("[")?;
        let elements = self.sequence("]", |parser| {
            let optional = parser.eat("?");
            Ok(Element { value: parser.expression()?, optional })
        })?;
        self.node(at, Kind::List(elements))
    }

    fn map(&mut self) -> Parsed<Expr> {
        let at = self.at();
        self.expect("{")?;
        let entries = self.sequence("}", |parser| {
            let optional = parser.eat("?");
            let key = parser.expression()?;
            parser.expect(":")?;
            Ok(Entry { key, value: parser.expression()?, optional })
        })?;
        self.node(at, Kind::Map(entries))
    }

    /// A name, or a call of a function.
    fn named(&mut self) -> Parsed<Expr> {
        let dot = self.eat(".");
        let at = self.at();
        let Token::Ident(name) = self.peek() else { return Err(self.unexpected(OPERAND)) };
        let name = if dot { format!(".{name}") } else { name.clone() };
        self.next += 1;
        let open = self.at();
        if self.eat("(") {
            let arguments = self.arguments(")")?;
            return self.global_call(open, name, arguments);
        }
        if RESERVED.contains(&name.as_str()) {
            self.issues.push(Issue::new(at, format!("reserved identifier: {name}")));
        }
        self.node(at, Kind::Ident(name))
    }

    fn literal(&mut self) -> Parsed<Expr> {
        let at = self.at();
        let constant = match self.peek() {
            Token::Sign("true") => Constant::Bool(true),
            Token::Sign("false") => Constant::Bool(false),
            Token::Sign("null") => Constant::Null,
            Token::String(text) => Constant::String(text.as_str().into()),
            Token::Bytes(bytes) => Constant::Bytes(bytes.as_slice().into()),
            Token::Int(_) | Token::Uint(_) | Token::Float(_) => return self.number(at, ""),
            _ => return Err(self.unexpected(OPERAND)),
        };
        self.next += 1;
        self.node(at, Kind::Literal(constant))
    }

    fn number(&mut self, at: usize, sign: &str) -> Parsed<Expr> {
        let radix = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => (format!("{sign}{digits}"), 16),
            None => (format!("{sign}{text}"), 10),
        };
        let (constant, wrong) = match self.peek().clone() {
            Token::Int(text) => {
                let (digits, radix) = radix(&text);
                (i64::from_str_radix(&digits, radix).ok().map(Constant::Int), "invalid int literal")
            }
            Token::Uint(text) => {
                let (digits, radix) = radix(&text);
                (u64::from_str_radix(&digits, radix).ok().map(Constant::Uint), "invalid uint literal")
            }
            Token::Float(text) => {
                let number = format!("{sign}{text}").parse::<f64>().ok().filter(|n| n.is_finite());
                (number.map(Constant::Double), "invalid double literal")
            }
            _ => return Err(self.unexpected(OPERAND)),
        };
        self.next += 1;
        let constant = constant.unwrap_or_else(|| {
            self.issues.push(Issue::new(at, wrong));
            Constant::Null
        });
        self.node(at, Kind::Literal(constant))
    }

    fn arguments(&mut self, close: &'static str) -> Parsed<Vec<Expr>> {
        if self.eat(close) {
            return Ok(Vec::new());
        }
        let mut arguments = vec![self.expression()?];
        while self.eat(",") {
            arguments.push(self.expression()?);
        }
        self.expect(close)?;
        Ok(arguments)
    }

    /// Items with commas between them, and one after the last if the author likes.
    fn sequence<T>(&mut self, close: &'static str, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn inits(&mut self) -> Parsed<Vec<Init>> {
        self.sequence("}", |parser| {
            let optional = parser.eat("?");
            let name = parser.name()?;
            let at = parser.at();
            parser.expect(":")?;
            Ok(Init { at, name, value: parser.expression()?, optional })
        })
    }
}

fn deepest(kind: &Kind) -> usize {
    let most = |depths: &mut dyn Iterator<Item = usize>| depths.max().unwrap_or(0);
    match kind {
        Kind::Literal(_) | Kind::Ident(_) => 0,
        Kind::Select { operand, .. } => operand.depth,
        Kind::Call { target, arguments, .. } => {
            most(&mut target.iter().map(|t| t.depth).chain(arguments.iter().map(|a| a.depth)))
        }
        Kind::Logical { terms, .. } => most(&mut terms.iter().map(|t| t.depth)),
        Kind::List(elements) => most(&mut elements.iter().map(|e| e.value.depth)),
        Kind::Map(entries) => most(&mut entries.iter().map(|e| e.key.depth.max(e.value.depth))),
        Kind::Struct { fields, .. } => most(&mut fields.iter().map(|f| f.value.depth)),
        Kind::Macro(m) => m.range.depth.max(m.body.depth).max(m.filter.as_ref().map_or(0, |filter| filter.depth)),
    }
}
