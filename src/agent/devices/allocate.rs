//! Effects: gives a container devices of one resource: chooses, asks the plugin, writes it down.

use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::protocol::{
    self, AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerPreferredAllocationRequest,
    PreferredAllocationRequest, PreferredAllocationResponse,
};
use super::record::Grant;
use super::select::{self, Answer, Ids, Question};
use super::{Devices, Inner};
use crate::agent::plugins::grpc;
use crate::agent::pod::uid;
use crate::agent::topology::hint::Mask;
use crate::clock;

const PREFERRED_DEADLINE: Duration = Duration::from_secs(10);
/// Upstream waits for ever.
const ALLOCATE_DEADLINE: Duration = Duration::from_secs(120);
/// How long a pod waits for the devices of one that is on its way out, although the API has it no more.
const LEAVING_LIMIT: Duration = Duration::from_secs(60);

impl Devices {
    pub(super) async fn allocate_one(
        &self,
        pod: &Pod,
        container: &Container,
        (resource, required): (&str, usize),
        reusable: &Ids,
        affinity: Option<Mask>,
    ) -> Result<Ids, String> {
        let first = self.ask_until_freed(pod, container, resource, required, reusable).await?;
        let Answer::Choose { reused, available, more } = first else {
            let inner = self.lock();
            let granted = inner.record.granted(uid(pod), &container.name, resource);
            return Ok(granted.map(|grant| grant.devices.clone()).unwrap_or_default());
        };
        // All that are near are taken, whatever the plugin prefers; it has its say in the rest.
        let groups = self.lock().groups(resource, &available, affinity);
        let preferred = match groups.to_prefer(more) {
            Some(some) => self.preferred(resource, &reused, &some, required).await?,
            None => Ids::new(),
        };
        let (chosen, channel) = {
            let mut inner = self.lock();
            // Another pod may have been quicker meanwhile.
            let Answer::Choose { reused, available, more } = inner.ask(pod, container, resource, required, reusable)?
            else {
                return Ok(Ids::new());
            };
            let chosen = inner.groups(resource, &available, affinity).choose(&reused, more, &preferred);
            let plugin = inner.offers.get(resource).and_then(|offer| offer.plugin.as_ref());
            let channel = plugin.map(|plugin| plugin.channel.clone());
            let channel = channel.ok_or_else(|| format!("unknown Device Plugin {resource}"))?;
            inner.promised.entry(resource.to_owned()).or_default().extend(chosen.iter().cloned());
            (chosen, channel)
        };
        // Given back whatever becomes of this call, also when it is dropped in the middle.
        let _promise = Promise { devices: self, resource, chosen: &chosen };
        let ids: Vec<String> = chosen.iter().cloned().collect();
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids: ids }] };
        let response: AllocateResponse = grpc::call(&channel, protocol::ALLOCATE, request, ALLOCATE_DEADLINE)
            .await
            .map_err(|error| error.to_string())?;
        let response = response.container_responses.into_iter().next();
        let response = response.ok_or("no containers return in allocation response")?;
        let mut inner = self.lock();
        let grants = inner.record.pods.entry(uid(pod).to_owned()).or_default();
        let grants = grants.entry(container.name.clone()).or_default();
        grants.insert(resource.to_owned(), Grant { devices: chosen.clone(), response });
        self.file.write(&inner.record)?;
        Ok(chosen.clone())
    }

    /// Whoever scheduled this pod did not wait for those that were deleted by force: that is done here.
    async fn ask_until_freed(
        &self,
        pod: &Pod,
        container: &Container,
        resource: &str,
        required: usize,
        reusable: &Ids,
    ) -> Result<Answer, String> {
        let deadline = clock::instant() + LEAVING_LIMIT;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            let (answer, leaving) = {
                let inner = self.lock();
                (inner.ask(pod, container, resource, required, reusable), inner.is_leaving(resource))
            };
            match answer {
                Err(error) if leaving => {
                    if tokio::time::timeout_at(deadline, freed).await.is_err() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    async fn preferred(&self, resource: &str, reused: &Ids, available: &Ids, required: usize) -> Result<Ids, String> {
        let channel = {
            let inner = self.lock();
            let plugin = inner.offers.get(resource).and_then(|offer| offer.plugin.as_ref());
            plugin.filter(|p| p.options.get_preferred_allocation_available).map(|p| p.channel.clone())
        };
        let Some(channel) = channel else { return Ok(Ids::new()) };
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: available.union(reused).cloned().collect(),
                must_include_device_ids: reused.iter().cloned().collect(),
                allocation_size: i32::try_from(required).unwrap_or(i32::MAX),
            }],
        };
        let answer: PreferredAllocationResponse =
            grpc::call(&channel, protocol::PREFERRED, request, PREFERRED_DEADLINE)
                .await
                .map_err(|error| format!("device plugin GetPreferredAllocation rpc failed with err: {error}"))?;
        let first = answer.container_responses.into_iter().next();
        Ok(first.map(|of| of.device_ids.into_iter().collect()).unwrap_or_default())
    }
}

impl Inner {
    fn ask(
        &self,
        pod: &Pod,
        container: &Container,
        resource: &str,
        required: usize,
        reusable: &Ids,
    ) -> Result<Answer, String> {
        let mut in_use = self.record.in_use(resource);
        in_use.extend(self.promised.get(resource).into_iter().flatten().cloned());
        select::answer(&Question {
            pod_uid: uid(pod),
            container: &container.name,
            resource,
            required,
            healthy: self.offers.get(resource).map(|offer| &offer.healthy),
            in_use: &in_use,
            granted: self.record.granted(uid(pod), &container.name, resource).map(|grant| &grant.devices),
            reusable,
        })
    }
}

struct Promise<'a> {
    devices: &'a Devices,
    resource: &'a str,
    chosen: &'a Ids,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut inner = self.devices.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(promised) = inner.promised.get_mut(self.resource) {
            promised.retain(|id| !self.chosen.contains(id));
        }
    }
}
