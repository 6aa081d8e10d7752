//! Who is who, as tables: `identity.person` and `identity.identifier_link`. The pinned index enters, rows leave.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use schemas::record::timestamp_type;

use crate::identity::index::{Index, OPEN};
use crate::snapshot::Pinned;

/// The SQL of `identity.person` over `person_rows` and the students' table: names and documents are the present ones.
pub const PERSON_SQL: &str = "\
    SELECT p.person_id, s.name, s.sex_code, s.birth_date, s.id_doc_type, s.id_doc_hash, p.person_kind, p.student_no, \
    p.link_status FROM person_rows AS p LEFT JOIN student_base AS s ON s.student_no = p.student_no";

/// Which rows of the index a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Persons,
    Links,
}

/// Rows of the pinned snapshot's index.
#[derive(Debug)]
pub struct IdentityRows {
    of: Of,
    schema: SchemaRef,
}

impl IdentityRows {
    pub fn new(of: Of) -> Self {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        let fields = match of {
            Of::Persons => {
                vec![
                    text("person_id", false),
                    text("person_kind", false),
                    text("student_no", true),
                    text("link_status", false),
                ]
            }
            Of::Links => vec![
                text("id_type", false),
                text("id_scope", false),
                text("id_value", false),
                text("person_id", true),
                Field::new("valid_from", timestamp_type(), false),
                Field::new("valid_to", timestamp_type(), true),
                text("rule_id", false),
                text("link_status", false),
            ],
        };
        Self { of, schema: Arc::new(Schema::new(fields)) }
    }

    fn rows(&self, index: &Index) -> Result<RecordBatch> {
        let batch = match self.of {
            Of::Persons => persons(index, self.schema.clone()),
            Of::Links => links(index, self.schema.clone()),
        };
        Ok(batch?)
    }
}

#[async_trait]
impl TableProvider for IdentityRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshot = Pinned::of(session.config_options())?;
        let rows = self.rows(&snapshot.identity)?;
        MemTable::try_new(self.schema.clone(), vec![vec![rows]])?.scan(session, projection, filters, limit).await
    }
}

fn persons(index: &Index, schema: SchemaRef) -> std::result::Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let persons = &index.persons;
    let ids = StringArray::from_iter_values(persons.iter().map(|person| &*person.id));
    let kinds = persons.iter().map(|person| if person.is_student { "student" } else { "staff" });
    let numbers: StringArray =
        persons.iter().map(|person| person.student_nos.first().map(|number| &**number)).collect();
    let status = persons.iter().map(|person| person.status.name());
    let (kinds, status) = (StringArray::from_iter_values(kinds), StringArray::from_iter_values(status));
    RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(kinds), Arc::new(numbers), Arc::new(status)])
}

fn links(index: &Index, schema: SchemaRef) -> std::result::Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let links = index.links();
    let text = |of: fn(&(crate::identity::IdType, &str, crate::identity::index::Span)) -> &'static str| {
        Arc::new(StringArray::from_iter_values(links.iter().map(of)))
    };
    let values = StringArray::from_iter_values(links.iter().map(|(_, value, _)| *value));
    let persons: StringArray = links
        .iter()
        .map(|(_, _, span)| {
            let is_named = span.status != crate::identity::LinkStatus::Disputed;
            is_named.then(|| &*index.person(span.person).id)
        })
        .collect();
    let from = TimestampMicrosecondArray::from_iter_values(links.iter().map(|(_, _, span)| span.from));
    let to: TimestampMicrosecondArray = links.iter().map(|(_, _, span)| (span.to != OPEN).then_some(span.to)).collect();
    RecordBatch::try_new(
        schema,
        vec![
            text(|(id_type, _, _)| id_type.name()),
            text(|(id_type, _, _)| id_type.scope()),
            Arc::new(values),
            Arc::new(persons),
            Arc::new(from.with_timezone("UTC")),
            Arc::new(to.with_timezone("UTC")),
            text(|(_, _, span)| span.rule.name()),
            text(|(_, _, span)| span.status.name()),
        ],
    )
}
