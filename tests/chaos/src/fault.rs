//! The faults: what is done to whom, drawn from a seed.
//!
//! Random numbers enter; blows leave, each undone before the next one of its kind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use campus::random::Random;

use crate::world::World;

/// What can happen to the processes and the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// SIGKILL of extract, which is started again.
    KillExtract,
    FreezeExtract,
    /// SIGKILL of a landing, which is started again.
    KillLand,
    /// A landing sleeps for a moment: it keeps its partitions.
    FreezeLand,
    /// A landing sleeps until the group has given its partitions away, then wakes up with what it had.
    Zombie,
    /// A landing leaves in order and comes back: the group rebalances twice.
    Rebalance,
    /// SIGKILL of the broker, which is started again on its data.
    KillBroker,
    FreezeBroker,
    /// The lake's disk is full for a moment.
    FullLake,
    /// The disk of extract's cursors is full for a moment.
    FullState,
    /// The wall clock of extract jumps by minutes to hours, forwards or back, and stays there.
    JumpExtract,
    JumpLand,
}

/// How often each is drawn, out of the sum of all.
const WEIGHTS: [(Blow, u64); 12] = [
    (Blow::KillExtract, 4),
    (Blow::FreezeExtract, 2),
    (Blow::KillLand, 8),
    (Blow::FreezeLand, 3),
    (Blow::Zombie, 2),
    (Blow::Rebalance, 3),
    (Blow::KillBroker, 1),
    (Blow::FreezeBroker, 2),
    (Blow::FullLake, 2),
    (Blow::FullState, 2),
    (Blow::JumpExtract, 3),
    (Blow::JumpLand, 4),
];

/// Longer than the session timeout of the group: the partitions have moved when the zombie wakes up.
const ZOMBIE_SLEEP: Duration = Duration::from_millis(8_500);

/// The furthest that a clock is off.
pub const JUMP_S_MAX: i64 = 6 * 3_600;

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillExtract => "SIGKILL of extract",
            Self::FreezeExtract => "SIGSTOP of extract",
            Self::KillLand => "SIGKILL of land",
            Self::FreezeLand => "SIGSTOP of land",
            Self::Zombie => "zombie land (SIGSTOP beyond the session)",
            Self::Rebalance => "land leaves and joins",
            Self::KillBroker => "SIGKILL of the broker",
            Self::FreezeBroker => "SIGSTOP of the broker",
            Self::FullLake => "full disk below the lake",
            Self::FullState => "full disk below extract's state",
            Self::JumpExtract => "clock jump of extract",
            Self::JumpLand => "clock jump of land",
        })
    }
}

/// Draws and deals blows: each kind once, in any order, then whatever the weights say. Clocks come first: they stay wrong,
/// so everything else is dealt to processes that do not agree on the time.
pub struct Storm {
    random: Random,
    lands: usize,
    first: Vec<Blow>,
    pub dealt: BTreeMap<Blow, u64>,
}

impl Storm {
    pub fn new(seed: u64, lands: usize) -> Self {
        Self {
            random: Random::new(seed, "storm", 0),
            lands,
            first: WEIGHTS.map(|(blow, _)| blow).into(),
            dealt: BTreeMap::new(),
        }
    }

    pub fn count(&self) -> u64 {
        self.dealt.values().sum()
    }

    /// Waits a little, then deals one blow and undoes it.
    ///
    /// # Errors
    /// The world cannot be put right again.
    pub fn blow(&mut self, world: &mut World) -> Result<()> {
        std::thread::sleep(Duration::from_millis(self.random.below(1_200)));
        world.watch()?;
        let blow = self.draw();
        let land = format!("land-{}", self.random.index(self.lands));
        let moment = Duration::from_millis(100 + self.random.below(1_500));
        match blow {
            Blow::KillExtract => restart(world, "extract", moment)?,
            Blow::KillLand => restart(world, &land, moment)?,
            Blow::FreezeExtract => freeze(world, "extract", moment)?,
            Blow::FreezeLand => freeze(world, &land, moment)?,
            Blow::FreezeBroker => freeze(world, "broker", moment)?,
            Blow::Zombie => freeze(world, &land, ZOMBIE_SLEEP)?,
            Blow::Rebalance => {
                world.stop(&land)?;
                std::thread::sleep(moment);
                world.start(&land)?;
            }
            Blow::KillBroker => {
                world.kill("broker")?;
                std::thread::sleep(moment);
                world.broker("start")?;
            }
            Blow::FullLake | Blow::FullState => {
                let disk = if blow == Blow::FullLake { &world.lake_disk } else { &world.state_disk };
                let Some(disk) = disk else { return Ok(()) };
                disk.fill()?;
                std::thread::sleep(moment);
                disk.free()?;
            }
            Blow::JumpExtract => self.jump(world, "extract", moment)?,
            Blow::JumpLand => self.jump(world, &land, moment)?,
        }
        *self.dealt.entry(blow).or_default() += 1;
        Ok(())
    }

    fn jump(&mut self, world: &World, name: &str, moment: Duration) -> Result<()> {
        world.set_clock(name, self.random.between(-JUMP_S_MAX, JUMP_S_MAX))?;
        // Object storage refuses requests of a clock that is wrong by a quarter of an hour: there the clock is set right.
        if world.is_on_s3() {
            std::thread::sleep(moment);
            world.set_clock(name, 0)?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Blow {
        if let Some(at) = self.first.iter().position(|blow| matches!(blow, Blow::JumpExtract | Blow::JumpLand)) {
            return self.first.swap_remove(at);
        }
        if !self.first.is_empty() {
            let at = self.random.index(self.first.len());
            return self.first.swap_remove(at);
        }
        let mut at = self.random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
        for (blow, weight) in WEIGHTS {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return blow,
            }
        }
        unreachable!("the number is below the sum of the weights")
    }
}

fn restart(world: &mut World, name: &str, after: Duration) -> Result<()> {
    world.kill(name)?;
    std::thread::sleep(after);
    world.start(name)
}

fn freeze(world: &World, name: &str, length: Duration) -> Result<()> {
    world.signal(name, "STOP")?;
    std::thread::sleep(length);
    world.signal(name, "CONT")
}
