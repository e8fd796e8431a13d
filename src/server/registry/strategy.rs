//! Types: what makes one kind differ from another. The verb algorithms call a [`Strategy`]; a built-in kind
//! implements [`Kind`] over its typed struct and gets its `Strategy` from [`Typed`].

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metadata;
use super::request::{Context, DeleteOptions};
use crate::api::apply::set::Set;
use crate::api::field::FieldError;
use crate::api::resource::Resource;
use crate::api::status::Status;

/// Which part of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The main resource: everything but status.
    Spec,
    /// The status subresource: nothing but status.
    Status,
    /// `namespaces/finalize`: only `spec.finalizers`.
    Finalize,
    /// `pods/binding`: only what a binding sets. Written by the registry, still validated.
    Binding,
    /// `certificatesigningrequests/approval`: only `status.conditions`.
    Approval,
    /// `pods/ephemeralcontainers`: only those.
    EphemeralContainers,
    /// `pods/resize`: only resources, of the pod and of its containers.
    Resize,
}

impl Part {
    /// It changes what a client wants of the object.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        matches!(self, Self::Spec | Self::EphemeralContainers | Self::Resize)
    }
}

/// What a delete request does to an object that has no finalizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Now,
    /// Set `deletionTimestamp` and `deletionGracePeriodSeconds`; whoever runs the object deletes it again with 0.
    Graceful {
        seconds: i64,
    },
    /// The strategy changed the object (a Namespace turns `Terminating`); it goes away when its finalizers are empty.
    Finalize,
}

/// Something reserved for an object while it is written (an IP address, a port); given back unless kept.
pub trait Reservation: Send {
    /// The write was committed.
    fn keep(self: Box<Self>);
}

/// An object that is ready to be written, should nothing be wrong with it.
#[derive(Default)]
pub struct Prepared {
    pub errors: Vec<FieldError>,
    /// About deprecated and misused fields, for the response.
    pub warnings: Vec<String>,
    pub reserved: Option<Box<dyn Reservation>>,
}

/// Kind-specific behaviour over dynamic objects. Every method is synchronous and takes whole documents.
pub trait Strategy: Send + Sync + 'static {
    fn resource(&self) -> &'static Resource;

    /// Decodes into the kind's shape (dropping what it does not know), fills defaults, writes it back.
    ///
    /// # Errors
    /// 400 when a field has the wrong type.
    fn defaults(&self, object: &mut Value) -> Result<(), Status>;

    /// Makes a new object ready to be written: clears status, sets generation and whatever only the server may set, reserves
    /// cluster-wide values, and checks the result.
    ///
    /// # Errors
    /// When something cannot be reserved.
    fn prepare_create(&self, cx: &Context, object: &mut Value) -> Result<Prepared, Status>;

    /// The same for what takes the place of `old`: restores what `part` may not change, bumps the generation.
    ///
    /// # Errors
    /// As [`Strategy::prepare_create`].
    fn prepare_update(&self, cx: &Context, part: Part, new: &mut Value, old: &Value) -> Result<Prepared, Status>;

    /// The object is gone from the store: gives back what it held.
    fn released(&self, gone: &Value) {
        let _ = gone;
    }

    /// How a delete removes this object. May change the object when the answer is [`Removal::Finalize`].
    fn removal(&self, object: &mut Value, options: &DeleteOptions) -> Removal {
        let _ = (object, options);
        Removal::Now
    }

    /// A delete that names no policy leaves the dependents behind, as it did when the kind was new.
    fn orphans(&self) -> bool {
        false
    }

    /// PUT to a name that does not exist creates it.
    fn create_on_update(&self) -> bool {
        false
    }

    /// An update without a resourceVersion overwrites whatever is there.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// What a write of `part` resets, so that its writer does not come to own it.
    fn resets(&self, part: Part) -> Set {
        default_resets(self.resource(), part)
    }

    /// Where a part is less than the spec or the status: the paths outside of which a write of it changes nothing, with `*`
    /// for any item of a list.
    fn only(&self, part: Part) -> &'static [&'static [&'static str]] {
        let _ = part;
        &[]
    }

    /// From the version of the request to the storage version, and back. Most kinds have one version.
    fn storage_form(&self, object: Value) -> Value {
        object
    }

    fn wire_form(&self, object: Value) -> Value {
        object
    }
}

fn default_resets(resource: &Resource, part: Part) -> Set {
    let mut out = Set::default();
    match part {
        Part::Status => out.insert_path(&["spec"]),
        Part::Approval => {
            out.insert_path(&["spec"]);
            out.insert_path(&["status", "certificate"]);
        }
        _ if resource.subresource("status").is_some() => out.insert_path(&["status"]),
        _ => {}
    }
    out
}

/// How names of a kind are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    DnsSubdomain,
    DnsLabel,
    /// RFC 1035 label: Services.
    Dns1035Label,
    /// RBAC names: anything that is a path segment.
    PathSegment,
}

/// Kind-specific behaviour over the typed struct. Methods have upstream's defaults for a kind without status.
pub trait Kind: Send + Sync + 'static {
    type Object: Serialize + DeserializeOwned + Metadata<Ty = ObjectMeta>;

    fn resource(&self) -> &'static Resource;

    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    fn defaults(&self, object: &mut Self::Object) {
        let _ = object;
    }

    fn prepare_create(&self, cx: &Context, object: &mut Self::Object) {
        let _ = (cx, object);
    }

    /// Beyond what holds for every kind: see [`keep_other_part`] and [`Kind::generation_of`].
    fn prepare_update(&self, cx: &Context, part: Part, new: &mut Self::Object, old: &Self::Object) {
        let _ = (cx, part, new, old);
    }

    /// What a client wants of the object, as JSON pointers: a write of the main resource that changes any of it is
    /// the next generation. Kinds without have no generations.
    fn generation_of(&self) -> &'static [&'static str] {
        &[]
    }

    /// The object on its own; metadata is checked by the caller.
    fn validate(&self, object: &Self::Object) -> Vec<FieldError> {
        let _ = object;
        Vec::new()
    }

    /// What is wrong with a new object beyond [`Kind::validate`].
    fn validate_create(&self, object: &Self::Object) -> Vec<FieldError> {
        self.validate(object)
    }

    /// Immutable fields and transitions, and [`Kind::validate`] where upstream repeats it.
    fn validate_update(&self, part: Part, new: &Self::Object, old: &Self::Object) -> Vec<FieldError> {
        let _ = (part, old);
        self.validate(new)
    }

    /// Whether [`Kind::released`] does anything: spares the others a decoding.
    fn allocates(&self) -> bool {
        false
    }

    fn allocate(
        &self,
        new: &mut Self::Object,
        old: Option<&Self::Object>,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        let _ = (new, old);
        Ok(None)
    }

    fn released(&self, gone: &Self::Object) {
        let _ = gone;
    }

    fn removal(&self, object: &mut Self::Object, options: &DeleteOptions) -> Removal {
        let _ = (object, options);
        Removal::Now
    }

    /// See [`Strategy::orphans`].
    fn orphans(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    /// Paths beyond `status` that a write of the main resource resets.
    fn spec_resets(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    /// Paths beyond `spec` that a write of the status resets.
    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    /// See [`Strategy::only`].
    fn only(&self, part: Part) -> &'static [&'static [&'static str]] {
        let _ = part;
        &[]
    }

    fn warnings(&self, object: &Self::Object) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// What an update of the main resource warns about.
    fn update_warnings(&self, new: &Self::Object, old: &Self::Object) -> Vec<String> {
        let _ = old;
        self.warnings(new)
    }

    /// See [`Strategy::storage_form`].
    fn storage_form(&self, object: Value) -> Value {
        object
    }

    fn wire_form(&self, object: Value) -> Value {
        object
    }
}

/// Turns a [`Kind`] into a [`Strategy`].
pub struct Typed<K>(pub K);

impl<K: Kind> Typed<K> {
    fn read(&self, object: &Value) -> Result<K::Object, Status> {
        K::Object::deserialize(object).map_err(|e| undecodable(self.0.resource(), &e))
    }
}

fn undecodable(resource: &Resource, error: &serde_json::Error) -> Status {
    let (kind, version) = (resource.kind, resource.version);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

fn write(object: &mut Value, typed: &impl Serialize) -> Result<(), Status> {
    *object = serde_json::to_value(typed).map_err(Status::internal)?;
    Ok(())
}

/// Whoever writes the status does not change the spec, and the other way round.
fn keep_other_part(resource: &Resource, part: Part, new: &mut Value, old: &Value) {
    let kept = match part {
        Part::Status | Part::Approval => "spec",
        Part::EphemeralContainers | Part::Resize => "status",
        Part::Spec | Part::Finalize if resource.subresource("status").is_some() => "status",
        _ => return,
    };
    let Some(new) = new.as_object_mut() else { return };
    match old.get(kept) {
        Some(value) => new.insert(kept.into(), value.clone()),
        None => new.remove(kept),
    };
}

impl<K: Kind> Strategy for Typed<K> {
    fn resource(&self) -> &'static Resource {
        self.0.resource()
    }

    fn defaults(&self, object: &mut Value) -> Result<(), Status> {
        let mut typed = self.read(object)?;
        self.0.defaults(&mut typed);
        write(object, &typed)
    }

    fn prepare_create(&self, cx: &Context, object: &mut Value) -> Result<Prepared, Status> {
        if !self.0.generation_of().is_empty() {
            object["metadata"]["generation"] = 1.into();
        }
        let (kind, mut typed) = (&self.0, self.read(object)?);
        kind.prepare_create(cx, &mut typed);
        let reserved = kind.allocate(&mut typed, None)?;
        write(object, &typed)?;
        let mut errors = metadata::validate(kind.resource(), kind.name_rule(), typed.metadata());
        errors.extend(kind.validate_create(&typed));
        Ok(Prepared { errors, warnings: kind.warnings(&typed), reserved })
    }

    fn prepare_update(&self, cx: &Context, part: Part, new: &mut Value, old: &Value) -> Result<Prepared, Status> {
        let kind = &self.0;
        keep_other_part(kind.resource(), part, new, old);
        let (mut typed, before) = (self.read(new)?, self.read(old)?);
        kind.prepare_update(cx, part, &mut typed, &before);
        let reserved = kind.allocate(&mut typed, Some(&before))?;
        write(new, &typed)?;
        if part.is_wanted() && kind.generation_of().iter().any(|at| new.pointer(at) != old.pointer(at)) {
            new["metadata"]["generation"] = (old["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
        }
        let mut errors = metadata::validate_update(kind.resource(), typed.metadata(), before.metadata());
        errors.extend(kind.validate_update(part, &typed, &before));
        let warnings = if part == Part::Spec { kind.update_warnings(&typed, &before) } else { Vec::new() };
        Ok(Prepared { errors, warnings, reserved })
    }

    fn released(&self, gone: &Value) {
        if self.0.allocates()
            && let Ok(typed) = self.read(gone)
        {
            self.0.released(&typed);
        }
    }

    fn removal(&self, object: &mut Value, options: &DeleteOptions) -> Removal {
        let Ok(mut typed) = self.read(object) else { return Removal::Now };
        let removal = self.0.removal(&mut typed, options);
        if removal == Removal::Finalize && write(object, &typed).is_err() {
            return Removal::Now;
        }
        removal
    }

    fn orphans(&self) -> bool {
        self.0.orphans()
    }

    fn create_on_update(&self) -> bool {
        self.0.create_on_update()
    }

    fn unconditional_update(&self) -> bool {
        self.0.unconditional_update()
    }

    fn resets(&self, part: Part) -> Set {
        let mut out = default_resets(self.0.resource(), part);
        let more = match part {
            Part::Spec => self.0.spec_resets(),
            Part::Status => self.0.status_resets(),
            _ => &[],
        };
        more.iter().for_each(|path| out.insert_path(path));
        out
    }

    fn only(&self, part: Part) -> &'static [&'static [&'static str]] {
        self.0.only(part)
    }

    fn storage_form(&self, object: Value) -> Value {
        self.0.storage_form(object)
    }

    fn wire_form(&self, object: Value) -> Value {
        self.0.wire_form(object)
    }
}
