/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _DMA_RS_EDU_H
#define _DMA_RS_EDU_H

/*
 * Registers of QEMU's edu device, for what tests and measures in C. The driver
 * has them in regs.rs, with what is to be known of them.
 */

#include <linux/bits.h>

#define EDU_IRQ_STATUS	0x24
#define EDU_IRQ_ACK	0x64
#define EDU_SOURCE	0x80
#define EDU_DESTINATION	0x88
#define EDU_COUNT	0x90
#define EDU_COMMAND	0x98

#define EDU_RUN		BIT(0)
#define EDU_TO_RAM	BIT(1)
#define EDU_INTERRUPT	BIT(2)

/* Where the device's own memory begins, in the addresses of its engine. */
#define EDU_MEMORY	0x40000
/* How much of it is used: one byte less than there is. */
#define EDU_SIZE	4095

#endif
