//! Which columns of a table say whose a row is. A contract enters, the SQL of its person leaves.

use schemas::Contract;

/// Columns of a 学号 or 学工号 that say whose a row is, in this order: who it is about goes before who works on it.
const NUMBERS: [&str; 5] = ["student_no", "person_no", "reporter_no", "host_no", "staff_no"];

/// How a table's rows are resolved, by the model's names of identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonBy {
    /// 学号 or 学工号, in the named column.
    Number(&'static str),
    /// 一卡通 account and medium.
    Card,
    /// 门禁 person number and physical card (R8).
    Access,
    /// The table is about no one.
    Nobody,
}

impl PersonBy {
    /// What `contract`'s rows are resolved by.
    pub fn of(contract: &Contract) -> Self {
        let has = |name| contract.field(name).is_some();
        if has("access_person_no") && has("card_physical_no") {
            Self::Access
        } else if let Some(column) = NUMBERS.into_iter().find(|name| has(name)) {
            Self::Number(column)
        } else if has("card_no") && has("card_seq") {
            Self::Card
        } else {
            Self::Nobody
        }
    }

    /// The ways in which `sql` resolves by functions.
    pub fn called(sql: &str) -> Vec<Self> {
        let sql = sql.to_ascii_lowercase();
        let is_called =
            |function: &str| ["person_by_", "link_by_"].iter().any(|what| sql.contains(&format!("{what}{function}")));
        let ways = [("number", Self::Number("")), ("card", Self::Card), ("access", Self::Access)];
        ways.into_iter().filter(|(function, _)| is_called(function)).map(|(_, by)| by).collect()
    }

    /// The columns that it is resolved by.
    pub fn identifiers(self) -> &'static [&'static str] {
        match self {
            Self::Number(column) => NUMBERS.iter().find(|name| **name == column).map_or(&[], std::slice::from_ref),
            Self::Card => &["card_no", "card_seq"],
            Self::Access => &["access_person_no", "card_physical_no"],
            Self::Nobody => &[],
        }
    }

    /// The SQL of `person_id` and `link_status` at `at`, an expression of type timestamp.
    pub fn sql(self, at: &str) -> [String; 2] {
        let function = match self {
            Self::Number(_) => "number",
            Self::Card => "card",
            Self::Access => "access",
            Self::Nobody => return ["CAST(NULL AS VARCHAR)".to_string(), "CAST(NULL AS VARCHAR)".to_string()],
        };
        let identifiers = self.identifiers().join(", ");
        ["person", "link"].map(|what| format!("{what}_by_{function}({identifiers}, {at})"))
    }
}
