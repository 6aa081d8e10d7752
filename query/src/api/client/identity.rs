//! The identity service's other side. Requests enter, answers leave, or the server's error.

use proto::identity::v1::identity_service_client::IdentityServiceClient;
use proto::identity::v1::{
    ConfirmRequest, ConfirmResponse, HistoryRequest, HistoryResponse, ListReviewsRequest, ListReviewsResponse,
    MergeRequest, MergeResponse, RejectRequest, RejectResponse, RevokeRequest, RevokeResponse, SplitRequest,
    SplitResponse,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{Client, MESSAGE_BYTES_MAX, from_status};
use crate::error::Error;

/// Each method is the call of its name.
impl Client {
    /// # Errors
    /// What the server says; so with all of these.
    pub async fn list_reviews(&self, request: ListReviewsRequest) -> Result<ListReviewsResponse, Error> {
        answer(self.identity().list_reviews(self.request(request)?).await)
    }

    /// # Errors
    /// See [`Client::list_reviews`].
    pub async fn confirm(&self, request: ConfirmRequest) -> Result<ConfirmResponse, Error> {
        answer(self.identity().confirm(self.request(request)?).await)
    }

    /// # Errors
    /// See [`Client::list_reviews`].
    pub async fn reject(&self, request: RejectRequest) -> Result<RejectResponse, Error> {
        answer(self.identity().reject(self.request(request)?).await)
    }

    /// # Errors
    /// See [`Client::list_reviews`].
    pub async fn merge(&self, request: MergeRequest) -> Result<MergeResponse, Error> {
        answer(self.identity().merge(self.request(request)?).await)
    }

    /// # Errors
    /// See [`Client::list_reviews`].
    pub async fn split(&self, request: SplitRequest) -> Result<SplitResponse, Error> {
        answer(self.identity().split(self.request(request)?).await)
    }

    /// # Errors
    /// See [`Client::list_reviews`].
    pub async fn revoke(&self, request: RevokeRequest) -> Result<RevokeResponse, Error> {
        answer(self.identity().revoke(self.request(request)?).await)
    }

    /// # Errors
    /// See [`Client::list_reviews`].
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        answer(self.identity().history(self.request(request)?).await)
    }

    fn identity(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn answer<T>(answered: Result<Response<T>, Status>) -> Result<T, Error> {
    answered.map(Response::into_inner).map_err(|status| from_status(&status))
}
