// SPDX-License-Identifier: GPL-2.0

//! The registers, named as in Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software
//! Developer's Manual" (317453), chapter 13.

use kernel::io::register;

register! {
    /// Device Control.
    pub(crate) CTRL(u32) @ 0x0000 {
        /// Lets the device insert and strip VLAN tags.
        30:30 vme => bool;
        6:6 slu => bool;
        5:5 asde => bool;
        0:0 fd => bool;
    }

    /// Device Status.
    pub(crate) STATUS(u32) @ 0x0008 {
        7:6 speed;
        1:1 lu => bool;
        0:0 fd => bool;
    }

    /// EEPROM Read.
    pub(crate) EERD(u32) @ 0x0014 {
        31:16 data;
        15:8 addr;
        4:4 done => bool;
        0:0 start => bool;
    }

    /// MDI Control: access to the registers of the PHY.
    pub(crate) MDIC(u32) @ 0x0020 {
        30:30 e => bool;
        28:28 r => bool;
        27:26 op;
        25:21 phyadd;
        20:16 regadd;
        15:0 data;
    }

    /// VLAN Ether Type.
    pub(crate) VET(u32) @ 0x0038 {
        15:0 vet;
    }

    /// Interrupt Cause Read; reading takes all of them back.
    pub(crate) ICR(u32) @ 0x00c0 {
        31:0 causes;
        7:7 rxt0 => bool;
        6:6 rxo => bool;
        4:4 rxdmt0 => bool;
        2:2 lsc => bool;
        0:0 txdw => bool;
    }

    /// Interrupt Throttling.
    pub(crate) ITR(u32) @ 0x00c4 {
        /// In units of 256 ns.
        15:0 interval;
    }

    /// Interrupt Mask Set/Read.
    pub(crate) IMS(u32) @ 0x00d0 {
        7:7 rxt0 => bool;
        6:6 rxo => bool;
        4:4 rxdmt0 => bool;
        2:2 lsc => bool;
        0:0 txdw => bool;
    }

    /// Interrupt Mask Clear.
    pub(crate) IMC(u32) @ 0x00d8 {
        31:0 causes;
    }

    /// Receive Control.
    pub(crate) RCTL(u32) @ 0x0100 {
        26:26 secrc => bool;
        25:25 bsex => bool;
        17:16 bsize;
        15:15 bam => bool;
        5:5 lpe => bool;
        4:4 mpe => bool;
        3:3 upe => bool;
        1:1 en => bool;
    }

    /// Transmit Control.
    pub(crate) TCTL(u32) @ 0x0400 {
        21:12 cold;
        11:4 ct;
        3:3 psp => bool;
        1:1 en => bool;
    }

    /// Transmit Inter Packet Gap.
    pub(crate) TIPG(u32) @ 0x0410 {
        29:20 ipgr2;
        19:10 ipgr1;
        9:0 ipgt;
    }

    /// Receive Descriptor Base Address Low.
    pub(crate) RDBAL(u32) @ 0x2800 {
        31:0 address;
    }

    /// Receive Descriptor Base Address High.
    pub(crate) RDBAH(u32) @ 0x2804 {
        31:0 address;
    }

    /// Receive Descriptor Length, in bytes.
    pub(crate) RDLEN(u32) @ 0x2808 {
        31:0 len;
    }

    /// Receive Descriptor Head.
    pub(crate) RDH(u32) @ 0x2810 {
        31:0 index;
    }

    /// Receive Descriptor Tail.
    pub(crate) RDT(u32) @ 0x2818 {
        31:0 index;
    }

    /// Receive Delay Timer.
    pub(crate) RDTR(u32) @ 0x2820 {
        31:0 raw;
    }

    /// Transmit Descriptor Base Address Low.
    pub(crate) TDBAL(u32) @ 0x3800 {
        31:0 address;
    }

    /// Transmit Descriptor Base Address High.
    pub(crate) TDBAH(u32) @ 0x3804 {
        31:0 address;
    }

    /// Transmit Descriptor Length, in bytes.
    pub(crate) TDLEN(u32) @ 0x3808 {
        31:0 len;
    }

    /// Transmit Descriptor Head.
    pub(crate) TDH(u32) @ 0x3810 {
        31:0 index;
    }

    /// Transmit Descriptor Tail.
    pub(crate) TDT(u32) @ 0x3818 {
        31:0 index;
    }

    /// The statistics, from CRC Error Count on; reading one takes it back.
    pub(crate) STATISTICS(u32)[64] @ 0x4000 {
        31:0 count;
    }

    /// Missed Packets Count: no room in the device.
    pub(crate) MPC(u32) => STATISTICS[4] {
        31:0 count;
    }

    /// Good Packets Received Count.
    pub(crate) GPRC(u32) => STATISTICS[29] {
        31:0 count;
    }

    /// Good Packets Transmitted Count.
    pub(crate) GPTC(u32) => STATISTICS[32] {
        31:0 count;
    }

    /// Receive No Buffers Count: no descriptor.
    pub(crate) RNBC(u32) => STATISTICS[40] {
        31:0 count;
    }

    /// Receive Oversize Count.
    pub(crate) ROC(u32) => STATISTICS[43] {
        31:0 count;
    }

    /// Receive Checksum Control.
    pub(crate) RXCSUM(u32) @ 0x5000 {
        9:9 tuofl => bool;
        8:8 ipofl => bool;
        7:0 pcss;
    }

    /// Multicast Table Array.
    pub(crate) MTA(u32)[128] @ 0x5200 {
        31:0 bits;
    }

    /// Receive Address: the low half of each, and the high half.
    pub(crate) RA(u32)[32] @ 0x5400 {
        /// Of the high half.
        31:31 av => bool;
        31:0 bits;
    }

    /// Receive Address Low.
    pub(crate) RAL0(u32) => RA[0] {
        31:0 address;
    }

    /// Receive Address High.
    pub(crate) RAH0(u32) => RA[1] {
        31:31 av => bool;
        15:0 address;
    }
}

/// What [`VET`] holds from the first start on: the type of 802.1Q frames.
pub(crate) const VLAN: u16 = 0x8100;

/// How many bytes of the device's first BAR the registers take.
pub(crate) const SIZE: usize = 0x6000;
