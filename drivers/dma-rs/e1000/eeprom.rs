// SPDX-License-Identifier: GPL-2.0

//! The EEPROM, which has the MAC address.

use super::{
    hardware::Control,
    regs::EERD, //
};
use kernel::{
    io::poll::read_poll_timeout,
    prelude::*,
    time::Delta, //
};

/// What all words up to the checksum add up to (section 5.6.35 of the manual).
const SUM: u16 = 0xbaba;

/// How many words the sum is over.
pub(crate) const WORDS: usize = 64;

/// A MAC address.
pub(crate) type MacAddress = [u8; 6];

/// Reads a word.
///
/// Context: may sleep.
///
/// # Errors
///
/// [`ETIMEDOUT`] if the device doesn't answer.
fn read(control: &Control<'_>, word: u8) -> Result<u16> {
    control.write_reg(EERD::zeroed().with_addr(word).with_start(true));

    let answer = read_poll_timeout(
        || Ok(control.read(EERD)),
        |eerd| eerd.done(),
        Delta::from_micros(50),
        Delta::from_millis(20),
    )?;

    Ok(answer.data().into())
}

/// Reads the MAC address, after it has verified all of the EEPROM.
///
/// Context: may sleep.
///
/// # Errors
///
/// [`ETIMEDOUT`] if the device doesn't answer, [`EIO`] if the checksum is wrong, or if the address
/// is not one of a single station.
pub(crate) fn mac_address(control: &Control<'_>) -> Result<MacAddress> {
    let mut words = [0; WORDS];

    for (number, word) in (0..).zip(&mut words) {
        *word = read(control, number)?;
    }

    address_in(&words)
}

/// Takes the MAC address from the words of an EEPROM.
///
/// # Errors
///
/// [`EIO`] if the checksum is wrong, or if the address is not one of a single station.
pub(crate) fn address_in(words: &[u16; WORDS]) -> Result<MacAddress> {
    let sum = words
        .iter()
        .fold(0_u16, |sum, word| sum.wrapping_add(*word));

    if sum != SUM {
        return Err(EIO);
    }

    let [first, second, third, ..] = *words;
    let [a, b] = first.to_le_bytes();
    let [c, d] = second.to_le_bytes();
    let [e, f] = third.to_le_bytes();
    let address = [a, b, c, d, e, f];

    if a & 1 != 0 || address == [0; 6] {
        return Err(EIO);
    }

    Ok(address)
}
