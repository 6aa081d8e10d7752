//! What a caller may see: the one place that decides it, for every door.
//!
//! A principal and what it asks for enter; yes, no, or withheld leave. Today this is the role's matrix; row and column
//! policy, scopes and minimum group sizes will come here, and nowhere else.

use schemas::{Contract, Field};

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
    ExplainItem,
    GetTimeline,
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
            Self::ExplainItem => "explain_item",
            Self::GetTimeline => "get_timeline",
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
        // Of many persons, or the rows behind what is told of one.
        Door::ListProfiles | Door::WatchProfiles | Door::ExplainItem | Door::GetTimeline => {
            &[Role::Admin, Role::Counselor]
        }
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

/// Whether an item of `class` is kept from `principal` who reads profiles over SQL, which says no purpose.
pub fn is_withheld_from_sql(principal: &Principal, class: u8) -> bool {
    is_withheld(principal, Purpose::default(), class)
}

/// Whether an item of `class` is kept out of the profile's tables in the lake: whoever can read files is asked for no role and no
/// purpose, and finds there what an analyst finds over SQL.
pub fn is_withheld_from_files(class: u8) -> bool {
    is_withheld_from_sql(&Principal { name: String::new(), role: Role::Analyst }, class)
}

/// What `principal` may see of the rows of a table that are one person's, for `purpose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows<'a> {
    /// Nothing, not even when something happened: the time of an event is of class 3 itself, or the table is not for the role.
    Withheld,
    /// All but these columns.
    Without(Vec<&'a str>),
}

/// See [`Rows`].
pub fn rows<'a>(principal: &Principal, purpose: Purpose, contract: &'a Contract) -> Rows<'a> {
    let withheld = |field: &&Field| is_withheld(principal, purpose, field.class as u8);
    let columns: Vec<&str> = contract.fields.iter().filter(withheld).map(|field| field.name.as_str()).collect();
    let is_trail = columns.contains(&contract.event_time.as_str());
    match is_trail || read_table(principal, &contract.domain, &contract.table).is_err() {
        true => Rows::Withheld,
        false => Rows::Without(columns),
    }
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
                Door::ExplainItem,
                Door::GetTimeline,
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
            Admin: FlightSql Postgres GetProfile BatchGetProfiles ListProfiles ResolveIdentity DescribeProfile WatchProfiles ManageProfiles ListReviews DecideIdentity IdentityHistory ExplainItem GetTimeline; class 3 for safety
            Analyst: FlightSql Postgres DescribeProfile; class 3 never
            Counselor: GetProfile BatchGetProfiles ListProfiles DescribeProfile WatchProfiles ExplainItem GetTimeline; class 3 for safety
            App: GetProfile BatchGetProfiles ResolveIdentity DescribeProfile; class 3 never
        "#]]
        .assert_eq(&matrix);
    }

    #[test]
    fn rows_are_withheld_by_field_and_as_a_whole() {
        let contracts = crate::fixture::contracts();
        let mut out = String::new();
        for table in ["student_affairs.student_base", "access_control.access_event", "platform.dead_letter"] {
            for (role, purpose) in [
                (Role::Counselor, Purpose::DailyWork),
                (Role::Counselor, Purpose::Safety),
                (Role::App, Purpose::Safety),
                (Role::Admin, Purpose::Safety),
            ] {
                let rows = rows(&principal(role), purpose, contracts.get(table).unwrap());
                out += &format!("{table} {role:?} {purpose:?}: {rows:?}\n");
            }
        }
        expect![[r#"
            student_affairs.student_base Counselor DailyWork: Without(["id_doc_hash"])
            student_affairs.student_base Counselor Safety: Without([])
            student_affairs.student_base App Safety: Without(["id_doc_hash"])
            student_affairs.student_base Admin Safety: Without([])
            access_control.access_event Counselor DailyWork: Withheld
            access_control.access_event Counselor Safety: Without([])
            access_control.access_event App Safety: Withheld
            access_control.access_event Admin Safety: Without([])
            platform.dead_letter Counselor DailyWork: Withheld
            platform.dead_letter Counselor Safety: Withheld
            platform.dead_letter App Safety: Withheld
            platform.dead_letter Admin Safety: Without([])
        "#]]
        .assert_eq(&out);
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
        assert_eq!([2, 3].map(is_withheld_from_files), [false, true]);
    }
}
