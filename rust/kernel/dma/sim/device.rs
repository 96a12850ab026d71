// SPDX-License-Identifier: GPL-2.0

//! What the simulated devices have in common.

use super::{
    schedule::{
        Schedule,
        Stop, //
    },
    Sim, //
};
use crate::prelude::*;

/// A device as the bus sees it.
pub(super) trait Device: Send + Sync {
    /// Time passes; what is due is carried out.
    fn advance(&self, ticks: u32);

    /// Returns how much the device still has to do: while it does, it knows addresses.
    fn pending(&self) -> usize;

    /// Returns how many of the script's fates no request has had.
    fn unused(&self) -> usize;

    /// Takes the device off the bus.
    fn pull(&self);
}

/// What a device was told, and whether it is there to do it.
pub(super) struct Worker<T> {
    pub(super) schedule: Schedule<T>,
    stop: Stop,
    stopped: bool,
    gone: bool,
}

impl<T: Copy> Worker<T> {
    pub(super) fn new(sim: &Sim) -> Self {
        let script = sim.script();

        Self {
            schedule: Schedule::new(sim.next_seed(), script.fate),
            stop: script.stop,
            stopped: false,
            gone: false,
        }
    }

    /// Whether the device answers.
    pub(super) fn answers(&self) -> Result {
        if self.gone {
            return Err(ENODEV);
        }

        Ok(())
    }

    /// Whether the device takes requests.
    pub(super) fn check(&self) -> Result {
        self.answers()?;

        if self.stopped {
            return Err(ESHUTDOWN);
        }

        Ok(())
    }

    /// Whether the device has said that it stopped.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether the device goes on by itself, whatever it has said.
    pub(super) fn goes_on(&self) -> bool {
        !self.gone && (!self.stopped || self.stop == Stop::Lies)
    }

    /// Stops the device, in the way that the script has for it.
    pub(super) fn stop(&mut self) {
        match self.stop {
            Stop::Works => {
                self.schedule.clear();
                self.stopped = true;
            }
            Stop::Hangs => {}
            Stop::Gone => self.pull(),
            Stop::Lies => self.stopped = true,
        }
    }

    pub(super) fn is_stopped(&self) -> Result<bool> {
        self.answers()?;
        Ok(self.stopped)
    }

    /// Lets a stopped device take requests again.
    pub(super) fn restart(&mut self) -> Result {
        self.answers()?;
        self.stopped = false;
        Ok(())
    }

    /// Takes the device away.
    pub(super) fn pull(&mut self) {
        self.schedule.clear();
        self.gone = true;
    }
}
