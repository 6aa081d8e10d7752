//! Prepared statements by handle. Statements enter and are given back to their owner; the longest unused go first when
//! there are too many, and all go after a while.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datafusion::scalar::ScalarValue;

use crate::access::Principal;
use crate::engine::Prepared;
use crate::error::{Error, ErrorKind};

/// How long an unused statement is kept.
const UNUSED_MAX: Duration = Duration::from_secs(3600);

/// A kept statement.
#[derive(Debug, Clone)]
pub struct Kept {
    owner: String,
    pub prepared: Arc<Prepared>,
    pub parameters: Vec<ScalarValue>,
    used: Instant,
}

/// The store of all clients.
#[derive(Debug)]
pub struct Handles {
    kept: Mutex<HashMap<[u8; 16], Kept>>,
    handles_max: usize,
}

impl Handles {
    pub fn new(handles_max: usize) -> Self {
        Self { kept: Mutex::default(), handles_max }
    }

    /// Keeps a statement.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn keep(&self, owner: &Principal, prepared: Prepared) -> Result<[u8; 16], Error> {
        let mut handle = [0; 16];
        let random = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut handle));
        random.map_err(|error| Error::new(ErrorKind::Internal, "could not make a handle").with_source(error))?;
        let mut kept = self.kept.lock().expect("nobody panics while holding the handles");
        if kept.len() >= self.handles_max {
            kept.retain(|_, statement| statement.used.elapsed() < UNUSED_MAX);
        }
        if kept.len() >= self.handles_max
            && let Some(oldest) = kept.iter().min_by_key(|(_, statement)| statement.used).map(|(handle, _)| *handle)
        {
            kept.remove(&oldest);
        }
        let owner = owner.name.clone();
        kept.insert(handle, Kept { owner, prepared: Arc::new(prepared), parameters: Vec::new(), used: Instant::now() });
        Ok(handle)
    }

    /// The statement of a handle.
    ///
    /// # Errors
    /// `NotFound`: closed, too long unused, or someone else's.
    pub fn get(&self, owner: &Principal, handle: &[u8]) -> Result<Kept, Error> {
        self.with(owner, handle, |kept| kept.clone())
    }

    /// Binds parameters for the next run.
    ///
    /// # Errors
    /// As [`Handles::get`].
    pub fn bind(&self, owner: &Principal, handle: &[u8], parameters: Vec<ScalarValue>) -> Result<(), Error> {
        self.with(owner, handle, |kept| kept.parameters = parameters)
    }

    /// Forgets a statement; one that is not there is forgotten already.
    pub fn close(&self, owner: &Principal, handle: &[u8]) {
        let mut kept = self.kept.lock().expect("nobody panics while holding the handles");
        if let Ok(handle) = <[u8; 16]>::try_from(handle)
            && kept.get(&handle).is_some_and(|statement| statement.owner == owner.name)
        {
            kept.remove(&handle);
        }
    }

    fn with<T>(&self, owner: &Principal, handle: &[u8], use_it: impl FnOnce(&mut Kept) -> T) -> Result<T, Error> {
        let mut kept = self.kept.lock().expect("nobody panics while holding the handles");
        let found = <[u8; 16]>::try_from(handle).ok().and_then(|handle| kept.get_mut(&handle));
        let statement =
            found.filter(|kept| kept.owner == owner.name && kept.used.elapsed() < UNUSED_MAX).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "no such prepared statement").with_hint("prepare it again")
            })?;
        statement.used = Instant::now();
        Ok(use_it(statement))
    }
}
