//! Types: who owns which fields: `metadata.managedFields` (`ManagedFieldsEntry` in
//! `k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).

use std::fmt;

use serde_json::{Map, Value};

use super::set::Set;

/// Entries of updates that are kept; older ones share one entry for each version.
const MAX_UPDATERS: usize = 10;
/// The name of that entry.
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub manager: String,
    pub operation: Operation,
    /// The version in which the fields are named, such as `apps/v1`.
    pub api_version: String,
    /// RFC 3339 in UTC, whole seconds; empty when unknown.
    pub time: String,
    /// `status`, `scale`… or empty.
    pub subresource: String,
    pub fields: Set,
}

impl Owner {
    /// Whether both are the same actor: one who applies stays the same in every version.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.manager, self.operation, &self.subresource) == (&other.manager, other.operation, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| match &entry[name] {
            Value::Null => Some(String::new()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        let operation = match text("operation")?.as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if text("fieldsType")? != "FieldsV1" {
            return None;
        }
        Some(Self {
            manager: text("manager")?,
            operation,
            api_version: text("apiVersion")?,
            time: text("time")?,
            subresource: text("subresource")?,
            fields: Set::from_json(&entry["fieldsV1"])?,
        })
    }

    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let texts = [
            ("manager", self.manager.as_str()),
            ("operation", self.operation.name()),
            ("apiVersion", &self.api_version),
            ("time", &self.time),
            ("fieldsType", "FieldsV1"),
            ("subresource", &self.subresource),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            out.insert(name.into(), text.into());
        }
        out.insert("fieldsV1".into(), self.fields.to_json());
        Value::Object(out)
    }
}

/// As an error message names an owner: `"kubectl" using apps/v1`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// All owners of an object's fields. No two are the same actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(pub Vec<Owner>);

impl Owners {
    /// Reads the value of `metadata.managedFields`. `None` when there are none, or none that can be read.
    #[must_use]
    pub fn read(fields: &Value) -> Option<Self> {
        let entries = fields.as_array().filter(|e| !e.is_empty())?;
        let mut out = Self::default();
        for entry in entries {
            out.join(Owner::read(entry)?);
        }
        Some(out)
    }

    /// The value of `metadata.managedFields`, in upstream's order; `None` when nobody owns anything.
    #[must_use]
    pub fn to_json(&self) -> Option<Value> {
        let mut owners: Vec<&Owner> = self.0.iter().filter(|o| !o.fields.is_empty()).collect();
        owners.sort_by_key(|o| (o.operation, &o.time, &o.manager, &o.api_version, &o.subresource));
        (!owners.is_empty()).then(|| owners.into_iter().map(Owner::to_json).collect())
    }

    #[must_use]
    pub fn find(&self, actor: &Owner) -> Option<&Owner> {
        self.0.iter().find(|o| o.is(actor))
    }

    /// Adds an owner, or its fields to the one that it is.
    fn join(&mut self, owner: Owner) {
        match self.0.iter_mut().find(|o| o.is(&owner)) {
            Some(known) => known.fields.add(owner.fields),
            None => self.0.push(owner),
        }
    }

    /// Puts an owner in the place of the one that it is, which is returned.
    pub fn put(&mut self, owner: Owner) -> Option<Owner> {
        match self.0.iter_mut().find(|o| o.is(&owner)) {
            Some(known) => Some(std::mem::replace(known, owner)),
            None => {
                self.0.push(owner);
                None
            }
        }
    }

    /// The entry of an actor, made when it has none: with no fields.
    pub fn entry(&mut self, actor: &Owner) -> &mut Owner {
        let found = self.0.iter().position(|o| o.is(actor));
        let at = found.unwrap_or_else(|| {
            self.0.push(Owner { fields: Set::default(), ..actor.clone() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Joins the oldest updates when there are too many of them.
    pub fn limit(&mut self) {
        let is_update = |o: &Owner| o.operation == Operation::Update;
        let mut too_many = self.0.iter().filter(|o| is_update(o)).count().saturating_sub(MAX_UPDATERS);
        if too_many == 0 {
            return;
        }
        let mut updates: Vec<Owner> = self.0.extract_if(.., |o| is_update(o)).collect();
        updates.sort_by(|a, b| (&a.time, &a.manager, &a.subresource).cmp(&(&b.time, &b.manager, &b.subresource)));
        let mut joined = Self::default();
        let mut first: Vec<Owner> = Vec::new();
        for old in updates {
            if too_many == 0 {
                joined.0.push(old);
                continue;
            }
            let at = first.iter().position(|f| f.api_version == old.api_version);
            let Some(at) = at else {
                // The first of its version: kept as it is, should no other follow.
                first.push(old);
                continue;
            };
            let bucket = &mut first[at];
            bucket.manager = ANCIENT.into();
            bucket.subresource.clear();
            bucket.time = old.time;
            bucket.fields.add(old.fields);
            too_many -= 1;
        }
        for owner in first.into_iter().chain(joined.0) {
            self.join(owner);
        }
    }
}

/// Whether two values of `managedFields` say the same but for times.
#[must_use]
pub fn same_but_for_times(a: &Value, b: &Value) -> bool {
    let entries = |list| Value::as_array(list).into_iter().flatten().filter_map(Value::as_object).collect::<Vec<_>>();
    let untimed = |entry: &Map<String, Value>| entry.len() - usize::from(entry.contains_key("time"));
    let same = |a: &Map<String, Value>, b: &Map<String, Value>| {
        untimed(a) == untimed(b) && a.iter().all(|(name, value)| name == "time" || b.get(name) == Some(value))
    };
    let (a, mut b) = (entries(a), entries(b));
    // Times are part of the order.
    a.len() == b.len()
        && a.iter().all(|entry| b.iter().position(|other| same(entry, other)).map(|at| b.swap_remove(at)).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owner(manager: &str, operation: Operation, time: &str) -> Owner {
        let mut fields = Set::default();
        fields.insert_path(&["data", manager]);
        Owner {
            manager: manager.into(),
            operation,
            api_version: "v1".into(),
            time: time.into(),
            subresource: String::new(),
            fields,
        }
    }

    #[test]
    fn entries_are_written_in_upstreams_order_and_read_back() {
        let owners = Owners(vec![
            owner("b", Operation::Update, "2026-01-01T00:00:02Z"),
            owner("c", Operation::Update, "2026-01-01T00:00:01Z"),
            owner("a", Operation::Apply, "2026-01-01T00:00:03Z"),
        ]);
        let json = owners.to_json().unwrap();
        let names: Vec<&str> = json.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "c", "b"]);
        assert_eq!(
            json[0],
            json!({"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:03Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}})
        );
        assert_eq!(Owners::read(&json).unwrap().to_json().unwrap(), json);
        for bad in
            [json!([]), json!([{}]), json!([{"operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}])]
        {
            assert_eq!(Owners::read(&bad), None);
        }
    }

    #[test]
    fn old_updates_are_joined() {
        let mut owners = Owners(
            (0..12)
                .map(|i| owner(&format!("u{i:02}"), Operation::Update, &format!("2026-01-01T00:00:{i:02}Z")))
                .collect(),
        );
        owners.0.push(owner("applier", Operation::Apply, "2025-01-01T00:00:00Z"));
        owners.limit();
        assert_eq!(owners.0.len(), 11);
        let ancient = owners.0.iter().find(|o| o.manager == ANCIENT).unwrap();
        assert_eq!(ancient.fields.paths(), [".data.u00", ".data.u01", ".data.u02"]);
        assert_eq!(ancient.time, "2026-01-01T00:00:02Z");
        let before = owners.clone();
        owners.limit();
        assert_eq!(owners, before);
    }

    #[test]
    fn times_do_not_count() {
        let a = json!([{"manager": "a", "time": "1"}, {"manager": "b", "time": "2"}]);
        assert!(same_but_for_times(&a, &json!([{"manager": "b", "time": "3"}, {"manager": "a", "time": "4"}])));
        assert!(!same_but_for_times(&a, &json!([{"manager": "b", "time": "2"}])));
        assert!(!same_but_for_times(&a, &json!([{"manager": "a"}, {"manager": "c"}])));
    }
}
