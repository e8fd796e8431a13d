//! Decides: what the schema table declares of the built-in kinds to an expression, as `schema` does of custom resources.
//!
//! Upstream declares from the OpenAPI document: what that says nothing of has no field here either; quantities, of which
//! it says two things at once, are dynamic.

use std::sync::Arc;

use super::schema::escape;
use super::types::{Decl, Field, ObjectType, Type};
use crate::api::schema::{self, Item, Shape, Wrap};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Objects of a type, with `name` for messages.
#[must_use]
pub fn declare(of: &'static schema::Type, name: &str) -> Decl {
    object(of, name, &mut Vec::new())
}

/// `metadata` of any object.
#[must_use]
pub fn metadata(name: &str) -> Decl {
    schema::named(META).map_or_else(|| Decl::of(Type::Dyn), |meta| declare(meta, name))
}

/// `around` are the types that this one is in: one that is in itself ends there.
fn object(of: &'static schema::Type, name: &str, around: &mut Vec<&'static str>) -> Decl {
    let mut fields = Vec::new();
    if !around.contains(&of.name) {
        around.push(of.name);
        fields.extend(of.fields.iter().filter_map(|field| {
            let escaped = escape(field.name)?;
            let decl = shaped(field.shape, &format!("{name}.{escaped}"), around)?;
            Some(Field { name: escaped.into(), json: field.name.into(), decl })
        }));
        around.pop();
    }
    Decl::of(Type::Object(Arc::new(ObjectType::new(name, fields))))
}

fn shaped(shape: Shape, name: &str, around: &mut Vec<&'static str>) -> Option<Decl> {
    let mut element = |part: &str| shaped(shape.element(), &format!("{name}.{part}"), around);
    Some(match shape.wrap {
        Wrap::One => return item(shape.item, name, around),
        Wrap::List => Decl::of(Type::list(element("@idx")?.ty)),
        Wrap::Map | Wrap::MapOfLists => Decl::of(Type::map(Type::String, element("@elem")?.ty)),
    })
}

fn item(item: Item, name: &str, around: &mut Vec<&'static str>) -> Option<Decl> {
    Some(match item {
        Item::Object(of) => object(of, name, around),
        Item::Any => Decl::of(Type::Object(Arc::new(ObjectType::new(name, Vec::new())))),
        Item::Json | Item::Either(..) => return None,
        Item::String => Decl::of(Type::String),
        Item::Bool => Decl::of(Type::Bool),
        Item::Int32 | Item::Int64 => Decl::of(Type::Int),
        Item::Double => Decl::of(Type::Double),
        Item::Bytes => Decl::of(Type::Bytes),
        Item::Time | Item::MicroTime => Decl::of(Type::Timestamp),
        Item::Quantity | Item::IntOrString => Decl::of(Type::Dyn),
    })
}
