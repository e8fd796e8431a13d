//! Decides: ServiceAccount. Nothing but metadata is checked.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::strategy::Kind;

pub struct ServiceAccountKind;

impl Kind for ServiceAccountKind {
    type Object = ServiceAccount;

    fn resource(&self) -> &'static Resource {
        row("v1", "ServiceAccount")
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
