//! An answer on its way. A running plan enters, batches leave until the deadline; when it ends or is dropped, its place
//! and memory are free and one line of audit is written. The line never holds SQL, rows or identifiers.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::{Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::Prepared;
use super::plan::Plan;
use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::metrics::{Outcome, Request};
use crate::policy::Door;

/// Batches computed ahead of whoever reads the answer.
const BATCHES_AHEAD: usize = 2;

enum Event {
    Started(SchemaRef),
    Batch(RecordBatch),
}

/// A question being computed on the engine's threads. Dropping it stops the computation at its next pause.
pub(super) struct Running {
    events: mpsc::Receiver<Result<Event, Error>>,
    task: AbortHandle,
    schema: Option<SchemaRef>,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl Running {
    /// Plans and computes `plan`. The permit is held until the computation has really ended.
    pub(super) fn spawn(
        runtime: &Handle,
        state: Arc<SessionState>,
        plan: Plan,
        permit: OwnedSemaphorePermit,
        timeout: Duration,
    ) -> Self {
        let (sender, events) = mpsc::channel(BATCHES_AHEAD);
        let task = runtime.spawn(async move {
            let _permit = permit;
            if let Err(error) = compute(&state, &plan, &sender).await {
                // Nobody may be listening any more; then nobody misses it.
                let _ = sender.send(Err(error)).await;
            }
        });
        let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + timeout));
        Self { events, task: task.abort_handle(), schema: None, deadline, timeout }
    }

    /// Waits until the plan runs.
    pub(super) async fn started(&mut self) -> Result<(), Error> {
        match self.events.recv().await {
            Some(Ok(Event::Started(schema))) => {
                self.schema = Some(schema);
                Ok(())
            }
            Some(Err(error)) => Err(error),
            Some(Ok(Event::Batch(_))) | None => Err(Error::new(ErrorKind::Internal, "the question stopped by itself")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn compute(state: &SessionState, plan: &Plan, sender: &mpsc::Sender<Result<Event, Error>>) -> Result<(), Error> {
    let mut stream = execute_stream(plan.physical(state).await?, state.task_ctx())?;
    let started = Event::Started(stream.schema());
    if sender.send(Ok(started)).await.is_err() {
        return Ok(());
    }
    while let Some(batch) = stream.next().await {
        if sender.send(Ok(Event::Batch(batch?))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A stream of the batches of an answer.
pub struct Answer {
    schema: SchemaRef,
    running: Option<Running>,
    audit: Audit,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("audit", &self.audit).finish_non_exhaustive()
    }
}

impl Answer {
    /// The answer of a question that has started.
    pub(super) fn new(running: Running, audit: Audit) -> Self {
        let schema = running.schema.clone().expect("a started question has columns");
        Self { schema, running: Some(running), audit }
    }

    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The snapshot that answers.
    pub fn snapshot(&self) -> u64 {
        self.audit.snapshot
    }

    fn fail(&mut self, error: Error) -> Error {
        self.audit.failed(error.kind);
        self.running = None;
        error
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(running) = &mut this.running else { return Poll::Ready(None) };
        if running.deadline.as_mut().poll(ctx).is_ready() {
            let timeout = running.timeout;
            return Poll::Ready(Some(Err(this.fail(timed_out(timeout)))));
        }
        Poll::Ready(match futures::ready!(running.events.poll_recv(ctx)) {
            Some(Ok(Event::Batch(batch))) => {
                this.audit.request.rows += batch.num_rows();
                Some(Ok(batch))
            }
            Some(Ok(Event::Started(_))) => {
                Some(Err(this.fail(Error::new(ErrorKind::Internal, "a question started twice"))))
            }
            Some(Err(error)) => Some(Err(this.fail(error))),
            None => {
                this.audit.request.outcome = Outcome::Done;
                this.running = None;
                None
            }
        })
    }
}

/// The error of a question that took too long.
pub(super) fn timed_out(timeout: Duration) -> Error {
    Error::new(ErrorKind::Timeout, "canceling statement due to statement timeout")
        .with_hint(format!("the limit is {} s; ask for less, or raise query.query_timeout_s", timeout.as_secs_f64()))
}

/// What is recorded of a question; written when dropped.
#[derive(Debug)]
pub(super) struct Audit {
    principal: String,
    sql_hash: String,
    door: Door,
    pub(super) snapshot: u64,
    request: Request,
}

impl Audit {
    pub(super) fn new(principal: &Principal, prepared: &Prepared) -> Self {
        Self {
            principal: principal.name.clone(),
            sql_hash: prepared.sql_hash.clone(),
            door: prepared.door,
            snapshot: 0,
            request: Request::begin(prepared.door),
        }
    }

    pub(super) fn failed(&mut self, kind: ErrorKind) {
        self.request.outcome = Outcome::Failed(kind);
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        tracing::info!(
            target: "quad::audit",
            door = self.door.name(),
            principal = %self.principal,
            sql_hash = %self.sql_hash,
            snapshot = self.snapshot,
            rows = self.request.rows,
            took_ms = u64::try_from(self.request.took().as_millis()).unwrap_or(u64::MAX),
            outcome = self.request.outcome.name(),
            "query"
        );
    }
}
