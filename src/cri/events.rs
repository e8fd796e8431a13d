//! Effects: what changed in the runtime, as a stream, so that nobody has to list again and again.
//!
//! containerd before 1.7 has no CRI event stream, so its own event service is asked first. That one tells of an
//! exit before the CRI plug-in has noticed it; the event is held back until the status agrees, else a worker would
//! look too early and never again.

use std::time::Duration;

use containerd_client::events::TaskExit;
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::client::Client;
use super::{Runtime as _, RuntimeEvent, State, v1};

/// Waits for the CRI plug-in to notice an exit, doubling from the first to the last: a quarter of a minute in all, as
/// a busy machine takes its time and an event that comes too early is lost.
const SETTLE_FIRST: Duration = Duration::from_millis(2);
const SETTLE_LAST: Duration = Duration::from_millis(8192);
/// A runtime without containerd's services refuses well within this.
const REFUSAL_DEADLINE: Duration = Duration::from_millis(100);
/// Exits that are settling at the same time; more wait in containerd.
const SETTLING_LIMIT: usize = 64;

/// Subscribes to containerd's own events.
///
/// The server answers a subscription with headers only when the first event comes, so the answer cannot be waited
/// for: a refusal comes at once, and silence means that the subscription stands.
pub(super) async fn containerd(
    channel: Channel,
    client: Client,
) -> Result<BoxStream<'static, RuntimeEvent>, tonic::Status> {
    let filters = vec![r#"namespace==k8s.io,topic=="/tasks/exit""#.to_owned()];
    let mut service = EventsClient::new(channel);
    let mut subscription = Box::pin(async move { service.subscribe(Request::new(SubscribeRequest { filters })).await });
    let envelopes = match tokio::time::timeout(REFUSAL_DEADLINE, &mut subscription).await {
        Ok(answer) => answer?.into_inner().boxed(),
        Err(_) => stream::once(subscription)
            .flat_map(|answer| match answer {
                Ok(answer) => answer.into_inner().boxed(),
                Err(status) => stream::iter([Err(status)]).boxed(),
            })
            .boxed(),
    };
    let exits = envelopes.take_while(|e| std::future::ready(e.is_ok())).filter_map(|envelope| async {
        let exit = TaskExit::decode(&*envelope.ok()?.event?.value).ok()?;
        // The exit of an exec'd process concerns nobody but its caller.
        (exit.id == exit.container_id).then_some(exit.container_id)
    });
    let settled = exits.map(move |id| settle(client.clone(), id)).buffer_unordered(SETTLING_LIMIT);
    Ok(settled.boxed())
}

/// Returns when the runtime's status shows the end of the container (or sandbox) `id`, or at the end of that time.
///
/// A container that ends at once does so before its start is recorded: it is `Created` then, and `Running` after that.
async fn settle(client: Client, id: String) -> RuntimeEvent {
    let mut wait = SETTLE_FIRST;
    while wait <= SETTLE_LAST {
        let ended = match client.container_status(&id).await {
            Ok(container) => container.state == State::Exited,
            Err(_) => !client.sandbox_status(&id).await.is_ok_and(|s| s.ready),
        };
        if ended {
            break;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    RuntimeEvent { id }
}

pub(super) fn cri(stream: Streaming<v1::ContainerEventResponse>) -> BoxStream<'static, RuntimeEvent> {
    stream
        .take_while(|e| std::future::ready(e.is_ok()))
        .flat_map(|event| stream::iter(event.ok().map(|e| RuntimeEvent { id: e.container_id })))
        .boxed()
}
