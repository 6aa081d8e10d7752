//! Questions of Quad's own. SQL enters, whole answers leave. What may be seen of them is decided before they are asked.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use datafusion::physical_plan::collect;
use datafusion::scalar::ScalarValue;
use tokio::task::JoinSet;

use super::{Engine, Pin, answer};
use crate::error::{Error, ErrorKind};

/// A question, with its `$1`, `$2`, … in order.
#[derive(Debug, Clone)]
pub struct Question {
    pub sql: String,
    pub parameters: Vec<ScalarValue>,
}

impl Engine {
    /// Asks a question of ours and collects the whole answer. No policy, no audit, no deadline: never for a caller's SQL.
    ///
    /// # Errors
    /// What DataFusion finds.
    pub async fn ask(&self, pin: &Pin, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        ask(pin, Question { sql: sql.to_string(), parameters: Vec::new() }).await
    }

    /// Asks questions on behalf of a caller, one after the other, for the door to answer from: they take a caller's place
    /// and time together. Policy, audit and a limit on the rows are the door's.
    ///
    /// # Errors
    /// `Busy` when there is no place in time, `Timeout`, and what DataFusion finds.
    pub async fn ask_all(&self, pin: Arc<Pin>, questions: Vec<Question>) -> Result<Vec<Vec<RecordBatch>>, Error> {
        let place = self.place().await?;
        // Dropping the set stops what runs in it.
        let mut running = JoinSet::new();
        let asking = async move {
            let _place = place;
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions {
                answers.push(ask(&pin, question).await?);
            }
            Ok::<_, Error>(answers)
        };
        running.spawn_on(asking, self.runtime());
        let answered = tokio::time::timeout(self.timeout, running.join_next()).await;
        match answered.map_err(|_| answer::timed_out(self.timeout))? {
            Some(Ok(answers)) => answers,
            _ => Err(Error::new(ErrorKind::Internal, "the question stopped by itself")),
        }
    }
}

async fn ask(pin: &Pin, question: Question) -> Result<Vec<RecordBatch>, Error> {
    let plan = pin.state.create_logical_plan(&question.sql).await?;
    let plan = match question.parameters.is_empty() {
        true => plan,
        false => plan.with_param_values(ParamValues::from(question.parameters))?,
    };
    let plan = pin.state.create_physical_plan(&plan).await?;
    Ok(collect(plan, pin.state.task_ctx()).await?)
}
