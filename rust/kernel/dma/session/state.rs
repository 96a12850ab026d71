// SPDX-License-Identifier: GPL-2.0

//! The states of a device, and what is done when an event happens to it.
//!
//! [`State::on`] is the whole table. [`Control`](super::control::Control) carries the action out
//! under a lock; its outcome is the next state.

/// The state of a device that a driver is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The driver has not started it yet. It was shown nothing, and its bus keeps it from memory,
    /// if it can.
    Closed,
    /// It may be shown addresses, and access memory there.
    Running,
    /// It was proven to have stopped. It may still hold addresses, and would go on if its bus
    /// allowed it.
    Stopped,
    /// It has left the bus.
    Gone,
    /// A stop gave no proof: it may still access memory.
    Unproven,
    /// Its driver is done with it. It was disarmed, has left the bus, or was never started.
    Ended,
    /// Its driver is done with it, and it could not be disarmed: it may still access memory, or
    /// hold addresses.
    Lost,
}

/// An event that happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The driver starts it.
    Start,
    /// A suspend or a reset is over, and the device ran before it. A device that had left the bus
    /// may be back.
    Resume,
    /// The driver stops it, or a suspend or a reset begins.
    Stop,
    /// It is unbound, shut down, or broken for good.
    End,
}

/// What is done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Stay,
    /// Disarm the device, and let it access memory. Next: `Running`, or as before if it fails.
    Start,
    /// Quiesce the device. Next: `Stopped`, `Gone` or `Unproven`.
    Quiesce,
    /// Quiesce and disarm the device. Next: `Ended` or `Lost`.
    End,
    /// Refuse with `ENODEV`, since the device has left the bus.
    Absent,
    /// Refuse with `ESHUTDOWN`, since the driver is done with the device.
    Refuse,
}

impl State {
    #[cfg(any(CONFIG_RUST_DMA_DEBUG, CONFIG_RUST_DMA_KUNIT_TEST))]
    pub(super) const ALL: [Self; 7] = [
        Self::Closed,
        Self::Running,
        Self::Stopped,
        Self::Gone,
        Self::Unproven,
        Self::Ended,
        Self::Lost,
    ];

    /// Returns what is done when an event happens to a device in this state.
    #[rustfmt::skip]
    pub(super) const fn on(self, event: Event) -> Action {
        use Event::{End, Resume, Start, Stop};
        use State::{Closed, Ended, Gone, Lost, Running, Stopped, Unproven};

        // [the table]
        match (self, event) {
            // State                          Event               Action
            (Closed | Stopped | Unproven,     Start | Resume) => Action::Start,
            (Running,                         Start | Resume) => Action::Stay,
            (Gone,                            Start         ) => Action::Absent,
            (Gone,                            Resume        ) => Action::Start,
            (Ended | Lost,                    Start | Resume) => Action::Refuse,

            (Running | Unproven,              Stop          ) => Action::Quiesce,
            (Closed | Stopped | Gone,         Stop          ) => Action::Stay,
            (Ended | Lost,                    Stop          ) => Action::Stay,

            (Ended | Lost,                    End           ) => Action::Stay,
            (_,                               End           ) => Action::End,
        }
        // [end of the table]
    }
}

#[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
#[macros::kunit_tests(rust_dma_session_states)]
mod tests {
    use super::{
        Action::{
            Absent,
            Quiesce,
            Refuse,
            Stay, //
        },
        *, //
    };
    use crate::{
        dma::fixture::ensure,
        prelude::*, //
    };

    /// Each edge: the actions on `Start`, `Resume`, `Stop` and `End`.
    #[test]
    fn each_edge() -> Result {
        let rows = [
            (
                State::Closed,
                [Action::Start, Action::Start, Stay, Action::End],
            ),
            (State::Running, [Stay, Stay, Quiesce, Action::End]),
            (
                State::Stopped,
                [Action::Start, Action::Start, Stay, Action::End],
            ),
            (State::Gone, [Absent, Action::Start, Stay, Action::End]),
            (
                State::Unproven,
                [Action::Start, Action::Start, Quiesce, Action::End],
            ),
            (State::Ended, [Refuse, Refuse, Stay, Stay]),
            (State::Lost, [Refuse, Refuse, Stay, Stay]),
        ];

        ensure!(rows.map(|(state, _)| state) == State::ALL);

        for (state, actions) in rows {
            let events = [Event::Start, Event::Resume, Event::Stop, Event::End];

            ensure!(events.map(|event| state.on(event)) == actions);
        }

        Ok(())
    }
}
