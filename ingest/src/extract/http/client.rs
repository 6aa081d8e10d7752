//! One request: authenticated, paced, bounded, tried again.
//!
//! A request enters, the answer's JSON leaves. A connection that fails, half an answer, and the statuses 408, 429 and 5xx are
//! worth another try, after as long as the server says or a growing pause; other statuses are not. Neither a secret nor a
//! parameter is in any error: parameters may name students.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use schemas::Sensitive;
use serde::Deserialize;
use serde_json::Value;

use super::pages::Request;
use crate::error::Error;
use crate::extract::records;
use crate::extract::source::Worker;
use crate::settings::SourceSettings;

/// `[http]` of a connector: the interface as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub auth: Auth,
    /// How the token travels.
    pub token_in: TokenIn,
    /// The name of its parameter or field, unless it is a header.
    pub token_name: String,
    /// `oauth2`: where the token is got, below the source's `connection`.
    pub token_path: String,
    /// `oauth2`: whether id and secret travel in the body rather than as Basic authentication.
    pub credentials_in_body: bool,
    pub requests_per_s_max: f64,
    /// The longest that one answer may take.
    pub timeout_s: u64,
    /// How often a request is made before its pull fails.
    pub tries_max: u32,
    /// The largest answer.
    pub body_bytes_max: usize,
}

/// How a caller shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    None,
    /// With the source's password as the token.
    Bearer,
    /// With a token for the source's user and password: OAuth 2 client credentials (RFC 6749, 4.4).
    Oauth2,
}

/// Where the token is in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    Header,
    Query,
    Body,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            token_in: TokenIn::Header,
            token_name: "access_token".into(),
            token_path: String::new(),
            credentials_in_body: false,
            requests_per_s_max: 5.0,
            timeout_s: 30,
            tries_max: 5,
            body_bytes_max: 16 << 20,
        }
    }
}

impl Api {
    /// What does not fit together.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.auth == Auth::Oauth2 && self.token_path.is_empty() {
            return Err("`auth = \"oauth2\"` needs `token_path`".into());
        }
        if self.requests_per_s_max <= 0.0 || self.tries_max == 0 || self.body_bytes_max == 0 || self.timeout_s == 0 {
            return Err("`requests_per_s_max`, `timeout_s`, `tries_max` and `body_bytes_max` are above 0".into());
        }
        Ok(())
    }
}

/// The first pause before another try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(500);
/// No server is waited for longer than this; the next pull asks again.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A token is not used in its last seconds.
const TOKEN_MARGIN_S: i64 = 30;

/// Asks one interface.
pub(super) struct Client {
    api: Api,
    http: reqwest::Client,
    base: Url,
    user: Option<String>,
    password: Option<Sensitive<String>>,
    /// The token that was got, and until when it may be used.
    token: Option<(Sensitive<String>, DateTime<Utc>)>,
    worker: Worker,
    asked_at: Option<Instant>,
}

/// Why a try failed.
enum Failed {
    /// Another one may go well, after this pause if the server named one.
    Again(Error, Option<Duration>),
    Unauthorized,
    For(Error),
}

impl Client {
    pub(super) fn new(api: &Api, settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let address = settings.connection.as_deref().unwrap_or_default();
        let base = Url::parse(address).ok().filter(|url| url.has_host() && url.scheme().starts_with("http"));
        let base = base.ok_or_else(|| Error::settings("`connection` is no URL such as https://api.example.edu.cn"))?;
        if api.auth != Auth::None && settings.password.is_none() {
            return Err(Error::settings("its interface asks who calls: set `password`, see docs/connectors.md"));
        }
        if api.auth == Auth::Oauth2 && settings.user.is_none() {
            return Err(Error::settings("its interface asks for a client: set `user`"));
        }
        // A redirect leads to a login page more often than to records; proxies are for browsers.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(api.timeout_s))
            .build()
            .map_err(|error| Error::internal("make an HTTP client", error))?;
        let (user, password) = (settings.user.clone(), settings.password.clone());
        Ok(Self { api: api.clone(), http, base, user, password, token: None, worker: worker.clone(), asked_at: None })
    }

    /// Asks until there is a whole answer, or trying has no use.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Value, Error> {
        let mut is_renewed = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let (error, named) = match self.try_once(request) {
                Ok(answer) => return Ok(answer),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Unauthorized) if self.token.take().is_some() && !is_renewed => {
                    is_renewed = true;
                    continue;
                }
                Err(Failed::Unauthorized) => {
                    return Err(Error::source(format!("{}: status 401: check `user` and `password`", request.path)));
                }
                Err(Failed::Again(error, named)) => (error, named),
            };
            if tries >= self.api.tries_max {
                return Err(error);
            }
            let pause = named.unwrap_or(PAUSE * 2u32.pow(tries.min(10) - 1)).min(PAUSE_MAX);
            tracing::debug!(path = request.path, error = %error.chain(), ?pause, "asking again");
            self.worker.wait(pause)?;
        }
    }

    fn try_once(&mut self, request: &Request) -> Result<Value, Failed> {
        let token = self.token().map_err(|failed| match failed {
            Failed::Unauthorized => {
                Failed::For(Error::source(format!("{}: status 401: check `user` and `password`", self.api.token_path)))
            }
            other => other,
        })?;
        let url = self.url(&request.path).map_err(Failed::For)?;
        let mut query = request.query.clone();
        let mut body = request.body.clone();
        let mut header = None;
        match (token, self.api.token_in) {
            (None, _) => {}
            (Some(token), TokenIn::Header) => header = Some(token),
            (Some(token), TokenIn::Query) => query.push((self.api.token_name.clone(), token.expose().clone())),
            (Some(token), TokenIn::Body) => {
                let body = body.get_or_insert_with(|| Value::Object(serde_json::Map::new()));
                if let Some(object) = body.as_object_mut() {
                    object.insert(self.api.token_name.clone(), token.expose().clone().into());
                }
            }
        }
        let builder = match &body {
            None => self.http.get(url),
            Some(body) => self.http.post(url).header(CONTENT_TYPE, "application/json").body(body.to_string()),
        };
        let builder = match header {
            None => builder,
            Some(token) => builder.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
        };
        self.send(&request.path, builder.query(&query))
    }

    /// The token to show, got anew when there is none or it is at its end.
    fn token(&mut self) -> Result<Option<Sensitive<String>>, Failed> {
        let secret = self.password.clone().unwrap_or_else(|| Sensitive::new(String::new()));
        match (self.api.auth, &self.token) {
            (Auth::None, _) => return Ok(None),
            (Auth::Bearer, _) => return Ok(Some(secret)),
            (Auth::Oauth2, Some((token, until))) if Utc::now() < *until => return Ok(Some(token.clone())),
            (Auth::Oauth2, _) => {}
        }
        let path = self.api.token_path.clone();
        let user = self.user.clone().unwrap_or_default();
        let builder = self.http.post(self.url(&path).map_err(Failed::For)?);
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let builder = match self.api.credentials_in_body {
            true => {
                form.append_pair("client_id", &user).append_pair("client_secret", secret.expose());
                builder
            }
            false => builder.basic_auth(user, Some(secret.expose())),
        };
        let builder = builder.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish());
        let answer = self.send(&path, builder)?;
        let token = answer.pointer("/access_token").and_then(Value::as_str);
        let token =
            token.ok_or_else(|| Failed::For(Error::source(format!("{path}: no `access_token` in the answer"))))?;
        let expires_s = answer.pointer("/expires_in").and_then(records::text).and_then(|text| text.parse::<i64>().ok());
        let lasts_s = expires_s.unwrap_or(3600).clamp(1, 86_400);
        let until = Utc::now() + chrono::Duration::seconds((lasts_s - TOKEN_MARGIN_S).max(lasts_s / 2));
        let token = Sensitive::new(token.to_string());
        self.token = Some((token.clone(), until));
        Ok(Some(token))
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        let whole = format!("{}/{}", self.base.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
        Url::parse(&whole).map_err(|error| Error::settings(format!("path `{path}`: {error}")))
    }

    /// Sends at the pace of the interface and reads the whole answer.
    fn send(&mut self, path: &str, builder: RequestBuilder) -> Result<Value, Failed> {
        let pace = Duration::try_from_secs_f64(1.0 / self.api.requests_per_s_max).unwrap_or(PAUSE_MAX);
        if let Some(asked_at) = self.asked_at {
            self.worker.wait(pace.saturating_sub(asked_at.elapsed())).map_err(Failed::For)?;
        }
        self.asked_at = Some(Instant::now());
        let bytes_max = self.api.body_bytes_max;
        self.worker.block_on(exchange(path, builder, bytes_max)).map_err(Failed::For)?
    }
}

async fn exchange(path: &str, builder: RequestBuilder, bytes_max: usize) -> Result<Value, Failed> {
    let again = |what: &str, error: reqwest::Error| {
        let error = error.without_url();
        Failed::Again(Error { source: Some(Box::new(error)), ..Error::source(format!("{path}: {what}")) }, None)
    };
    let mut response = builder.send().await.map_err(|error| again("could not ask", error))?;
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        return Err(Failed::Unauthorized);
    }
    if !status.is_success() {
        let error = Error::source(format!("{path}: status {}", status.as_u16()));
        let is_passing =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        return Err(if is_passing { Failed::Again(error, retry_after(&response)) } else { Failed::For(error) });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| again("half an answer", error))? {
        if body.len() + chunk.len() > bytes_max {
            let what = format!("{path}: an answer of more than {bytes_max} bytes: ask for smaller pages");
            return Err(Failed::For(Error::source(what)));
        }
        body.extend_from_slice(&chunk);
    }
    records::parse(&body).map_err(|error| match error.is_eof() {
        true => Failed::Again(Error::source(format!("{path}: half an answer: its JSON does not end")), None),
        false => Failed::For(Error::source(format!("{path}: the answer is not JSON, at column {}", error.column()))),
    })
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    (date.with_timezone(&Utc) - Utc::now()).to_std().ok()
}
