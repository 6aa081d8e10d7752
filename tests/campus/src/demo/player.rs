//! Plays the campus from a thread of its own: history first, the day when told to, at the speed that was asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use campus::campus::Campus;
use campus::clock::dashed;
use campus::live::Stage;
use campus::push::Pusher;

use super::work::Work;

/// How far the player is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    History,
    HistoryDone,
    Day,
    DayDone,
}

/// The thread, and what it says of itself.
pub struct Player {
    state: Arc<Mutex<State>>,
    begin: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct State {
    phase: Phase,
    clock: String,
    error: Option<anyhow::Error>,
}

impl Player {
    /// Starts playing the history.
    ///
    /// # Errors
    /// The databases cannot be opened.
    pub fn start(campus: Arc<Campus>, work: &Work, speed: u64) -> Result<Player> {
        let pusher = Pusher::new(&work.http, "gates", &work.secrets.push_token)?;
        let databases = work.databases();
        let state = Arc::new(Mutex::new(State { phase: Phase::History, clock: "history".into(), error: None }));
        let begin = Arc::new(AtomicBool::new(false));
        let (of_thread, begin_of_thread) = (state.clone(), begin.clone());
        let thread = std::thread::Builder::new().name("campus".into()).spawn(move || {
            let played = Stage::open(&databases, pusher)
                .and_then(|mut stage| play(&campus, &mut stage, speed, &of_thread, &begin_of_thread));
            let mut state = of_thread.lock().expect("no holder of this lock panics");
            match played {
                Ok(()) => state.phase = Phase::DayDone,
                Err(error) => state.error = Some(error),
            }
        })?;
        Ok(Player { state, begin, thread })
    }

    /// Lets the day begin.
    pub fn begin_day(&self) {
        self.begin.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// How far it is.
    ///
    /// # Errors
    /// What stopped it.
    pub fn phase(&self) -> Result<Phase> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        match state.error.take() {
            Some(error) => Err(error),
            None if self.thread.is_finished() && state.phase < Phase::DayDone => Err(anyhow!("the campus has stopped")),
            None => Ok(state.phase),
        }
    }

    /// The time of the campus.
    pub fn clock(&self) -> String {
        self.state.lock().expect("no holder of this lock panics").clock.clone()
    }
}

fn play(campus: &Campus, stage: &mut Stage, speed: u64, state: &Mutex<State>, begin: &AtomicBool) -> Result<()> {
    let done = stage.progress();
    // Whoever goes on after a stop in the middle of the day has pushed the history before.
    if done.is_empty() {
        for push in campus.history_pushes() {
            stage.push(&push)?;
        }
    }
    state.lock().expect("no holder of this lock panics").phase = Phase::HistoryDone;
    while !begin.load(Ordering::Acquire) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    state.lock().expect("no holder of this lock panics").phase = Phase::Day;
    let mut at = campus.plan.day_start();
    for step in campus.live().filter(|step| dashed(step.at) >= done) {
        let seconds = (step.at - at).num_seconds().max(0) as u64;
        if let Some(millis) = (seconds * 1000).checked_div(speed) {
            std::thread::sleep(Duration::from_millis(millis));
        }
        at = step.at;
        stage.play(&step)?;
        state.lock().expect("no holder of this lock panics").clock = step.at.format("%H:%M").to_string();
    }
    Ok(())
}
