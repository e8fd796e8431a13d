//! Effects: one call to a driver, bounded in time, its failure in the words of Go's clients.

use std::time::Duration;

use tonic::{Code, Response, Status};

use super::driver::Error;

/// As upstream's `csiTimeout`: a driver may have to format a disk.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) async fn within<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(failure(&status)),
        Err(_) => Err(Error::Call { code: Code::DeadlineExceeded, message: "context deadline exceeded".into() }),
    }
}

fn failure(status: &Status) -> Error {
    // A connection that broke surfaces as a transport error, with its cause behind it.
    let broken = std::error::Error::source(status);
    match (status.code(), broken) {
        (Code::Unknown | Code::Unavailable, Some(cause)) => {
            Error::Call { code: Code::Unavailable, message: crate::supervisor::chain(cause) }
        }
        (code, _) => Error::Call { code, message: status.message().to_owned() },
    }
}
