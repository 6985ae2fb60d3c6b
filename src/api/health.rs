//! grpc.health.v1: whether this replica serves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::api::Api;

/// How often a health watch looks.
const LOOK: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct HealthService(pub(super) Arc<Api>);

impl HealthService {
    /// The name "" stands for the whole server; etcd registers no other.
    fn find(request: &Request<HealthCheckRequest>) -> Result<(), Status> {
        if request.get_ref().service.is_empty() {
            return Ok(());
        }
        Err(Status::not_found("unknown service"))
    }
}

fn serving(api: &Api) -> ServingStatus {
    if api.health().quarantined { ServingStatus::NotServing } else { ServingStatus::Serving }
}

#[async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Self::find(&request)?;
        Ok(Response::new(HealthCheckResponse { status: serving(&self.0).into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Self::find(&request)?;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let api = Arc::clone(&self.0);
        Ok(Response::new(Box::pin(Changes { api, looks, last: None })))
    }
}

/// The status now, and again whenever it changes.
struct Changes {
    api: Arc<Api>,
    looks: Interval,
    last: Option<ServingStatus>,
}

impl Stream for Changes {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.looks.poll_tick(context).is_ready() {
            let status = serving(&self.api);
            if self.last.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(HealthCheckResponse { status: status.into() })));
            }
        }
        Poll::Pending
    }
}
