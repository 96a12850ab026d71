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

// IEEE 802.3, clause 22.
pub(crate) const BMCR: Index = Index::new::<0>();
const BMSR: Index = Index::new::<1>();

const BMCR_LOOPBACK: u16 = 1 << 14;
const BMCR_NEGOTIATE: u16 = 1 << 12;
const BMCR_FULL_DUPLEX: u16 = 1 << 8;
const BMCR_1000: u16 = 1 << 6;
const BMSR_NEGOTIATED: u16 = 1 << 5;

/// The speeds that `STATUS` can say, in Mbit/s.
const SPEEDS: [u32; 4] = [10, 100, 1000, 1000];

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) up: bool,
    pub(crate) full_duplex: bool,
    /// In Mbit/s.
    pub(crate) speed: u32,
    /// Whether the partner was asked.
    pub(crate) negotiated: bool,
}

/// The PHY of a device.
pub(crate) struct Phy<'a> {
    control: Control<'a>,
    loopback: bool,
}

impl<'a> Phy<'a> {
    pub(crate) fn new(control: Control<'a>) -> Self {
        Self {
            control,
            loopback: false,
        }
    }

    /// Carries out what `MDIC` was told.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the device doesn't answer, [`EIO`] if the PHY doesn't.
    fn access(&mut self, command: MDIC) -> Result<u16> {
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
        let mode = if on { BMCR_LOOPBACK } else { BMCR_NEGOTIATE };

        self.write(BMCR, mode | BMCR_1000 | BMCR_FULL_DUPLEX)?;
        self.loopback = on;
        Ok(())
    }

    /// Returns whether the PHY is told to loop back.
    pub(crate) fn loopback(&self) -> bool {
        self.loopback
    }

    /// Tells the PHY again what it was told, after the device has lost its power.
    ///
    /// # Errors
    ///
    /// As [`set_loopback`](Self::set_loopback).
    pub(crate) fn restore(&mut self) -> Result {
        self.set_loopback(self.loopback)
    }

    /// Returns the state of the link. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`set_loopback`](Self::set_loopback).
    pub(crate) fn link(&mut self) -> Result<Link> {
        let negotiated = self.read(BMSR)? & BMSR_NEGOTIATED != 0;
        let status = self.control.read(STATUS);
        let speed = usize::from(u8::from(status.speed()));

        Ok(Link {
            up: status.lu(),
            full_duplex: status.fd(),
            speed: SPEEDS.get(speed).copied().unwrap_or(0),
            negotiated,
        })
    }
}
