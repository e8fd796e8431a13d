//! Decides: a document field by field: what is of a wrong type, or unknown, is noted with its path.

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::field::{FieldError, Path};

/// What is wrong, in the order it was seen.
#[derive(Default)]
pub struct Found(RefCell<Vec<String>>);

impl Found {
    pub fn add(&self, error: FieldError) {
        self.say(error.to_string());
    }

    pub fn say(&self, problem: String) {
        self.0.borrow_mut().push(problem);
    }

    pub fn all(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// A map whose fields are taken one by one.
pub struct Fields<'a> {
    path: Path,
    map: Option<&'a Map<String, Value>>,
    seen: Vec<&'static str>,
    found: &'a Found,
}

impl<'a> Fields<'a> {
    pub fn new(path: &Path, value: &'a Value, found: &'a Found) -> Self {
        if !value.is_object() && !value.is_null() {
            found.add(FieldError::type_invalid(path, value, "must be a map"));
        }
        Self { path: path.clone(), map: value.as_object(), seen: Vec::new(), found }
    }

    pub fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.seen.push(name);
        self.map?.get(name).filter(|value| !value.is_null())
    }

    fn of_type<T>(&mut self, name: &'static str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let read = read(value);
        if read.is_none() {
            self.found.add(FieldError::type_invalid(&self.path.child(name), value, &format!("must be {what}")));
        }
        read
    }

    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.of_type(name, "a string", |v| v.as_str().map(str::to_owned))
    }

    pub fn number(&mut self, name: &'static str) -> Option<i64> {
        // As large as the fields that upstream has for them.
        self.of_type(name, "an integer", |v| v.as_i64().filter(|n| i32::try_from(*n).is_ok()))
    }

    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.of_type(name, "true or false", Value::as_bool)
    }

    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let all = self.of_type(name, "a list of strings", |v| v.as_array()?.iter().map(text).collect());
        all.unwrap_or_default()
    }

    /// Each item with its path.
    pub fn list(&mut self, name: &'static str) -> Vec<(Path, &'a Value)> {
        let items = self.of_type(name, "a list", Value::as_array);
        let path = self.path.child(name);
        items.into_iter().flatten().enumerate().map(|(i, value)| (path.index(i), value)).collect()
    }

    /// A type of the API.
    pub fn typed<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.get(name)?;
        match serde_json::from_value(value.clone()) {
            Ok(typed) => Some(typed),
            Err(error) => {
                self.found.add(FieldError::type_invalid(&self.path.child(name), value, &error.to_string()));
                None
            }
        }
    }

    /// Names what nobody has asked for.
    pub fn end(self) {
        for name in self.map.into_iter().flat_map(Map::keys).filter(|name| !self.seen.iter().any(|s| s == name)) {
            self.found.say(format!("unknown field {:?}", self.path.child(name).to_string()));
        }
    }
}
