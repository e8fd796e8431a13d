//! Decides: the table of a custom resource: `additionalPrinterColumns` of its definition
//! (`apiextensions-apiserver/pkg/registry/customresource/tableconvertor`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::since;
use super::columns::NAME;
use super::json_path::JsonPath;

/// The columns of a version.
#[derive(Debug)]
pub struct Printer {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    /// `metav1.TableColumnDefinition`
    definition: Value,
    kind: String,
    /// One that cannot be read has empty cells; it was refused when the definition was written.
    path: Option<JsonPath>,
}

impl Printer {
    /// From `additionalPrinterColumns`. Without any, the age is shown.
    #[must_use]
    pub fn of(columns: &Value) -> Self {
        let columns = match columns.as_array().filter(|c| !c.is_empty()) {
            Some(columns) => columns.iter().map(Column::of).collect(),
            None => vec![Column::of(&json!({
                "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                "description": "CreationTimestamp is a timestamp representing the server time when this object was \
                    created. It is not guaranteed to be set in happens-before order across separate operations. \
                    Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by \
                    the system. Read-only. Null for lists. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            }))],
        };
        Self { columns }
    }

    /// The column definitions as JSON.
    #[must_use]
    pub fn columns(&self) -> Value {
        std::iter::once(NAME.to_json()).chain(self.columns.iter().map(|c| c.definition.clone())).collect()
    }

    /// The cells of an object.
    #[must_use]
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        std::iter::once(name).chain(self.columns.iter().map(|c| c.cell(object, now))).collect()
    }
}

impl Column {
    fn of(column: &Value) -> Self {
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        let (path, kind) = (text("jsonPath"), text("type"));
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            given => given.to_owned(),
        };
        let definition = json!({
            "name": text("name"), "type": kind, "format": text("format"), "description": description,
            "priority": column["priority"].as_i64().unwrap_or_default(),
        });
        Self { definition, kind: kind.to_owned(), path: JsonPath::parse(path).ok() }
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().map(|path| path.find(object)).unwrap_or_default();
        let Some(value) = found.first() else { return Value::Null };
        match (self.kind.as_str(), value) {
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", Value::Null) => "<nil>".into(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(n)) => {
                #[allow(clippy::cast_possible_truncation, reason = "as upstream, which shows the whole part")]
                let whole = n.as_i64().or_else(|| n.as_f64().map(|f| f as i64));
                whole.into()
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(at) => since(Some(at), now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let printer = Printer::of(&json!([
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "The cron spec"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Ratio", "type": "number", "jsonPath": ".spec.ratio"},
            {"name": "On", "type": "boolean", "jsonPath": ".spec.on", "format": "x"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "All", "type": "string", "jsonPath": ".spec.list"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.cronSpec"},
        ]));
        let columns = printer.columns();
        assert_eq!(columns[0]["format"], "name");
        assert_eq!(columns[1]["description"], "The cron spec");
        let by_path = "Custom resource definition column (in JSONPath format): .spec.replicas";
        assert_eq!((&columns[2]["description"], &columns[2]["priority"]), (&json!(by_path), &json!(1)));
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"cronSpec": "* * *", "replicas": 3.7, "ratio": 0.5, "on": true, "list": ["a", 1]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let expect = json!(["a", "* * *", 3, 0.5, true, "True", "[\"a\",1]", "5m", null]);
        assert_eq!(Value::from(printer.cells(&object, now)), expect);
        let nothing = json!({"metadata": {"name": "b"}});
        let expect = json!(["b", null, null, null, null, null, null, null, null]);
        assert_eq!(Value::from(printer.cells(&nothing, now)), expect);
    }

    #[test]
    fn without_columns_the_age_is_shown() {
        let printer = Printer::of(&Value::Null);
        assert_eq!(printer.columns()[1]["name"], "Age");
        assert_eq!(printer.columns()[1]["type"], "date");
    }
}
