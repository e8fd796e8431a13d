//! Decides the priority of a pod from the class that it names, and keeps the system's classes to the system.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::api::object::ObjectRef;
use crate::api::priority_class::SYSTEM_CLASSES;
use crate::api::status::Status;
use crate::server::objects::SharedObjects;

const STORAGE: &str = "scheduling.k8s.io/priorityclasses";
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub struct Priority {
    objects: SharedObjects,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    value: i64,
    #[serde(default)]
    global_default: bool,
    #[serde(default)]
    preemption_policy: Option<String>,
}

impl Priority {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn pod(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let named = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if named.is_empty() {
            let default = self.default_class();
            if let Some((name, _)) = &default {
                pod["spec"]["priorityClassName"] = json!(name);
            }
            default.map(|(_, class)| class)
        } else {
            let stored = self.objects.get(STORAGE, "", &named).and_then(|o| o.typed::<Class>().ok());
            let class = stored.or_else(|| system_class(&named));
            if class.is_none() {
                return Err(attributes.forbidden(Some(pod), &format!("no PriorityClass with name {named} was found")));
            }
            class
        };
        let (value, policy) = class.map_or((0, None), |c| (c.value, c.preemption_policy));
        let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
        let spec = &pod["spec"];
        if let Some(given) = spec["priority"].as_i64().filter(|given| *given != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            );
            return Err(attributes.forbidden(Some(pod), &why));
        }
        if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(attributes.forbidden(Some(pod), &why));
        }
        pod["spec"]["priority"] = json!(value);
        pod["spec"]["preemptionPolicy"] = json!(policy);
        Ok(())
    }

    /// The class marked as the global default; the lowest, where a race made two.
    fn default_class(&self) -> Option<(String, Class)> {
        let parse = |o: ObjectRef| Some((o.key.name.to_string(), o.typed::<Class>().ok()?));
        let classes = self.objects.list(STORAGE, None).into_iter().filter_map(parse);
        classes.filter(|(_, class)| class.global_default).min_by_key(|(_, class)| class.value)
    }
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn changes(&self) -> &'static [&'static str] {
        &["pods"]
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if attributes.operation == Operation::Create && attributes.is("pods") && object["spec"].is_object() {
            return self.pod(attributes, object);
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(class) = object.filter(|_| attributes.is(STORAGE)) else { return Ok(()) };
        let name = class["metadata"]["name"].as_str().unwrap_or_default();
        // That the system's names have the system's values is validation's.
        if class["value"].as_i64().is_some_and(|v| v > HIGHEST_USER_PRIORITY) && system_class(name).is_none() {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            return Err(attributes.forbidden(object, &why));
        }
        if class["globalDefault"].as_bool() == Some(true)
            && let Some((other, _)) = self.default_class()
            && (attributes.operation == Operation::Create || other != name)
        {
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            return Err(attributes.forbidden(object, &why));
        }
        Ok(())
    }
}

/// Good before the objects are written at start, too.
fn system_class(name: &str) -> Option<Class> {
    let (_, value, _) = SYSTEM_CLASSES.iter().find(|(n, _, _)| *n == name)?;
    Some(Class { value: *value, global_default: false, preemption_policy: None })
}
