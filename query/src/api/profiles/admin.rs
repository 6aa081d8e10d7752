//! The upkeep of profiles. Calls of administrators enter; comparisons leave, which name items and count persons, never name one.
//!
//! Wire contract: `proto/quad/profile/v1/admin.proto`.

use std::sync::Arc;

use proto::profile::server::profile_admin_service_server::{ProfileAdminService, ProfileAdminServiceServer};
use proto::profile::v1::{
    DiffProfilesRequest, DiffProfilesResponse, ItemChange, ItemComparison, ProfileComparison, SwitchProfilesRequest,
    SwitchProfilesResponse, VerifyProfilesRequest, VerifyProfilesResponse,
};
use tonic::{Request, Response, Status};

use super::{audit, watched};
use crate::access::Access;
use crate::api::flight::authenticate;
use crate::engine::Engine;
use crate::error::Error;
use crate::policy::{self, Door};
use crate::profile::Live;
use crate::profile::live::{Change, Comparison};

/// Computes beside what is read, on the engine's threads.
pub struct AdminApi {
    engine: Arc<Engine>,
    access: Arc<Access>,
    live: Arc<Live>,
}

impl AdminApi {
    pub fn new(engine: Arc<Engine>, access: Arc<Access>, live: Arc<Live>) -> Self {
        Self { engine, access, live }
    }

    /// Ready to be added to a server.
    pub fn into_server(self) -> ProfileAdminServiceServer<Self> {
        ProfileAdminServiceServer::new(self)
    }

    async fn run<T, F>(
        &self,
        request: &Request<T>,
        work: impl FnOnce(Arc<Live>) -> F,
    ) -> Result<Option<ProfileComparison>, Status>
    where
        F: Future<Output = Result<Comparison, Error>> + Send + 'static,
    {
        let answer = async {
            let principal = authenticate(&self.access, request.metadata())?;
            policy::enter(&principal, Door::ManageProfiles)?;
            audit(&principal, Door::ManageProfiles, 0, 0);
            // A caller that goes away does not stop half-way what it began.
            self.engine.spawn(work(self.live.clone())).await.expect("a computation does not panic")
        };
        watched(Door::ManageProfiles, answer).await.map(|comparison| Some(told(comparison)))
    }
}

#[tonic::async_trait]
impl ProfileAdminService for AdminApi {
    async fn verify_profiles(
        &self,
        request: Request<VerifyProfilesRequest>,
    ) -> Result<Response<VerifyProfilesResponse>, Status> {
        let comparison = self.run(&request, |live| async move { live.verify().await }).await?;
        Ok(Response::new(VerifyProfilesResponse { comparison }))
    }

    async fn diff_profiles(
        &self,
        request: Request<DiffProfilesRequest>,
    ) -> Result<Response<DiffProfilesResponse>, Status> {
        let comparison = self.run(&request, |live| async move { live.diff().await }).await?;
        Ok(Response::new(DiffProfilesResponse { comparison }))
    }

    async fn switch_profiles(
        &self,
        request: Request<SwitchProfilesRequest>,
    ) -> Result<Response<SwitchProfilesResponse>, Status> {
        let comparison = self.run(&request, |live| async move { live.switch().await }).await?;
        Ok(Response::new(SwitchProfilesResponse { comparison }))
    }
}

fn told(comparison: Comparison) -> ProfileComparison {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let item = |(id, (name, change, persons)): (String, (String, Change, usize))| {
        let change = match change {
            Change::Added => ItemChange::Added,
            Change::Removed => ItemChange::Removed,
            Change::Changed => ItemChange::Changed,
        };
        ItemComparison { id, name, change: change.into(), persons: count(persons) }
    };
    ProfileComparison {
        persons: count(comparison.persons),
        persons_different: count(comparison.persons_different),
        items: comparison.items.into_iter().map(item).collect(),
        watermark: comparison.watermark,
    }
}
