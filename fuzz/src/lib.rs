//! What the targets share: [`Draw`], which makes things of the fuzzer's bytes.

pub mod cel;
pub mod draw;
pub mod structural;

pub use draw::Draw;

use skiff::api::schema::{Item, Shape, TYPES, Type, Wrap};

use serde_json::{Map, Value, json};

/// The kinds that are whole objects, of which targets choose.
pub fn kind(draw: &mut Draw) -> &'static Type {
    // Those with something special in them come first, so that few bytes lead to them.
    const FIRST: &[&str] = &[
        "io.k8s.api.core.v1.Pod",
        "io.k8s.api.core.v1.ConfigMap",
        "io.k8s.api.core.v1.Service",
        "io.k8s.api.apps.v1.Deployment",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    ];
    let at = draw.below(256);
    let first = FIRST.get(at).and_then(|name| skiff::api::schema::named(name));
    first.unwrap_or_else(|| {
        let mut kinds = TYPES.iter().filter(|t| t.gvk.is_some() && t.field("metadata").is_some());
        let count = kinds.clone().count();
        kinds.nth(at % count).expect("a remainder is less than what it is divided by")
    })
}

/// `apps/v1`
pub fn api_version(kind: &Type) -> String {
    let (group, version, _) = kind.gvk.expect("a whole object");
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// A whole object of a kind.
pub fn object(draw: &mut Draw, kind: &'static Type) -> Value {
    let mut value = fields(draw, kind, 0);
    value["apiVersion"] = api_version(kind).into();
    value["kind"] = kind.gvk.expect("a whole object").2.into();
    value
}

/// An object with some of the fields of its type, which may be nested ones. `depth` is how deep it is.
pub fn fields(draw: &mut Draw, kind: &'static Type, depth: usize) -> Value {
    let mut map = Map::new();
    for _ in 0..draw.below(6) {
        if kind.fields.is_empty() || draw.is_empty() {
            break;
        }
        let field = &kind.fields[draw.below(kind.fields.len())];
        let value = shaped(draw, field.shape, depth + 1);
        map.insert(field.name.into(), value);
    }
    Value::Object(map)
}

fn shaped(draw: &mut Draw, shape: Shape, depth: usize) -> Value {
    // Now and then not what the schema says.
    if draw.one_in(40) {
        return draw.json(depth);
    }
    let element = shape.element();
    match shape.wrap {
        Wrap::One => item(draw, shape.item, depth),
        Wrap::List => (0..draw.below(4)).map(|_| shaped(draw, element, depth)).collect(),
        Wrap::Map | Wrap::MapOfLists => {
            (0..draw.below(4)).map(|_| (draw.word(), shaped(draw, element, depth))).collect::<Map<_, _>>().into()
        }
    }
}

fn item(draw: &mut Draw, item: Item, depth: usize) -> Value {
    match item {
        Item::Object(_) | Item::Either(..) if depth > 12 => json!({}),
        Item::Object(t) => fields(draw, t, depth),
        Item::Either(t, _) => {
            if draw.one_in(4) {
                draw.json(depth)
            } else {
                fields(draw, t, depth)
            }
        }
        Item::String => draw.word().into(),
        Item::Bool => draw.one_in(2).into(),
        Item::Int32 => (draw.integer() as i32).into(),
        Item::Int64 => draw.integer().into(),
        Item::Double => json!(draw.integer() as f64 / 8.0),
        Item::Bytes => draw.pick(&["", "YQ==", "AAECAw==", "YQ", "?"]).into(),
        Item::Time => {
            draw.pick(&["2026-01-02T03:04:05Z", "2026-01-02T03:04:05+02:00", "", "0001-01-01T00:00:00Z", "x"]).into()
        }
        Item::MicroTime => draw.pick(&["2026-01-02T03:04:05.000006Z", "2026-01-02T03:04:05Z", "x"]).into(),
        Item::Quantity => draw.quantity(),
        Item::IntOrString => {
            if draw.one_in(2) {
                (draw.integer() as i32).into()
            } else {
                draw.pick(&["25%", "http", ""]).into()
            }
        }
        Item::Any | Item::Json => draw.json(depth),
    }
}
