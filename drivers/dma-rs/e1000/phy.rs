// SPDX-License-Identifier: GPL-2.0

//! The PHY, reached through `MDIC`: loopback and link.

use super::{
    hardware::Control,
    regs::{
        MDIC,
        STATUS, //
    }, //
};
use kernel::{
    io::poll::read_poll_timeout,
    num::Bounded,
    prelude::*,
    time::Delta, //
};

/// The register of a PHY.
pub(crate) type Index = Bounded<u32, 5>;

/// The number of the PHY (section 13.4.5 of the manual).
const PHY: Index = Index::new::<1>();

/// How often it is asked.
const TRIES: u32 = 3;

// IEEE 802.3, clauses 22, 28 and 40.
pub(crate) const BMCR: Index = Index::new::<0>();
const BMSR: Index = Index::new::<1>();
pub(crate) const ANAR: Index = Index::new::<4>();
pub(crate) const CTRL1000: Index = Index::new::<9>();

const BMCR_RESET: u16 = 1 << 15;
const BMCR_LOOPBACK: u16 = 1 << 14;
const BMCR_100: u16 = 1 << 13;
const BMCR_NEGOTIATE: u16 = 1 << 12;
const BMCR_RESTART: u16 = 1 << 9;
const BMCR_FULL_DUPLEX: u16 = 1 << 8;
const BMCR_1000: u16 = 1 << 6;

const ANAR_HALF_10: u16 = 1 << 5;
const ANAR_FULL_10: u16 = 1 << 6;
const ANAR_HALF_100: u16 = 1 << 7;
const ANAR_FULL_100: u16 = 1 << 8;
const CTRL1000_FULL: u16 = 1 << 9;

/// The speeds that `STATUS` can say, in Mbit/s.
const SPEEDS: [u32; 4] = [10, 100, 1000, 1000];

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) up: bool,
    pub(crate) full_duplex: bool,
    /// In Mbit/s.
    pub(crate) speed: u32,
}

/// What may be offered to the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) half_10: bool,
    pub(crate) full_10: bool,
    pub(crate) half_100: bool,
    pub(crate) full_100: bool,
    pub(crate) full_1000: bool,
}

impl Offer {
    /// All that an 8254x can do.
    pub(crate) const ALL: Self = Self {
        half_10: true,
        full_10: true,
        half_100: true,
        full_100: true,
        full_1000: true,
    };

    /// The only offer of this link.
    pub(crate) const ONLY_1000: Self = Self {
        half_10: false,
        full_10: false,
        half_100: false,
        full_100: false,
        full_1000: true,
    };
}

/// Which link to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The best of the offer that the partner has, too.
    Negotiated(Offer),
    /// 10 Mbit/s, or 100, without asking the partner.
    Forced { fast: bool, full_duplex: bool },
}

/// Returns a register's value with some bits set, others cleared.
fn with_bits<const N: usize>(value: u16, bits: [(u16, bool); N]) -> u16 {
    bits.iter().fold(value, |value, (bit, set)| match set {
        true => value | bit,
        false => value & !bit,
    })
}

/// The PHY of a device.
pub(crate) struct Phy<'a> {
    control: Control<'a>,
    loopback: bool,
    choice: Choice,
    /// Whether it offers what the partner hasn't been told of yet.
    offers_anew: bool,
}

impl<'a> Phy<'a> {
    pub(crate) fn new(control: Control<'a>) -> Self {
        Self {
            control,
            loopback: false,
            choice: Choice::Negotiated(Offer::ALL),
            offers_anew: false,
        }
    }

    /// Carries out what `MDIC` was told. Tries it more than once: the device tells once of a link
    /// that has changed, and nobody asks the PHY again until the next change.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the device doesn't answer, [`EIO`] if the PHY doesn't.
    fn access(&mut self, command: MDIC) -> Result<u16> {
        (1..TRIES).fold(self.access_once(command), |answer, _| {
            answer.or_else(|_| self.access_once(command))
        })
    }

    /// As [`access`](Self::access), once.
    fn access_once(&mut self, command: MDIC) -> Result<u16> {
        self.control.write_reg(command.with_phyadd(PHY));

        let answer = read_poll_timeout(
            || Ok(self.control.read(MDIC)),
            |mdic| mdic.r(),
            Delta::from_micros(50),
            Delta::from_millis(20),
        )?;

        if answer.e() {
            return Err(EIO);
        }

        Ok(answer.data().into())
    }

    /// Reads a register.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the device doesn't answer, [`EIO`] if the PHY has no such register.
    pub(crate) fn read(&mut self, register: Index) -> Result<u16> {
        self.access(MDIC::zeroed().with_const_op::<2>().with_regadd(register))
    }

    /// Writes a register.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn write(&mut self, register: Index, value: u16) -> Result {
        self.access(
            MDIC::zeroed()
                .with_const_op::<1>()
                .with_regadd(register)
                .with_data(value),
        )
        .map(drop)
    }

    /// Has the PHY send what it gets back to the device, or to the wire again.
    ///
    /// `RCTL.LBM` would be another way, which QEMU hasn't. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] or [`EIO`] if device or PHY don't answer.
    pub(crate) fn set_loopback(&mut self, on: bool) -> Result {
        let before = core::mem::replace(&mut self.loopback, on);

        // If it can't be ended, the next `restore()` does so.
        self.restore().inspect_err(|_| self.loopback = before && on)
    }

    /// Returns whether the PHY is told to loop back.
    pub(crate) fn loopback(&self) -> bool {
        self.loopback
    }

    /// Has the PHY have another link. Where it has that already, the link stays.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`set_loopback`](Self::set_loopback). The choice stays as it was.
    pub(crate) fn choose(&mut self, choice: Choice) -> Result {
        let before = core::mem::replace(&mut self.choice, choice);

        self.restore().inspect_err(|_| self.choice = before)
    }

    /// Returns which link the PHY is to have.
    pub(crate) fn choice(&self) -> Choice {
        self.choice
    }

    /// Tells the PHY what it is to do; again, after the device has lost its power.
    ///
    /// # Errors
    ///
    /// As [`set_loopback`](Self::set_loopback).
    pub(crate) fn restore(&mut self) -> Result {
        let now = self.read(BMCR)?;

        // What it takes for it to do something else, which goes with the mode.
        let (mode, anew) = match self.choice {
            _ if self.loopback => (BMCR_LOOPBACK | BMCR_1000 | BMCR_FULL_DUPLEX, 0),
            Choice::Negotiated(offer) => {
                let was_forced = now & (BMCR_NEGOTIATE | BMCR_LOOPBACK) == 0;

                self.offer(offer)?;

                let anew = with_bits(0, [(BMCR_RESTART, self.offers_anew || was_forced)]);

                (BMCR_NEGOTIATE | BMCR_1000 | BMCR_FULL_DUPLEX, anew)
            }
            Choice::Forced { fast, full_duplex } => {
                let bits = [(BMCR_100, fast), (BMCR_FULL_DUPLEX, full_duplex)];

                (with_bits(0, bits), BMCR_RESET)
            }
        };

        if now == mode && anew & BMCR_RESTART == 0 {
            return Ok(());
        }

        self.write(BMCR, mode | anew)?;
        self.offers_anew &= anew & BMCR_RESTART == 0;
        Ok(())
    }

    /// Changes what the PHY offers to the partner the next time that they negotiate.
    fn offer(&mut self, offer: Offer) -> Result {
        let (slow, fast) = (self.read(ANAR)?, self.read(CTRL1000)?);
        let slow_bits = [
            (ANAR_HALF_10, offer.half_10),
            (ANAR_FULL_10, offer.full_10),
            (ANAR_HALF_100, offer.half_100),
            (ANAR_FULL_100, offer.full_100),
        ];
        let new_slow = with_bits(slow, slow_bits);
        let new_fast = with_bits(fast, [(CTRL1000_FULL, offer.full_1000)]);

        if (new_slow, new_fast) == (slow, fast) {
            return Ok(());
        }

        self.offers_anew = true;
        self.write(ANAR, new_slow)?;
        self.write(CTRL1000, new_fast)
    }

    /// Returns the state of the link. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`set_loopback`](Self::set_loopback).
    pub(crate) fn link(&mut self) -> Result<Link> {
        // There is nobody who answers if the device was pulled out, when each bit reads as one.
        self.read(BMSR)?;

        let status = self.control.read(STATUS);
        let speed = usize::from(u8::from(status.speed()));

        Ok(Link {
            up: status.lu(),
            full_duplex: status.fd(),
            speed: SPEEDS.get(speed).copied().unwrap_or(0),
        })
    }
}
