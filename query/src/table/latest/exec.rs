//! [`LatestExec`]: versions enter, partitioned by key; the latest of each key leaves when all have been seen.
//!
//! Keys and orders are compared as encoded rows (arrow-row). Batches are kept as they came and filtered at the end, so that
//! a table without repeats is copied once and never sorted. Memory is accounted for; without enough of it, the question
//! fails.

use std::fmt;
use std::sync::Arc;

use ahash::RandomState;
use arrow::array::BooleanArray;
use arrow::array::{Array, AsArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::arrow;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hashbrown::HashTable;

use super::{DELETE, sort_options};

/// The physical operator. Columns are places in the input.
#[derive(Debug)]
pub struct LatestExec {
    input: Arc<dyn ExecutionPlan>,
    key: Vec<usize>,
    by: Vec<usize>,
    op: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LatestExec {
    pub fn new(input: Arc<dyn ExecutionPlan>, key: Vec<usize>, by: Vec<usize>, op: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            input.output_partitioning().clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, key, by, op, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    fn names(&self, columns: &[usize]) -> String {
        let schema = self.input.schema();
        let names: Vec<&str> = columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
        names.join(", ")
    }
}

impl DisplayAs for LatestExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "LatestExec: key=[{}], by=[{}]", self.names(&self.key), self.names(&self.by))
    }
}

impl ExecutionPlan for LatestExec {
    fn name(&self) -> &'static str {
        "LatestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let schema = self.input.schema();
        let column =
            |place: &usize| Arc::new(Column::new(schema.field(*place).name(), *place)) as Arc<dyn PhysicalExpr>;
        vec![Distribution::KeyPartitioned(self.key.iter().map(column).collect())]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(Self::new(input, self.key.clone(), self.by.clone(), self.op)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let options =
            ReplaceChildrenOptions::new(datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let schema = self.input.schema();
        let fields = |columns: &[usize], options| -> Vec<SortField> {
            let data_type = |column: &usize| schema.field(*column).data_type().clone();
            columns.iter().map(|column| SortField::new_with_options(data_type(column), options)).collect()
        };
        let reservation = MemoryConsumer::new(format!("LatestExec[{partition}]")).register(context.memory_pool());
        let versions = Versions {
            key: self.key.clone(),
            by: self.by.clone(),
            op: self.op,
            keys: RowConverter::new(fields(&self.key, arrow::compute::SortOptions::default()))?,
            orders: RowConverter::new(fields(&self.by, sort_options()))?,
            batches: Vec::new(),
            latest: HashTable::new(),
            random: RandomState::new(),
            reservation,
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let output = stream::once(versions.read(input)).try_flatten();
        let output = output.inspect(move |batch| {
            if let Ok(batch) = batch {
                metrics.record_output(batch.num_rows());
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output.boxed())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// A batch as it came, with its keys and orders encoded.
struct Seen {
    batch: RecordBatch,
    keys: Rows,
    orders: Rows,
}

/// A version: its batch and its row in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: u32,
    row: u32,
}

/// All versions of one partition.
struct Versions {
    key: Vec<usize>,
    by: Vec<usize>,
    op: usize,
    keys: RowConverter,
    orders: RowConverter,
    batches: Vec<Seen>,
    /// The latest version of each key so far.
    latest: HashTable<Place>,
    random: RandomState,
    reservation: MemoryReservation,
}

impl Versions {
    /// Reads everything, then gives the batches of what is latest.
    async fn read(
        mut self,
        mut input: SendableRecordBatchStream,
    ) -> Result<impl futures::Stream<Item = Result<RecordBatch>>> {
        while let Some(batch) = input.next().await {
            self.add(batch?)?;
        }
        drop(input);
        let masks = self.masks();
        let reservation = self.reservation;
        let batches = self.batches.into_iter().zip(masks).map(move |(seen, mask)| {
            let _held = &reservation;
            match mask.true_count() {
                0 => Ok(None),
                count if count == mask.len() => Ok(Some(seen.batch)),
                _ => Ok(Some(filter_record_batch(&seen.batch, &mask)?)),
            }
        });
        Ok(stream::iter(batches.filter_map(Result::transpose)))
    }

    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let columns =
            |places: &[usize]| -> Vec<_> { places.iter().map(|place| batch.column(*place).clone()).collect() };
        let keys = self.keys.convert_columns(&columns(&self.key))?;
        let orders = self.orders.convert_columns(&columns(&self.by))?;
        // A place and its control byte, twice for a table that is half full.
        let table = batch.num_rows() * 2 * (size_of::<Place>() + 1);
        self.reservation.try_grow(batch.get_array_memory_size() + keys.size() + orders.size() + table)?;
        let number = u32::try_from(self.batches.len()).expect("fewer than 2³² batches");
        self.batches.push(Seen { batch, keys, orders });
        let (batches, random) = (&self.batches, &self.random);
        let key = |place: &Place| batches[place.batch as usize].keys.row(place.row as usize);
        let order = |place: &Place| batches[place.batch as usize].orders.row(place.row as usize);
        let rows = batches.last().map_or(0, |seen| seen.keys.num_rows());
        for row in 0..u32::try_from(rows).expect("batches are small") {
            let place = Place { batch: number, row };
            let own = key(&place);
            let hash = random.hash_one(own.data());
            let entry = self.latest.entry(hash, |other| key(other) == own, |other| random.hash_one(key(other).data()));
            match entry {
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert(place);
                }
                // Encoded in descending order: the smaller one is the later one.
                hashbrown::hash_table::Entry::Occupied(mut known) => {
                    if order(&place) < order(known.get()) {
                        *known.get_mut() = place;
                    }
                }
            }
        }
        Ok(())
    }

    /// For each batch, which rows are the latest of their key and not deletes.
    fn masks(&self) -> Vec<BooleanArray> {
        let mut masks: Vec<BooleanBufferBuilder> = self
            .batches
            .iter()
            .map(|seen| {
                let mut mask = BooleanBufferBuilder::new(seen.batch.num_rows());
                mask.append_n(seen.batch.num_rows(), false);
                mask
            })
            .collect();
        for place in &self.latest {
            let op = self.batches[place.batch as usize].batch.column(self.op);
            let is_delete = match op.as_string_opt::<i32>() {
                Some(op) => op.is_valid(place.row as usize) && op.value(place.row as usize) == DELETE,
                None => op.as_string_view().value(place.row as usize) == DELETE,
            };
            if !is_delete {
                masks[place.batch as usize].set_bit(place.row as usize, true);
            }
        }
        masks.into_iter().map(|mut mask| BooleanArray::new(mask.finish(), None)).collect()
    }
}
