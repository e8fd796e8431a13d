//! Decides: when a request is deleted (upstream's cleaner, which looks once an hour).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::pem::Pem;

use super::{conditions, is_issued};

const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// Of those that nobody decided about, and of those that nobody signs.
const UNDECIDED: SignedDuration = SignedDuration::from_hours(24);

/// How long it stays; zero when it goes now, `None` when it stays until something changes.
pub fn left(request: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let all = conditions(request);
    let created = request.metadata.creation_timestamp.as_ref();
    let pending = created.filter(|_| all.is_empty()).map(|t| (t.0, UNDECIDED));
    let issued = is_issued(request);
    let decided = all.iter().filter_map(|c| {
        let since = c.last_update_time.as_ref()?.0;
        match c.type_.as_str() {
            "Denied" | "Failed" => Some((since, DECIDED)),
            "Approved" if issued => Some((since, DECIDED)),
            "Approved" => Some((since, UNDECIDED)),
            _ => None,
        }
    });
    let due = pending.into_iter().chain(decided).filter_map(|(since, stay)| since.checked_add(stay).ok());
    let approved = all.iter().any(|c| c.type_ == "Approved");
    let expired = expiry(request).filter(|_| approved);
    let first = due.chain(expired).min()?;
    Some(Duration::try_from(first.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// When its certificate ends.
fn expiry(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let pem = request.status.as_ref()?.certificate.as_ref()?;
    let block = Pem::iter_from_buffer(&pem.0).find_map(Result::ok)?;
    Timestamp::from_second(block.parse_x509().ok()?.validity().not_after.timestamp()).ok()
}
