// SPDX-License-Identifier: GPL-2.0

#ifdef CONFIG_RUST_DMA_SIM

#include <linux/bottom_half.h>
#include <linux/hardirq.h>
#include <linux/interrupt.h>
#include <linux/irqflags.h>
#include <linux/scatterlist.h>

__rust_helper phys_addr_t rust_helper_sg_phys(struct scatterlist *sg)
{
	return sg_phys(sg);
}

__rust_helper void rust_helper_dma_sim_set_segment(struct scatterlist *sg,
						   dma_addr_t addr,
						   unsigned int len)
{
	sg_dma_address(sg) = addr;
	sg_dma_len(sg) = len;
}

__rust_helper bool rust_helper_in_hardirq(void)
{
	return in_hardirq();
}

/*
 * Calls as an interrupt handler is called, so that lockdep takes it for one.
 * Where interrupts are off none can come: returns false then.
 */
__rust_helper bool rust_helper_dma_sim_interrupt(void (*handler)(void *data),
						 void *data)
{
	unsigned long flags;

	if (in_hardirq()) {
		handler(data);
		return true;
	}

	if (irqs_disabled())
		return false;

	local_irq_save(flags);
	__irq_enter();
	lockdep_hardirq_threaded();
	handler(data);
	__irq_exit();
	local_irq_restore(flags);

	/* As the end of an interrupt does it. */
	if (local_softirq_pending() && !in_interrupt()) {
		local_bh_disable();
		local_bh_enable();
	}

	return true;
}

#endif /* CONFIG_RUST_DMA_SIM */
