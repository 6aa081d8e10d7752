//! Files on object storage: `s3://<bucket>/<prefix>`.
//!
//! A URL, keys and a pattern enter; the objects that match leave, and each as a copy on disk while it is read. An object is
//! asked for by the version that was listed, so that a copy is whole and never of two versions. Nothing is written there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use glob::Pattern;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientOptions, GetOptions, ObjectStore, RetryConfig};
use tempfile::TempPath;

use super::{FILES_MAX, Found, MATCH};
use crate::error::Error;
use crate::extract::source::Worker;
use crate::settings::SourceSettings;

const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A bucket, or what of it is below a prefix.
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: object_store::path::Path,
    worker: Worker,
}

impl Bucket {
    /// # Errors
    /// `Settings` when a key or a property is not as it must be. Nothing is connected yet.
    pub(super) fn open(rest: &str, settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let wrong = |error: object_store::Error| Error::settings(format!("object storage: {error}"));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let client = ClientOptions::new().with_timeout(Duration::from_secs(settings.timeout_s));
        // Extract itself tries again.
        let retry = RetryConfig { max_retries: 2, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_client_options(client).with_retry(retry);
        for (name, value) in &settings.properties {
            let key = name.parse::<AmazonS3ConfigKey>().map_err(wrong)?;
            builder = builder.with_config(key, value.expose());
        }
        if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
            builder = builder.with_access_key_id(user).with_secret_access_key(password.expose());
        }
        let prefix = object_store::path::Path::from(prefix);
        Ok(Self { store: builder.build().map_err(wrong)?, prefix, worker: worker.clone() })
    }

    /// The objects whose name below the prefix matches.
    ///
    /// # Errors
    /// `Source` when the storage does not answer.
    pub(super) fn find(&self, pattern: &Pattern) -> Result<Vec<Found>, Error> {
        let listed = self.worker.block_on(async {
            let mut objects = self.store.list(Some(&self.prefix));
            let mut found = Vec::new();
            while let Some(object) = objects.try_next().await? {
                let parts = object.location.prefix_match(&self.prefix).into_iter().flatten();
                let name = parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>().join("/");
                if pattern.matches_with(&name, MATCH) && found.len() <= FILES_MAX {
                    let (modified, version) = (object.last_modified.into(), object.e_tag);
                    found.push(Found { path: PathBuf::from(&name), name, modified, bytes: object.size, version });
                }
            }
            Ok(found)
        })?;
        listed.map_err(|error: object_store::Error| Error::source(format!("could not list the objects: {error}")))
    }

    /// A copy of an object as it was found, which is removed when dropped.
    ///
    /// # Errors
    /// `Source` when it is another by now, or does not come whole.
    pub(super) fn fetch(&self, file: &Found) -> Result<TempPath, Error> {
        let disk = |error: std::io::Error| Error::source(format!("{}: could not keep a copy: {error}", file.name));
        let ending = Path::new(&file.name).extension().map(|ending| format!(".{}", ending.to_string_lossy()));
        let mut copy = tempfile::Builder::new().suffix(&ending.unwrap_or_default()).tempfile().map_err(disk)?;
        let location = self.prefix.parts().chain(object_store::path::Path::from(file.name.as_str()).parts()).collect();
        self.worker.block_on(async {
            let failed = |error: object_store::Error| match error {
                object_store::Error::Precondition { .. } => {
                    Error::source(format!("{}: changed while it was read; it is read again", file.name))
                }
                error => Error::source(format!("could not read {}: {error}", file.name)),
            };
            let options = GetOptions { if_match: file.version.clone(), ..GetOptions::default() };
            let mut bytes = self.store.get_opts(&location, options).await.map_err(failed)?.into_stream();
            while let Some(part) = bytes.try_next().await.map_err(failed)? {
                copy.write_all(&part).map_err(disk)?;
            }
            Ok(copy.into_temp_path())
        })?
    }
}
