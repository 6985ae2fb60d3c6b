use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};

use super::Web;
use super::answer::{TEXT, allow, failure, found};

/// Has a quarantined replica give up its damaged state and fetch that of the others. Refused while
/// it is not quarantined, so that nobody who reaches the port can cost a healthy replica its state.
pub(super) async fn repair(State(web): State<Web>, method: Method) -> Response {
    if method != Method::POST {
        return allow("POST");
    }
    match web.handle.repair().await {
        Ok(()) => found(TEXT, Body::from("ok\n")),
        Err(why) => failure(StatusCode::CONFLICT, &why),
    }
}
