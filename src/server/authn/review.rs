//! Decides what a TokenReview is answered.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus, UserInfo};

use super::verify::Verifier;
use crate::api::status::Status;
use crate::api::user::{SYSTEM_AUTHENTICATED, User};

/// The same object with its status.
///
/// # Errors
/// 400 when the review asks about no token.
pub fn review(verifier: &Verifier, mut request: TokenReview, now: Timestamp) -> Result<TokenReview, Status> {
    let (token, audiences) = (request.spec.token.as_str(), request.spec.audiences.as_deref());
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = audiences.filter(|a| !a.is_empty());
    request.status = Some(match verifier.verify(token, wanted, now) {
        Ok(verified) => {
            let mut user = verified.user;
            user.groups.push(SYSTEM_AUTHENTICATED.into());
            TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(verified.audiences),
                user: Some(user_info(user)),
                error: None,
            }
        }
        Err(refused) => TokenReviewStatus { error: Some(refused.to_string()), ..TokenReviewStatus::default() },
    });
    Ok(request)
}

/// [`User`] as reviews show it.
#[must_use]
pub fn user_info(user: User) -> UserInfo {
    UserInfo {
        username: Some(user.name),
        uid: Some(user.uid).filter(|u| !u.is_empty()),
        groups: Some(user.groups).filter(|g| !g.is_empty()),
        extra: Some(user.extra).filter(|e| !e.is_empty()),
    }
}
