//! Object storage: a lake at `s3://<bucket>/<prefix>`.
//!
//! A URL, settings and the usual `AWS_*` variables enter; a store leaves that retries within limits and creates a commit
//! only where none is. Credentials are never read from a file of ours, nor written to one.

use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use deltalake::DeltaResult;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{
    CommitOrBytes, LogStore, LogStoreConfig, LogStoreFactory, LogStoreRef, ObjectStoreRef, StorageConfig,
    default_logstore, logstore_factories,
};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::settings::S3Settings;

/// The scheme of lakes on object storage.
pub(crate) const SCHEME: &str = "s3";

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Any of these says where credentials come from.
const CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

/// Where another store than Amazon's is named.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// The store behind `root`. Nothing is connected yet.
///
/// # Errors
/// `Settings` when the URL or a variable is not usable.
pub(crate) fn open(
    root: &Url,
    settings: &S3Settings,
    environment: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>, Error> {
    let wrong = |message: String| Error::new(ErrorKind::Settings, format!("lake.path `{root}`: {message}"));
    let bucket = root.host_str().ok_or_else(|| wrong("name a bucket, s3://<bucket>/<prefix>".into()))?;
    if !root.username().is_empty() || root.password().is_some() {
        return Err(Error::new(
            ErrorKind::Settings,
            "lake.path holds credentials; use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    let value = |names: &[&str]| {
        let found = names.iter().find_map(|name| environment.iter().find(|(key, _)| key == name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let endpoint = value(&ENDPOINTS);
    if endpoint.is_some() && value(&CREDENTIALS).is_none() {
        return Err(wrong("no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment".into()));
    }
    let allows_http =
        value(&["AWS_ALLOW_HTTP"]).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) && !allows_http {
        return Err(wrong("the endpoint is plain http; use https, or set AWS_ALLOW_HTTP=true".into()));
    }
    let client = ClientOptions::new()
        .with_timeout(Duration::from_secs(settings.request_timeout_s))
        .with_connect_timeout(CONNECT_TIMEOUT);
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
        retry_timeout: Duration::from_secs(settings.retry_s_max),
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("AWS_")) {
        // Variables that mean nothing to S3, such as AWS_PROFILE, are for others.
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    let store = builder.build().map_err(|error| wrong(format!("{error}; check the AWS_* variables")))?;
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        let scheme = Url::parse(&format!("{SCHEME}://")).expect("a scheme alone is a URL");
        logstore_factories().insert(scheme, Arc::new(OwnCommits));
    });
    Ok(Arc::new(store))
}

/// Makes the logs of tables on object storage.
struct OwnCommits;

impl LogStoreFactory for OwnCommits {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(Arc::new(OwnCommitLog { inner: default_logstore(prefixed_store, root_store, location, options) }))
    }
}

/// deltalake's log by conditional writes, which also knows its own commits.
///
/// When the answer to a write is lost, the store's client writes again and is told that the commit exists. deltalake
/// takes this for another writer and reports a conflict of this landing with itself, which would fence it for good. Here
/// the commit that stands there is read: if it is ours, byte for byte, it was made. Every commit carries names of files
/// or positions and a time, so another writer's is never the same.
struct OwnCommitLog {
    inner: LogStoreRef,
}

#[async_trait::async_trait]
impl LogStore for OwnCommitLog {
    /// deltalake decides by this name that commits are written as they are, not renamed into place.
    fn name(&self) -> String {
        self.inner.name()
    }

    async fn read_commit_entry(&self, version: u64) -> DeltaResult<Option<Bytes>> {
        self.inner.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: u64,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        let CommitOrBytes::LogBytes(ours) = commit.clone() else {
            return self.inner.write_commit_entry(version, commit, operation).await;
        };
        let Err(error) = self.inner.write_commit_entry(version, commit, operation).await else {
            return Ok(());
        };
        match self.inner.read_commit_entry(version).await {
            Ok(Some(found)) if found == ours => {
                tracing::info!(version, "the answer to a commit was lost; the commit is there");
                Ok(())
            }
            _ => Err(error),
        }
    }

    async fn abort_commit_entry(
        &self,
        version: u64,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        self.inner.abort_commit_entry(version, commit, operation).await
    }

    async fn get_latest_version(&self, start_version: u64) -> DeltaResult<u64> {
        self.inner.get_latest_version(start_version).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.inner.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.inner.root_object_store(operation)
    }

    fn config(&self) -> &LogStoreConfig {
        self.inner.config()
    }
}
