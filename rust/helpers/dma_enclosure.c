// SPDX-License-Identifier: GPL-2.0

#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/wait.h>

__rust_helper void rust_helper_dma_wait_for_wake(struct wait_queue_head *queue,
						 const u32 *wakes, u32 seen,
						 long timeout)
{
	wait_event_timeout(*queue, READ_ONCE(*wakes) != seen, timeout);
}

#ifdef CONFIG_PCI
__rust_helper bool
rust_helper_pci_dev_is_disconnected(const struct pci_dev *dev)
{
	return pci_dev_is_disconnected(dev);
}
#endif

__rust_helper int rust_helper_notifier_from_errno(int err)
{
	return notifier_from_errno(err);
}
