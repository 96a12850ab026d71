// SPDX-License-Identifier: GPL-2.0

#ifdef CONFIG_DMA_ENGINE

#include <linux/bottom_half.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>

__rust_helper struct device *
rust_helper_dmaengine_get_dma_device(struct dma_chan *chan)
{
	return dmaengine_get_dma_device(chan);
}

/*
 * Keeps the provider's driver bound as long as that of the client is: before
 * the provider is unbound, the driver core unbinds the client. Returns 0, or an
 * error if that can't be had.
 */
__rust_helper int rust_helper_dmaengine_link(struct device *client,
					     struct dma_chan *chan)
{
	struct device *provider = chan->device->dev;
	enum dl_dev_state state;

	if (!device_link_add(client, provider, DL_FLAG_AUTOREMOVE_CONSUMER))
		return -EINVAL;

	/*
	 * The link holds if both were bound, or the client being probed, when
	 * it was added. A client doesn't become so again while somebody uses
	 * it. A provider that became so again has taken its channels away
	 * before, which shows in chan->dev->chan.
	 */
	state = READ_ONCE(client->links.status);
	if (state != DL_DEV_PROBING && state != DL_DEV_DRIVER_BOUND)
		return -ESHUTDOWN;
	if (READ_ONCE(provider->links.status) != DL_DEV_DRIVER_BOUND)
		return -EPROBE_DEFER;
	/* The states before the channel. */
	smp_rmb();
	if (READ_ONCE(chan->dev->chan) != chan)
		return -ENODEV;

	return 0;
}

__rust_helper bool rust_helper_dmaengine_can_do(struct dma_chan *chan,
						enum dma_transaction_type type)
{
	return dma_has_cap(type, chan->device->cap_mask);
}

__rust_helper bool rust_helper_dmaengine_can_terminate(struct dma_chan *chan)
{
	return chan->device->device_terminate_all;
}

__rust_helper bool rust_helper_dmaengine_is_copy_aligned(struct dma_chan *chan,
							 dma_addr_t dst,
							 dma_addr_t src,
							 size_t len)
{
	/* The lowest bits are what matters. */
	return is_dma_copy_aligned(chan->device, (size_t)dst, (size_t)src, len);
}

__rust_helper struct dma_async_tx_descriptor *
rust_helper_dmaengine_prep_dma_memcpy(struct dma_chan *chan, dma_addr_t dst,
				      dma_addr_t src, size_t len,
				      unsigned long flags)
{
	return dmaengine_prep_dma_memcpy(chan, dst, src, len, flags);
}

__rust_helper struct dma_async_tx_descriptor *
rust_helper_dmaengine_prep_config_single(struct dma_chan *chan, dma_addr_t addr,
					 size_t len,
					 enum dma_transfer_direction dir,
					 unsigned long flags,
					 struct dma_slave_config *config)
{
	return dmaengine_prep_config_single_safe(chan, addr, len, dir, flags,
						 config);
}

__rust_helper struct dma_async_tx_descriptor *
rust_helper_dmaengine_prep_config_sg(struct dma_chan *chan,
				     struct scatterlist *sgl, unsigned int nents,
				     enum dma_transfer_direction dir,
				     unsigned long flags,
				     struct dma_slave_config *config)
{
	return dmaengine_prep_config_sg_safe(chan, sgl, nents, dir, flags,
					     config);
}

/*
 * For cyclic transfers C has no function that configures and prepares, so that
 * nobody configures in between. The lock is that of the others.
 */
__rust_helper struct dma_async_tx_descriptor *
rust_helper_dmaengine_prep_config_cyclic(struct dma_chan *chan, dma_addr_t addr,
					 size_t len, size_t period,
					 enum dma_transfer_direction dir,
					 unsigned long flags,
					 struct dma_slave_config *config)
{
	struct dma_async_tx_descriptor *tx = NULL;
	unsigned long irq_flags;

	spin_lock_irqsave(&chan->lock, irq_flags);
	if (!dmaengine_slave_config(chan, config))
		tx = dmaengine_prep_dma_cyclic(chan, addr, len, period, dir,
					       flags);
	spin_unlock_irqrestore(&chan->lock, irq_flags);

	return tx;
}

__rust_helper dma_cookie_t
rust_helper_dmaengine_submit(struct dma_async_tx_descriptor *tx)
{
	return dmaengine_submit(tx);
}

__rust_helper void rust_helper_dma_async_issue_pending(struct dma_chan *chan)
{
	dma_async_issue_pending(chan);
}

__rust_helper enum dma_status
rust_helper_dmaengine_tx_status(struct dma_chan *chan, dma_cookie_t cookie,
				struct dma_tx_state *state)
{
	return dmaengine_tx_status(chan, cookie, state);
}

__rust_helper int rust_helper_dmaengine_terminate_sync(struct dma_chan *chan)
{
	return dmaengine_terminate_sync(chan);
}

#ifdef CONFIG_RUST_DMA_FIXTURE
/* Whether a link keeps some device from outliving this one. */
__rust_helper bool
rust_helper_dmaengine_test_has_consumers(const struct device *dev)
{
	return !list_empty(&dev->links.consumers);
}

/*
 * Where the CPU sees memory that a device on no IOMMU knows by this address.
 */
__rust_helper void *rust_helper_dmaengine_test_memory(struct device *dev,
						      dma_addr_t addr)
{
	return phys_to_virt(dma_to_phys(dev, addr));
}

/* Calls back as a tasklet does. */
__rust_helper void
rust_helper_dmaengine_test_call_back(dma_async_tx_callback_result callback,
				     void *param,
				     const struct dmaengine_result *result)
{
	local_bh_disable();
	callback(param, result);
	local_bh_enable();
}
#endif /* CONFIG_RUST_DMA_FIXTURE */

#endif /* CONFIG_DMA_ENGINE */
