//! Following the log: one thread reads all topics, decodes and checks as landing does, and hands rows to the tail.
//!
//! It begins where lake and tail reach, and begins anew there after any failure, when a topic has been made since, and
//! after the tail was full. A partition whose next record is gone is not followed until landing is beyond the gap.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::{Contract, Decoder, Sieve};
use tokio::runtime::Handle;
use tokio::sync::watch;
use topic::{Consumer, Extent, Position, Subscription};

use super::held::Start;
use super::{Positions, Tail};
use crate::error::{Error, ErrorKind};

/// Records in one poll: what is shown at once.
const POLL_RECORDS_MAX: usize = 4096;
const POLL: Duration = Duration::from_millis(20);

/// How often topics are looked for that were not there before, and gaps that landing has passed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Before a failure is tried again, and while the tail is full.
const PAUSE: Duration = Duration::from_millis(500);

/// The share of its bytes that a full tail must come down to.
const FULL_LEFT: f64 = 0.75;

/// A topic on its way into the tail.
struct Inlet {
    table: String,
    topic: String,
    decoder: Decoder,
    sieve: Sieve,
    next: Positions,
}

/// What is to be read.
struct Opened {
    inlets: Vec<Inlet>,
    positions: Vec<Position>,
    ends: Vec<End>,
}

/// Where a partition ended when it was opened.
struct End {
    table: String,
    partition: i32,
    offset: i64,
}

impl End {
    fn is_reached(&self, tail: &Tail) -> bool {
        let tables = tail.tables();
        let position = tables.get(&self.table).and_then(|held| held.position(self.partition));
        position.unwrap_or(0) >= self.offset
    }
}

pub fn run(tail: &Tail, stop: &watch::Receiver<bool>) {
    let mut is_failing = false;
    let mut gaps = BTreeSet::new();
    while !*stop.borrow() {
        match follow(tail, stop, &mut gaps) {
            Ok(()) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(message = %error.message, source, "could not follow the log; answers come from the lake");
                }
                is_failing = true;
                tail.catch_up();
                pause(stop, PAUSE);
            }
        }
    }
}

/// Reads until there is a reason to begin anew.
fn follow(tail: &Tail, stop: &watch::Receiver<bool>, gaps: &mut BTreeSet<(String, i32)>) -> Result<(), Error> {
    let Some(Opened { mut inlets, positions, mut ends }) = open(tail, gaps)? else {
        pause(stop, PAUSE);
        return Ok(());
    };
    let by_topic: HashMap<String, usize> =
        inlets.iter().enumerate().map(|(at, inlet)| (inlet.topic.clone(), at)).collect();
    if positions.is_empty() {
        tail.catch_up();
        pause(stop, PAUSE);
        return Ok(());
    }
    let mut consumer = tail.log.consumer(Subscription::Assign(positions)).map_err(unfollowed)?;
    let mut looked = Instant::now();
    while !*stop.borrow() {
        read(tail, &mut *consumer, &mut inlets, &by_topic, gaps)?;
        if !tail.has_caught_up() {
            ends.retain(|end| !end.is_reached(tail));
            if ends.is_empty() || tail.is_full() {
                tail.catch_up();
            }
        }
        if tail.is_full() {
            drop(consumer);
            tracing::warn!(
                bytes = tail.bytes(),
                "the tail is full: answers reach to where it was read until landing has caught up; see query.tail_bytes_max"
            );
            while tail.bytes() as f64 > tail.bytes_max as f64 * FULL_LEFT && !*stop.borrow() {
                pause(stop, PAUSE);
            }
            return Ok(());
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            if is_gap_passed(tail, gaps)? || is_topic_new(tail, &by_topic)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// An inlet for every topic that is there, where to read each partition, and where it ends; none before the lake has been
/// asked.
fn open(tail: &Tail, gaps: &mut BTreeSet<(String, i32)>) -> Result<Option<Opened>, Error> {
    let (mut there, mut positions, mut ends, mut is_ready) = (Vec::new(), Vec::new(), Vec::new(), true);
    gaps.clear();
    for contract in tail.contracts.iter() {
        let Some(starts) = starts(tail, contract)? else { continue };
        let topic = contract.topic();
        for (Extent { partition, high, .. }, start) in starts {
            match start {
                Start::At(offset) => {
                    tail.tables().entry(contract.name()).or_default().begin(partition, offset);
                    positions.push(Position { topic: topic.clone(), partition, offset });
                    ends.push(End { table: contract.name(), partition, offset: high });
                }
                Start::Gap => _ = gaps.insert((topic.clone(), partition)),
                Start::Unknown => is_ready = false,
            }
        }
        there.push(contract);
    }
    if !is_ready {
        return Ok(None);
    }
    let inlets = there.into_iter().map(|contract| inlet(tail, contract)).collect::<Result<_, _>>()?;
    Ok(Some(Opened { inlets, positions, ends }))
}

/// Where each partition of a table's topic begins; `None` when there is no such topic yet.
fn starts(tail: &Tail, contract: &Contract) -> Result<Option<Vec<(Extent, Start)>>, Error> {
    let extents = match tail.log.extents(&contract.topic()) {
        Ok(extents) => extents,
        Err(error) if error.kind == topic::ErrorKind::UnknownTopic => return Ok(None),
        Err(error) => return Err(unfollowed(error)),
    };
    let mut tables = tail.tables();
    let held = tables.entry(contract.name()).or_default();
    held.meet(extents.len());
    let start = |extent: Extent| {
        let start = held.start(&extent);
        (extent, start)
    };
    Ok(Some(extents.into_iter().map(start).collect()))
}

fn inlet(tail: &Tail, contract: &Arc<Contract>) -> Result<Inlet, Error> {
    let decoder = Handle::current().block_on(tail.lake.decoder(contract));
    let decoder = decoder.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error))?;
    let sieve = Sieve::new(contract.clone(), tail.timezone).map_err(unreadable)?;
    Ok(Inlet { table: contract.name(), topic: contract.topic(), decoder, sieve, next: Positions::new() })
}

/// One poll, and what it gave into the tail.
fn read(
    tail: &Tail,
    consumer: &mut dyn Consumer,
    inlets: &mut [Inlet],
    by_topic: &HashMap<String, usize>,
    gaps: &mut BTreeSet<(String, i32)>,
) -> Result<(), Error> {
    let mut current = 0;
    let mut failure = None;
    let polled = consumer.poll(POLL_RECORDS_MAX, POLL, &mut |record| {
        if inlets[current].topic != record.topic {
            match by_topic.get(record.topic) {
                Some(&at) => current = at,
                None => return,
            }
        }
        let inlet = &mut inlets[current];
        inlet.next.insert(record.partition, record.offset + 1);
        if let Err(error) = inlet.decoder.push(record.partition, record.offset, record.value) {
            failure = Some(error);
        }
    });
    if let Some(error) = failure {
        return Err(unreadable(error));
    }
    match polled {
        Ok(0) => return Ok(()),
        Ok(_) => {}
        Err(error) => {
            let topic::ErrorKind::OffsetOutOfRange { topic, partition, .. } = &error.kind else {
                return Err(unfollowed(error));
            };
            gaps.insert((topic.clone(), *partition));
            return Ok(());
        }
    }
    for inlet in inlets.iter_mut().filter(|inlet| !inlet.next.is_empty()) {
        let (decoded, _bad) = inlet.decoder.finish().map_err(unreadable)?;
        let rows = inlet.sieve.sift(&decoded).map_err(unreadable)?;
        let rows = rows.map(schemas::Sifted::good).transpose().map_err(unreadable)?;
        let next = std::mem::take(&mut inlet.next);
        tail.tables().entry(inlet.table.clone()).or_default().add(rows, &next);
    }
    tail.arrived.notify_one();
    Ok(())
}

/// Whether a partition that was not followed can be now.
fn is_gap_passed(tail: &Tail, gaps: &BTreeSet<(String, i32)>) -> Result<bool, Error> {
    let topics: BTreeSet<&str> = gaps.iter().map(|(topic, _)| topic.as_str()).collect();
    for contract in tail.contracts.iter().filter(|contract| topics.contains(contract.topic().as_str())) {
        let starts = starts(tail, contract)?.unwrap_or_default();
        let is_passed = |(extent, start): &(Extent, Start)| {
            gaps.contains(&(contract.topic(), extent.partition)) && matches!(start, Start::At(_))
        };
        if starts.iter().any(is_passed) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_topic_new(tail: &Tail, known: &HashMap<String, usize>) -> Result<bool, Error> {
    let topics: BTreeSet<String> = tail.log.topics().map_err(unfollowed)?.into_iter().collect();
    let is_new = |topic: String| topics.contains(&topic) && !known.contains_key(&topic);
    Ok(tail.contracts.iter().map(|contract| contract.topic()).any(is_new))
}

fn pause(stop: &watch::Receiver<bool>, length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until && !*stop.borrow() {
        std::thread::sleep(POLL);
    }
}

fn unfollowed(error: topic::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
}

fn unreadable(error: schemas::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
}
