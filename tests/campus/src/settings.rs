//! Quad's settings over a campus: its three databases and its gates as sources, everything else in one folder.
//!
//! Places, ports and tokens enter; the text of a `quad.toml` leaves. Every key is written out in full, so that `more` can
//! set any other.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::database::Databases;

/// What a `quad.toml` is made of.
pub struct Settings<'a> {
    /// The project: contracts, connectors, sections of the profile.
    pub root: &'a Path,
    /// Where extract keeps its state.
    pub state: &'a Path,
    /// A folder, or `s3://<bucket>/<prefix>`.
    pub lake: &'a str,
    pub databases: &'a Databases,
    /// Ports on loopback.
    pub http: u16,
    pub grpc: u16,
    pub pg: u16,
    pub gate_token: &'a str,
    /// Name, role and token of everybody who may ask.
    pub tokens: &'a [(&'a str, &'a str, &'a str)],
    /// Further lines, `section.key = value`.
    pub more: &'a str,
}

impl Settings<'_> {
    /// As text.
    pub fn toml(&self) -> String {
        let Self { lake, databases, http, grpc, pg, more, .. } = self;
        let (root, state, gates) = (self.root.display(), self.state.display(), sha256(self.gate_token));
        let token = |(name, role, token): &(&str, &str, &str)| {
            let sha256 = sha256(token);
            format!("access.tokens.{name} = {{ role = \"{role}\", sha256 = \"{sha256}\" }}\n")
        };
        let source = |(id, connector, connection): (&str, &str, &str)| {
            format!("[sources.{id}]\nconnector = \"{connector}\"\nconnection = '{connection}'\npoll_s = 1\n")
        };
        let sources = [
            ("affairs", "student_affairs_zf", databases.student_affairs.as_str()),
            ("academic", "academic_zf", databases.academic.as_str()),
            ("logistics", "logistics_ecard", databases.logistics.as_str()),
        ];
        format!(
            r#"schemas_path = "{root}/schemas"
observe.http_listen = ""
lake.path = "{lake}"
extract.state_path = "{state}"
extract.connectors_path = "{root}/ingest/connectors"
extract.http_listen = "127.0.0.1:{http}"
extract.retry_ms_max = 1000
query.grpc_listen = "127.0.0.1:{grpc}"
query.pg_listen = "127.0.0.1:{pg}"
query.profile_dir = "{root}/query/profile"
query.profile_rest_ms_max = 5000
{tokens}{more}
{sources}[sources.gates]
connector = "access_hikvision"
token_sha256 = "{gates}"
"#,
            tokens = self.tokens.iter().map(token).collect::<String>(),
            sources = sources.map(source).concat(),
        )
    }
}

/// The platforms whose lists tell what no other source does: connectors, and names of their sources.
pub const LISTING: [&str; 2] = ["second_classroom", "service_desk"];

/// Them as sources, at the address of [`crate::vendors::Vendors`]. Passwords come from the environment of [`list_passwords`].
pub fn list_sources(url: &str) -> String {
    let source = |name| format!("\n[sources.{name}]\nconnector = \"{name}\"\nconnection = \"{url}\"\npoll_s = 1\n");
    LISTING.map(source).concat()
}

/// Names and values of variables.
pub fn list_passwords(token: &str) -> [(String, String); 2] {
    LISTING.map(|name| (format!("QUAD_SOURCES__{}__PASSWORD", name.to_uppercase()), token.to_string()))
}

/// The SHA-256 of a token in hex, as settings hold it.
pub fn sha256(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}
