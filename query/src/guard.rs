//! Quad answers questions and changes nothing. A parsed statement enters; yes, or an error that says why not, leaves.

use datafusion::sql::sqlparser::ast::Statement;

use crate::error::{Error, ErrorKind};

/// Whether a statement only asks.
///
/// # Errors
/// `ReadOnly` for one that would change data or tables, `Unsupported` for anything else that is not a question.
pub fn check(statement: &Statement) -> Result<(), Error> {
    match statement {
        Statement::Query(query) => check_query(query),
        Statement::Explain { statement, .. } => check(statement),
        Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowSchemas { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowVariable { .. } => Ok(()),
        other => Err(refuse(other)),
    }
}

fn check_query(query: &datafusion::sql::sqlparser::ast::Query) -> Result<(), Error> {
    use datafusion::sql::sqlparser::ast::SetExpr;
    match query.body.as_ref() {
        SetExpr::Insert(statement)
        | SetExpr::Update(statement)
        | SetExpr::Delete(statement)
        | SetExpr::Merge(statement) => Err(refuse(statement)),
        SetExpr::Select(select) if select.into.is_some() => Err(read_only("SELECT INTO")),
        _ => Ok(()),
    }
}

fn refuse(statement: &Statement) -> Error {
    // The first word names the statement and holds nothing of its text.
    let text = statement.to_string();
    let word = text.split_whitespace().next().unwrap_or_default().to_uppercase();
    match word.as_str() {
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "CREATE" | "DROP" | "ALTER" | "TRUNCATE" | "COPY" | "GRANT"
        | "REVOKE" | "COMMENT" | "VACUUM" | "ANALYZE" | "LOAD" | "UNLOAD" | "INSTALL" | "LOCK" | "REINDEX" => {
            read_only(&word)
        }
        _ => Error::new(ErrorKind::Unsupported, format!("{word} is not supported"))
            .with_hint("ask with SELECT, EXPLAIN or SHOW"),
    }
}

fn read_only(word: &str) -> Error {
    Error::new(ErrorKind::ReadOnly, format!("cannot execute {word}: quad is read-only here"))
        .with_hint("data enters through connectors; see `quad sources`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn only_questions_pass() {
        let kind = |sql: &str| {
            let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
            check(&statements[0]).err().map(|error| error.kind)
        };
        for sql in ["SELECT 1", "WITH a AS (SELECT 1) SELECT * FROM a", "EXPLAIN SELECT 1", "SHOW TABLES", "VALUES (1)"]
        {
            assert_eq!(kind(sql), None, "{sql}");
        }
        for sql in [
            "INSERT INTO a VALUES (1)",
            "UPDATE a SET b = 1",
            "DELETE FROM a",
            "CREATE TABLE a (b INT)",
            "DROP TABLE a",
            "COPY a TO '/tmp/a.csv'",
            "SELECT 1 INTO b",
            "EXPLAIN ANALYZE DELETE FROM a",
            "TRUNCATE a",
        ] {
            assert_eq!(kind(sql), Some(ErrorKind::ReadOnly), "{sql}");
        }
        for sql in ["SET a = 1", "CALL f()", "LISTEN a"] {
            assert_eq!(kind(sql), Some(ErrorKind::Unsupported), "{sql}");
        }
    }
}
