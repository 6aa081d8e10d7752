//! The letters of landing, in their table before their records' positions move.
//!
//! Letters of a lane enter; those that are not in the table yet are committed there, under the positions of the topic
//! they came from. So a crash between their commit and the lane's repeats neither.

use std::collections::BTreeMap;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use chrono::Utc;
use lake::Progress;

use super::Land;
use super::own::OwnTable;
use crate::error::Error;
use crate::letter::{self, Letter, Place};

/// The table of letters, as landing writes it.
pub struct LetterBox {
    own: OwnTable,
}

impl LetterBox {
    /// # Errors
    /// As [`OwnTable::open`].
    pub async fn open(land: &Land) -> Result<Self, Error> {
        Ok(Self { own: OwnTable::open(land, letter::CONTRACT).await? })
    }

    /// Takes a topic's partitions over; `oldest` are their first offsets in the log.
    ///
    /// # Errors
    /// `Fenced` and `Lake`, as [`lake::Appender::take`].
    pub async fn take(&mut self, topic: &str, oldest: &BTreeMap<i32, i64>) -> Result<(), Error> {
        self.own.appender.take(topic, oldest).await?;
        Ok(())
    }

    /// Gives a topic's partitions up.
    pub fn give_up(&mut self, topic: &str, partitions: &[i32]) {
        self.own.appender.give_up(topic, partitions);
    }

    /// Commits what is new among the letters of a topic, whose records reach up to `progress`.
    ///
    /// # Errors
    /// `Fenced` and `Lake`, as [`lake::Appender::commit`].
    pub async fn commit(&mut self, letters: &[Letter], progress: &[Progress]) -> Result<(), Error> {
        let is_new = |letter: &&Letter| {
            let place = letter.place.as_ref().expect("a letter of landing has a place");
            self.own.appender.position(&place.topic, place.partition).is_none_or(|known| place.offset >= known)
        };
        let fresh: Vec<Letter> = letters.iter().filter(is_new).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        // The letters may be ahead of the lane, which repeats what it could not commit, a little at a time.
        let is_ahead = |moved: &&Progress| {
            self.own.appender.position(&moved.topic, moved.partition).is_none_or(|known| moved.next_offset > known)
        };
        let progress: Vec<Progress> = progress.iter().filter(is_ahead).cloned().collect();
        let rows = self.rows(&fresh)?;
        self.own.appender.write(rows).await?;
        self.own.commit(&progress).await?;
        Ok(())
    }

    /// Commits letters that no position covers.
    ///
    /// # Errors
    /// `Lake`, as [`lake::Appender::commit`].
    pub async fn add(&mut self, letters: &[Letter]) -> Result<(), Error> {
        if letters.is_empty() {
            return Ok(());
        }
        self.own.appender.write(self.rows(letters)?).await?;
        self.own.commit(&[]).await?;
        Ok(())
    }

    /// Letters as rows of their table; a letter's place is that of its record.
    ///
    /// # Errors
    /// `Internal`, which no record can cause.
    pub fn rows(&self, letters: &[Letter]) -> Result<RecordBatch, Error> {
        let place = |get: fn(&Place) -> i64| letters.iter().map(move |letter| letter.place.as_ref().map_or(0, get));
        let partitions = place(|place| i64::from(place.partition)).map(|partition| partition as i32);
        let partitions = Int32Array::from_iter_values(partitions);
        let offsets = Int64Array::from_iter_values(place(|place| place.offset));
        self.own.rows(letter::mapped(letters, Utc::now())?, partitions, offsets)
    }
}
