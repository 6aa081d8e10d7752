//! What a caller may see: the one place that decides it, for every door.
//!
//! A principal and what it asks for enter; yes, no, or withheld leave. Today this is the role's matrix; row and column
//! policy, scopes and minimum group sizes will come here, and nowhere else.

use crate::access::{Principal, Role};
use crate::error::{Error, ErrorKind};

/// A way into Quad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// SQL over Flight SQL.
    FlightSql,
    /// SQL over the PostgreSQL wire.
    Postgres,
    GetProfile,
    BatchGetProfiles,
    ListProfiles,
    ResolveIdentity,
    DescribeProfile,
    WatchProfiles,
    /// Upkeep of profiles and their definitions.
    ManageProfiles,
    ListReviews,
    /// Confirming, rejecting, merging, splitting and undoing.
    DecideIdentity,
    IdentityHistory,
}

impl Door {
    /// As logs, metrics and traces name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlightSql => "flight_sql",
            Self::Postgres => "postgres",
            Self::GetProfile => "get_profile",
            Self::BatchGetProfiles => "batch_get_profiles",
            Self::ListProfiles => "list_profiles",
            Self::ResolveIdentity => "resolve_identity",
            Self::DescribeProfile => "describe_profile",
            Self::WatchProfiles => "watch_profiles",
            Self::ManageProfiles => "manage_profiles",
            Self::ListReviews => "list_reviews",
            Self::DecideIdentity => "decide_identity",
            Self::IdentityHistory => "identity_history",
        }
    }

    pub fn is_sql(self) -> bool {
        matches!(self, Self::FlightSql | Self::Postgres)
    }
}

/// What a profile is read for (处理目的).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    #[default]
    DailyWork,
    Safety,
    StudyHelp,
    Aid,
    Statistics,
}

/// Whether `principal` may come in by `door`.
///
/// # Errors
/// [`ErrorKind::Denied`], naming the roles that may.
pub fn enter(principal: &Principal, door: Door) -> Result<(), Error> {
    let roles: &[Role] = match door {
        Door::FlightSql | Door::Postgres => &[Role::Admin, Role::Analyst],
        Door::GetProfile | Door::BatchGetProfiles => &[Role::Admin, Role::Counselor, Role::App],
        Door::ListProfiles | Door::WatchProfiles => &[Role::Admin, Role::Counselor],
        Door::ResolveIdentity => &[Role::Admin, Role::App],
        Door::ManageProfiles => &[Role::Admin],
        Door::ListReviews | Door::DecideIdentity | Door::IdentityHistory => &[Role::Admin],
        // The catalogue tells of no person.
        Door::DescribeProfile => &[Role::Admin, Role::Analyst, Role::Counselor, Role::App],
    };
    if roles.contains(&principal.role) {
        return Ok(());
    }
    let role = format!("{:?}", principal.role).to_lowercase();
    let message = format!("role {role} may not use {door:?}");
    let allowed: Vec<_> = roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    Err(Error::new(ErrorKind::Denied, message).with_hint(format!("use a token of role {}", allowed.join(" or "))))
}

/// Whether `principal` may read the table `schema.table`.
///
/// # Errors
/// [`ErrorKind::Denied`].
pub fn read_table(principal: &Principal, schema: &str, table: &str) -> Result<(), Error> {
    // Dead letters hold source rows as they came: more than any analyst needs.
    if principal.role == Role::Admin || schema != "platform" {
        return Ok(());
    }
    let message = format!("permission denied for table {schema}.{table}");
    Err(Error::new(ErrorKind::Denied, message).with_hint("tables of schema platform need role admin"))
}

/// Whether an item of `class` is kept from `principal` who reads it for `purpose`.
pub fn is_withheld(principal: &Principal, purpose: Purpose, class: u8) -> bool {
    let may_see_trails = matches!(principal.role, Role::Admin | Role::Counselor) && purpose == Purpose::Safety;
    class >= 3 && !may_see_trails
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn principal(role: Role) -> Principal {
        Principal { name: "someone".into(), role }
    }

    #[test]
    fn the_matrix() {
        let mut matrix = String::new();
        for role in [Role::Admin, Role::Analyst, Role::Counselor, Role::App] {
            matrix += &format!("{role:?}:");
            for door in [
                Door::FlightSql,
                Door::Postgres,
                Door::GetProfile,
                Door::BatchGetProfiles,
                Door::ListProfiles,
                Door::ResolveIdentity,
                Door::DescribeProfile,
                Door::WatchProfiles,
                Door::ManageProfiles,
                Door::ListReviews,
                Door::DecideIdentity,
                Door::IdentityHistory,
            ] {
                if enter(&principal(role), door).is_ok() {
                    matrix += &format!(" {door:?}");
                }
            }
            let withheld = |purpose| is_withheld(&principal(role), purpose, 3);
            matrix += match (withheld(Purpose::DailyWork), withheld(Purpose::Safety)) {
                (true, true) => "; class 3 never\n",
                (true, false) => "; class 3 for safety\n",
                _ => "; class 3 always\n",
            };
        }
        expect![[r#"
            Admin: FlightSql Postgres GetProfile BatchGetProfiles ListProfiles ResolveIdentity DescribeProfile WatchProfiles ListReviews DecideIdentity IdentityHistory; class 3 for safety
            Analyst: FlightSql Postgres DescribeProfile; class 3 never
            Counselor: GetProfile BatchGetProfiles ListProfiles DescribeProfile WatchProfiles; class 3 for safety
            App: GetProfile BatchGetProfiles ResolveIdentity DescribeProfile; class 3 never
        "#]]
        .assert_eq(&matrix);
    }

    #[test]
    fn only_the_admin_reads_dead_letters() {
        assert!(read_table(&principal(Role::Admin), "platform", "dead_letter").is_ok());
        let error = read_table(&principal(Role::Analyst), "platform", "dead_letter").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(read_table(&principal(Role::Analyst), "academic", "grade").is_ok());
    }

    #[test]
    fn items_below_class_3_are_never_withheld() {
        assert!(!is_withheld(&principal(Role::App), Purpose::DailyWork, 2));
    }
}
