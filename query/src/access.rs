//! Who is asking. A bearer token enters, a [`Principal`] leaves. What a principal may do is decided in `policy`.
//!
//! Only the SHA-256 of each token is known here, compared in constant time; a token itself is never kept or logged.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The `[access]` section of the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// Ask every caller for a token. Switch off only where the network itself is the guard: everyone is then `admin`.
    pub enabled: bool,
    /// Tokens by name. The name is what logs and the PostgreSQL user say.
    pub tokens: BTreeMap<String, TokenSettings>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self { enabled: true, tokens: BTreeMap::new() }
    }
}

/// One token of [`AccessSettings`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    pub role: Role,
    /// SHA-256 of the token, 64 hexadecimal digits.
    pub sha256: String,
}

/// What a caller is to the university.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the platform: everything.
    Admin,
    /// Data engineer or analyst: SQL.
    Analyst,
    /// 辅导员: profiles of students.
    Counselor,
    /// A campus application that asks for profiles on its users' behalf.
    App,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub name: String,
    pub role: Role,
}

/// The tokens that are accepted.
#[derive(Debug, Clone)]
pub struct Access {
    /// `None`: access control is switched off.
    tokens: Option<Vec<(Principal, [u8; 32])>>,
}

impl Access {
    /// Checks the settings as a whole.
    ///
    /// # Errors
    /// Access control on but no token, or a hash that is not one.
    pub fn new(settings: &AccessSettings) -> Result<Self, Error> {
        if !settings.enabled {
            return Ok(Self { tokens: None });
        }
        if settings.tokens.is_empty() {
            let message = "access.enabled is true, but access.tokens has no token";
            return Err(Error::settings(message).with_hint("make one with `quad token NAME --role ROLE`"));
        }
        let mut tokens = Vec::with_capacity(settings.tokens.len());
        for (name, token) in &settings.tokens {
            let hash = parse_sha256(&token.sha256).ok_or_else(|| {
                Error::settings(format!("access.tokens.{name}.sha256 is not 64 hexadecimal digits"))
                    .with_hint("make a token with `quad token NAME --role ROLE`")
            })?;
            tokens.push((Principal { name: name.clone(), role: token.role }, hash));
        }
        Ok(Self { tokens: Some(tokens) })
    }

    /// Whether callers must show a token.
    pub fn is_enabled(&self) -> bool {
        self.tokens.is_some()
    }

    /// The caller who holds `token`; nobody when the token is wrong.
    pub fn authenticate(&self, token: Option<&str>) -> Option<Principal> {
        let Some(tokens) = &self.tokens else { return Some(anonymous()) };
        let hash = sha256(token?);
        // Every token is compared, so that the time says nothing about which one was near.
        let mut found = None;
        for (principal, expected) in tokens {
            if is_equal(expected, &hash) {
                found = Some(principal);
            }
        }
        found.cloned()
    }

    /// As [`Access::authenticate`], for doors where the caller also gives a name: both must fit.
    pub fn authenticate_named(&self, name: &str, token: &str) -> Option<Principal> {
        if !self.is_enabled() {
            return Some(anonymous());
        }
        self.authenticate(Some(token)).filter(|principal| principal.name == name)
    }
}

fn anonymous() -> Principal {
    Principal { name: "anonymous".to_string(), role: Role::Admin }
}

fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

fn is_equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tokens: &[(&str, Role, &str)]) -> Access {
        let tokens = tokens.iter().map(|(name, role, token)| {
            let sha256 = sha256(token).iter().map(|byte| format!("{byte:02x}")).collect();
            (name.to_string(), TokenSettings { role: *role, sha256 })
        });
        Access::new(&AccessSettings { enabled: true, tokens: tokens.collect() }).unwrap()
    }

    #[test]
    fn a_token_names_its_holder() {
        let access = access(&[("ann", Role::Analyst, "secret-a"), ("bob", Role::Counselor, "secret-b")]);
        let name = |token| access.authenticate(token).map(|principal| principal.name);
        assert_eq!(name(Some("secret-b")).as_deref(), Some("bob"));
        assert_eq!(name(Some("secret-c")), None);
        assert_eq!(name(None), None);
        assert!(access.authenticate_named("ann", "secret-a").is_some());
        assert!(access.authenticate_named("ann", "secret-b").is_none());
    }

    #[test]
    fn access_without_a_token_is_refused_unless_switched_off() {
        let error = Access::new(&AccessSettings::default()).unwrap_err();
        assert_eq!(error.kind, crate::error::ErrorKind::Settings);
        let off = Access::new(&AccessSettings { enabled: false, tokens: BTreeMap::new() }).unwrap();
        assert_eq!(off.authenticate(None).unwrap().role, Role::Admin);
    }

    #[test]
    fn a_hash_must_be_a_hash() {
        let token = TokenSettings { role: Role::App, sha256: "abc".into() };
        let settings = AccessSettings { enabled: true, tokens: [("app".to_string(), token)].into() };
        assert!(Access::new(&settings).unwrap_err().message.contains("access.tokens.app.sha256"));
    }
}
