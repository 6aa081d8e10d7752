//! Where the lake is.

/// `[lake]` in the settings.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A folder, or a URL of an object store that `deltalake` was built with.
    pub path: String,
}
