//! The profile service. gRPC calls enter; profiles leave from memory, after policy, and rows from the tables by the engine.
//! Nothing is computed here.
//!
//! Wire contract: `proto/quad/profile/v1/profile.proto`.

pub mod admin;
pub(super) mod convert;
mod describe;
mod encode;
mod explain;
mod mask;
mod page;
mod rows;
mod scope;
mod timeline;
mod watch;

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use futures::stream::{self, BoxStream, StreamExt as _};
use prost_types::Timestamp;
use proto::profile::server::profile_service_server::{ProfileService, ProfileServiceServer};
use proto::profile::server::{
    BatchGetProfilesResponse, GetProfileResponse, ListProfilesResponse, ProfileResult, WatchProfilesResponse,
    profile_result,
};
use proto::profile::v1::{
    BatchGetProfilesRequest, DescribeProfileRequest, DescribeProfileResponse, ExplainItemRequest, ExplainItemResponse,
    GetProfileRequest, GetTimelineRequest, GetTimelineResponse, IdType as WireIdType, LinkStatus, ListProfilesRequest,
    PersonKey, ProfileError, ResolveIdentityRequest, ResolveIdentityResponse, WatchProfilesRequest, person_key,
};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tonic::{Request, Response, Status};

use self::convert::Reading;
use self::encode::Encoders;
use self::explain::Inputs;
use self::mask::Mask;
use self::page::Page;
use self::rows::Wanted;
use self::timeline::EventTables;
use self::watch::Watcher;
use super::flight::authenticate;
use super::status::codes;
use crate::access::{Access, Principal};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::identity::index::OPEN;
use crate::identity::{self, IdType, Index, Resolution, Rule};
use crate::metrics::{self, Outcome};
use crate::policy::{self, Door};
use crate::profile::store::not_computed;
use crate::profile::{Live, Moments, Person, Profiles, Store};

/// Keys a batch may have.
const BATCH_MAX: usize = 200;
const REQUEST_BYTES_MAX: usize = 1 << 20;
const RESPONSE_BYTES_MAX: usize = 16 << 20;
const IDENTIFIER_CHARS_MAX: usize = 64;
/// Calls that watch at a time.
const WATCHES_MAX: usize = 64;

/// The longest that a call waits for its watermark; its own deadline may end it sooner.
pub(super) const WATERMARK_WAIT_MAX: Duration = Duration::from_secs(60);

type Events = BoxStream<'static, Result<WatchProfilesResponse, Status>>;

/// Serves from the store, and identity from the engine's newest snapshot.
pub struct ProfilesApi {
    engine: Arc<Engine>,
    access: Arc<Access>,
    store: Arc<Store>,
    live: Arc<Live>,
    moments: Arc<Moments>,
    encoders: Encoders,
    watches: Arc<Semaphore>,
}

impl ProfilesApi {
    pub fn new(
        engine: Arc<Engine>,
        access: Arc<Access>,
        store: Arc<Store>,
        live: Arc<Live>,
        moments: Arc<Moments>,
    ) -> Self {
        let watches = Arc::new(Semaphore::new(WATCHES_MAX));
        Self { engine, access, store, live, moments, encoders: Encoders::default(), watches }
    }

    /// Ready to be added to a server.
    pub fn into_server(self) -> ProfileServiceServer<Self> {
        ProfileServiceServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(RESPONSE_BYTES_MAX)
    }

    fn enter<T>(&self, request: &Request<T>, door: Door) -> Result<Principal, Error> {
        let principal = authenticate(&self.access, request.metadata())?;
        policy::enter(&principal, door)?;
        Ok(principal)
    }

    /// The newest profiles, once they reach to the watermark of a request.
    async fn profiles(&self, min_watermark: &str) -> Result<Arc<Profiles>, Error> {
        if !min_watermark.is_empty() {
            let watermark = min_watermark.parse().map_err(Error::from)?;
            return self.store.after(&watermark, Instant::now() + WATERMARK_WAIT_MAX).await;
        }
        self.store.newest()
    }

    /// As [`Self::profiles`], or those of the moment `at`.
    async fn profiles_at(&self, at: Option<&Timestamp>, min_watermark: &str) -> Result<Arc<Profiles>, Error> {
        let Some(at) = at else { return self.profiles(min_watermark).await };
        let at = convert::micros(at)?;
        let after = match min_watermark {
            "" => None,
            token => Some(token.parse().map_err(Error::from)?),
        };
        self.moments.profiles(at, after.as_ref(), Instant::now() + WATERMARK_WAIT_MAX).await
    }
}

#[tonic::async_trait]
impl ProfileService for ProfilesApi {
    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<GetProfileResponse>, Status> {
        watched(Door::GetProfile, self.get(request)).await
    }

    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        watched(Door::BatchGetProfiles, self.batch_get(request)).await
    }

    async fn list_profiles(
        &self,
        request: Request<ListProfilesRequest>,
    ) -> Result<Response<ListProfilesResponse>, Status> {
        watched(Door::ListProfiles, self.list(request)).await
    }

    async fn resolve_identity(
        &self,
        request: Request<ResolveIdentityRequest>,
    ) -> Result<Response<ResolveIdentityResponse>, Status> {
        watched(Door::ResolveIdentity, self.resolve(request)).await
    }

    async fn describe_profile(
        &self,
        request: Request<DescribeProfileRequest>,
    ) -> Result<Response<DescribeProfileResponse>, Status> {
        let answer = async {
            self.enter(&request, Door::DescribeProfile)?;
            Ok(Response::new(describe::catalogue(&self.live.definitions().sections)))
        };
        watched(Door::DescribeProfile, answer).await
    }

    type WatchProfilesStream = Events;

    async fn watch_profiles(&self, request: Request<WatchProfilesRequest>) -> Result<Response<Events>, Status> {
        watched(Door::WatchProfiles, self.watch(request)).await
    }

    async fn explain_item(
        &self,
        request: Request<ExplainItemRequest>,
    ) -> Result<Response<ExplainItemResponse>, Status> {
        watched(Door::ExplainItem, self.explain(request)).await
    }

    async fn get_timeline(
        &self,
        request: Request<GetTimelineRequest>,
    ) -> Result<Response<GetTimelineResponse>, Status> {
        watched(Door::GetTimeline, self.timeline(request)).await
    }
}

/// Answers one call and records how it went.
pub(super) async fn watched<T>(door: Door, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
    let mut watched = metrics::Request::begin(door);
    let answered = answer.await;
    watched.outcome = match &answered {
        Ok(_) => Outcome::Done,
        Err(error) => Outcome::Failed(error.kind),
    };
    Ok(answered?)
}

/// The calls. Those about rows ask the engine, and those about a past moment may have it computed; all others are answered from
/// memory, so none of them waits.
impl ProfilesApi {
    async fn get(&self, request: Request<GetProfileRequest>) -> Result<Response<GetProfileResponse>, Error> {
        let principal = self.enter(&request, Door::GetProfile)?;
        let request = request.into_inner();
        let profiles = self.profiles_at(request.at.as_ref(), &request.min_watermark).await?;
        let mask = Mask::new(request.item_mask.as_ref(), &profiles.items)?;
        let encoder = self.encoders.of(&profiles.items);
        let reading = Reading::new(&profiles, &encoder, &principal, convert::purpose(request.purpose)?, &mask);
        let person = find(&profiles, request.person.as_ref())?;
        audit_at(profiles.at, &principal, Door::GetProfile, request.purpose, 1);
        let profile = Some(reading.profile(person));
        Ok(Response::new(GetProfileResponse { profile, watermark: profiles.watermark.clone() }))
    }

    async fn batch_get(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Error> {
        let principal = self.enter(&request, Door::BatchGetProfiles)?;
        let request = request.into_inner();
        let keys = request.persons.len();
        if keys == 0 || keys > BATCH_MAX {
            let error =
                Error::new(ErrorKind::InvalidArgument, format!("persons has {keys} keys, not 1 to {BATCH_MAX}"));
            return Err(error.with_hint("split the batch"));
        }
        let profiles = self.profiles_at(request.at.as_ref(), &request.min_watermark).await?;
        let mask = Mask::new(request.item_mask.as_ref(), &profiles.items)?;
        let encoder = self.encoders.of(&profiles.items);
        let reading = Reading::new(&profiles, &encoder, &principal, convert::purpose(request.purpose)?, &mask);
        let results = request.persons.iter().map(|key| {
            let result = match find(&profiles, Some(key)) {
                Ok(person) => profile_result::Result::Profile(reading.profile(person)),
                Err(error) => profile_result::Result::Error(ProfileError {
                    code: codes(error.kind).0.into(),
                    message: error.text(),
                }),
            };
            ProfileResult { result: Some(result) }
        });
        let results = results.collect();
        audit_at(profiles.at, &principal, Door::BatchGetProfiles, request.purpose, keys);
        Ok(Response::new(BatchGetProfilesResponse { results, watermark: profiles.watermark.clone() }))
    }

    async fn list(&self, request: Request<ListProfilesRequest>) -> Result<Response<ListProfilesResponse>, Error> {
        let principal = self.enter(&request, Door::ListProfiles)?;
        let request = request.into_inner();
        let profiles = self.profiles(&request.min_watermark).await?;
        let mask = Mask::new(request.item_mask.as_ref(), &profiles.items)?;
        let encoder = self.encoders.of(&profiles.items);
        let reading = Reading::new(&profiles, &encoder, &principal, convert::purpose(request.purpose)?, &mask);
        let page = Page::new(&request)?;
        let (persons, next_page_token, total) = page.of(&profiles);
        audit(&principal, Door::ListProfiles, request.purpose, persons.len());
        Ok(Response::new(ListProfilesResponse {
            profiles: persons.into_iter().map(|person| reading.profile(person)).collect(),
            next_page_token,
            total_size: i32::try_from(total).unwrap_or(i32::MAX),
            watermark: profiles.watermark.clone(),
        }))
    }

    async fn watch(&self, request: Request<WatchProfilesRequest>) -> Result<Response<Events>, Error> {
        let principal = self.enter(&request, Door::WatchProfiles)?;
        let request = request.into_inner();
        let permit = self.watches.clone().try_acquire_owned().map_err(|_| {
            let error = Error::new(ErrorKind::Busy, format!("{WATCHES_MAX} calls watch already"));
            error.with_hint("end one, or watch several scopes in one")
        })?;
        let profiles = self.profiles("").await?;
        let watcher = Watcher::new(self.store.clone(), &profiles, principal, &request, permit)?;
        let events = stream::unfold(watcher, async |mut watcher| Some((watcher.next().await?, watcher)));
        Ok(Response::new(events.boxed()))
    }

    async fn explain(&self, request: Request<ExplainItemRequest>) -> Result<Response<ExplainItemResponse>, Error> {
        let principal = self.enter(&request, Door::ExplainItem)?;
        let request = request.into_inner();
        let purpose = convert::purpose(request.purpose)?;
        let profiles = self.profiles(&request.min_watermark).await?.computed()?;
        let place = explain::item(&profiles, &request.item)?;
        let item = &profiles.items[place];
        let person = find(&profiles, request.person.as_ref())?;
        let filters = format!("explain|{}|{}|{purpose:?}", person.id, item.id);
        let page = rows::Page::new(request.page_size, &request.page_token, &filters)?;
        audit(&principal, Door::ExplainItem, request.purpose, 1);
        let inputs = Inputs::new(item, &self.live.definitions().views, self.engine.contracts(), &principal, purpose)?;
        let numbers = profiles.snapshot.identity.numbers(&person.id);
        let wanted = Wanted { person_id: &person.id, numbers, tables: inputs.tables, from: None, to: None };
        let (rows, next_page_token) = rows::read(&self.engine, profiles.snapshot.clone(), &wanted, &page).await?;
        let withheld = policy::is_withheld(&principal, purpose, item.class);
        Ok(Response::new(ExplainItemResponse {
            item: Some(convert::item(item, &profiles.item(person, place), withheld)),
            description: Some(describe::item(item)),
            views: inputs.views,
            inputs: inputs.said,
            rows,
            next_page_token,
            watermark: profiles.watermark.clone(),
            snapshot: profiles.snapshot.id,
        }))
    }

    async fn timeline(&self, request: Request<GetTimelineRequest>) -> Result<Response<GetTimelineResponse>, Error> {
        let principal = self.enter(&request, Door::GetTimeline)?;
        let request = request.into_inner();
        let purpose = convert::purpose(request.purpose)?;
        let (from, to) = timeline::span(&request)?;
        let events = EventTables::new(self.engine.contracts(), &request.tables, &principal, purpose)?;
        let profiles = self.profiles(&request.min_watermark).await?.computed()?;
        let person = find(&profiles, request.person.as_ref())?;
        let filters = format!("timeline|{}|{:?}|{from:?}|{to:?}|{purpose:?}", person.id, request.tables);
        let page = rows::Page::new(request.page_size, &request.page_token, &filters)?;
        audit(&principal, Door::GetTimeline, request.purpose, 1);
        let numbers = profiles.snapshot.identity.numbers(&person.id);
        let wanted = Wanted { person_id: &person.id, numbers, tables: events.tables, from, to };
        let (events_of_page, next_page_token) =
            rows::read(&self.engine, profiles.snapshot.clone(), &wanted, &page).await?;
        Ok(Response::new(GetTimelineResponse {
            events: events_of_page,
            next_page_token,
            withheld_tables: events.withheld,
            watermark: profiles.watermark.clone(),
            snapshot: profiles.snapshot.id,
        }))
    }

    async fn resolve(
        &self,
        request: Request<ResolveIdentityRequest>,
    ) -> Result<Response<ResolveIdentityResponse>, Error> {
        let principal = self.enter(&request, Door::ResolveIdentity)?;
        let request = request.into_inner();
        let length = request.id_value.chars().count();
        if length == 0 || length > IDENTIFIER_CHARS_MAX {
            let message = format!("id_value has {length} characters, not 1 to {IDENTIFIER_CHARS_MAX}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let at = request.at.as_ref().map(convert::micros).transpose()?;
        let snapshot = self.engine.pin().snapshot.clone();
        let identity = &snapshot.identity;
        let value = request.id_value.as_str();
        let id_type = WireIdType::try_from(request.id_type).unwrap_or(WireIdType::Unspecified);
        let resolution = match id_type {
            WireIdType::StudentNo => identity.resolve(IdType::StudentNo, value, at),
            WireIdType::StaffNo => identity.resolve(IdType::StaffNo, value, at),
            WireIdType::CasUid => identity.resolve(IdType::CasUid, value, at),
            WireIdType::CardNo => identity.resolve(IdType::CardNo, value, at),
            WireIdType::CardPhysicalNo => identity.resolve(IdType::CardPhysicalNo, value, at),
            WireIdType::AccessPersonNo => identity.resolve_access(Some(value), None, at),
            WireIdType::Unspecified => {
                let error = Error::new(ErrorKind::InvalidArgument, "id_type is not set or unknown");
                return Err(error.with_hint("use one of ID_TYPE_STUDENT_NO, …"));
            }
        };
        audit(&principal, Door::ResolveIdentity, 0, 1);
        Ok(Response::new(resolved(identity, resolution)))
    }
}

/// The person of a key. Errors never repeat the key: they may be logged on the other side.
fn find<'a>(profiles: &'a Profiles, key: Option<&PersonKey>) -> Result<&'a Arc<Person>, Error> {
    let (person, length, what) = match key.and_then(|key| key.key.as_ref()) {
        Some(person_key::Key::StudentNo(number)) => {
            (profiles.by_student_no(number), number.chars().count(), "student_no")
        }
        Some(person_key::Key::PersonId(id)) => (profiles.by_id(id), id.chars().count(), "person_id"),
        None => {
            let error = Error::new(ErrorKind::InvalidArgument, "person is not set");
            return Err(error.with_hint("set student_no or person_id"));
        }
    };
    if length == 0 || length > IDENTIFIER_CHARS_MAX {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} has {length} characters, not 1 to {IDENTIFIER_CHARS_MAX}"),
        ));
    }
    person.ok_or_else(|| {
        // Whoever came since has no profile yet.
        if profiles.is_checkpoint {
            return not_computed();
        }
        let hint = match profiles.at {
            None => "check the number; a new student shows once the record has landed",
            Some(_) => "check the number; nobody was known by it at that moment",
        };
        Error::new(ErrorKind::NotFound, format!("no student has this {what}")).with_hint(hint)
    })
}

fn resolved(index: &Index, resolution: Resolution) -> ResolveIdentityResponse {
    let mut response = ResolveIdentityResponse::default();
    let (status, span) = match resolution {
        Resolution::Placeholder => {
            response.rule = Rule::R0.name().to_string();
            (LinkStatus::Unlinked, None)
        }
        Resolution::Unlinked => (LinkStatus::Unlinked, None),
        Resolution::Linked(span) if span.status == identity::LinkStatus::Provisional => {
            (LinkStatus::Provisional, Some(span))
        }
        Resolution::Linked(span) => (LinkStatus::Confirmed, Some(span)),
        Resolution::Disputed(span) => (LinkStatus::Disputed, span),
    };
    response.set_status(status);
    if let Some(span) = span {
        response.rule = span.rule.name().to_string();
        response.valid_from = Some(convert::timestamp(span.from));
        response.valid_to = (span.to != OPEN).then(|| convert::timestamp(span.to));
        if status != LinkStatus::Disputed {
            let person = index.person(span.person);
            response.person_id = person.id.to_string();
            response.student_nos = person.student_nos.iter().map(ToString::to_string).collect();
        }
    }
    response
}

fn audit(principal: &Principal, door: Door, purpose: i32, persons: usize) {
    audit_at(None, principal, door, purpose, persons);
}

/// Of profiles as of `at`, microseconds UTC.
fn audit_at(at: Option<i64>, principal: &Principal, door: Door, purpose: i32, persons: usize) {
    let at = at.and_then(DateTime::from_timestamp_micros).map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true));
    let at = at.as_deref();
    tracing::info!(target: "quad::audit", ?door, principal = %principal.name, purpose, persons, at, "profile");
}
