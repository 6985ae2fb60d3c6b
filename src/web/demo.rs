use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Method;

use super::Web;
use super::answer::{TEXT, allow, found};

/// Cuts this replica off from its peers, as a failed network would.
pub(super) async fn cut(State(web): State<Web>, method: Method) -> Response {
    switch(&web, &method, true)
}

/// Lets it back.
pub(super) async fn heal(State(web): State<Web>, method: Method) -> Response {
    switch(&web, &method, false)
}

/// Makes this replica contradict itself for some seconds: others get other votes and blocks of it.
pub(super) async fn lie(State(web): State<Web>, method: Method) -> Response {
    if method != Method::POST {
        return allow("POST");
    }
    tracing::warn!(event = "demo_lie");
    web.handle.lie();
    found(TEXT, Body::from("ok\n"))
}

fn switch(web: &Web, method: &Method, cut: bool) -> Response {
    if method != Method::POST {
        return allow("POST");
    }
    tracing::warn!(event = "demo_cut", cut);
    web.handle.cut(cut);
    found(TEXT, Body::from("ok\n"))
}
