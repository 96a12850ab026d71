// SPDX-License-Identifier: GPL-2.0
/*
 * A DMA engine that copies nothing: it is done, and says so, when it is told to
 * begin. So what is counted of a copy is the work of its client, and what any
 * provider has to do besides.
 *
 * It has a channel for the client in C and one for that in Rust.
 */

#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/spinlock.h>

#include "../../dma/dmaengine.h"

#define CHANNELS	2
#define DESCRIPTORS	64

struct descriptor {
	struct dma_async_tx_descriptor tx;
	struct list_head node;
};

struct channel {
	struct dma_chan chan;
	/* Of the lists, and the cookies. */
	spinlock_t lock;
	struct list_head free;
	struct list_head submitted;
	struct descriptor descriptors[DESCRIPTORS];
};

struct engine {
	struct dma_device device;
	struct channel channels[CHANNELS];
};

static struct channel *to_channel(struct dma_chan *chan)
{
	return container_of(chan, struct channel, chan);
}

static dma_cookie_t engine_submit(struct dma_async_tx_descriptor *tx)
{
	struct descriptor *desc = container_of(tx, struct descriptor, tx);
	struct channel *channel = to_channel(tx->chan);

	guard(spinlock_irqsave)(&channel->lock);
	list_add_tail(&desc->node, &channel->submitted);
	return dma_cookie_assign(tx);
}

static struct dma_async_tx_descriptor *
engine_prep_memcpy(struct dma_chan *chan, dma_addr_t to, dma_addr_t from,
		   size_t len, unsigned long flags)
{
	struct channel *channel = to_channel(chan);
	struct descriptor *desc;

	scoped_guard(spinlock_irqsave, &channel->lock) {
		desc = list_first_entry_or_null(&channel->free,
						struct descriptor, node);
		if (!desc)
			return NULL;

		list_del(&desc->node);
	}

	dma_async_tx_descriptor_init(&desc->tx, chan);
	desc->tx.tx_submit = engine_submit;
	desc->tx.flags = flags;
	desc->tx.callback = NULL;
	desc->tx.callback_result = NULL;
	return &desc->tx;
}

static void engine_issue_pending(struct dma_chan *chan)
{
	struct channel *channel = to_channel(chan);
	struct dmaengine_desc_callback callback;
	struct descriptor *desc;

	for (;;) {
		scoped_guard(spinlock_irqsave, &channel->lock) {
			desc = list_first_entry_or_null(&channel->submitted,
							struct descriptor,
							node);
			if (!desc)
				return;

			dma_cookie_complete(&desc->tx);
			dmaengine_desc_get_callback(&desc->tx, &callback);
			list_move(&desc->node, &channel->free);
		}

		dmaengine_desc_callback_invoke(&callback, NULL);
	}
}

static enum dma_status engine_tx_status(struct dma_chan *chan,
					dma_cookie_t cookie,
					struct dma_tx_state *state)
{
	return dma_cookie_status(chan, cookie, state);
}

static int engine_terminate_all(struct dma_chan *chan)
{
	struct channel *channel = to_channel(chan);

	guard(spinlock_irqsave)(&channel->lock);
	list_splice_init(&channel->submitted, &channel->free);
	return 0;
}

static int engine_alloc_chan_resources(struct dma_chan *chan)
{
	dma_cookie_init(chan);
	return 0;
}

static void engine_add_channel(struct engine *engine, struct channel *channel)
{
	unsigned int i;

	spin_lock_init(&channel->lock);
	INIT_LIST_HEAD(&channel->free);
	INIT_LIST_HEAD(&channel->submitted);

	for (i = 0; i < DESCRIPTORS; i++)
		list_add_tail(&channel->descriptors[i].node, &channel->free);

	channel->chan.device = &engine->device;
	list_add_tail(&channel->chan.device_node, &engine->device.channels);
}

static int engine_probe(struct platform_device *pdev)
{
	struct dma_device *device;
	struct engine *engine;
	unsigned int i;
	int err;

	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (err)
		return err;

	engine = devm_kzalloc(&pdev->dev, sizeof(*engine), GFP_KERNEL);
	if (!engine)
		return -ENOMEM;

	device = &engine->device;
	device->dev = &pdev->dev;
	device->device_alloc_chan_resources = engine_alloc_chan_resources;
	device->device_prep_dma_memcpy = engine_prep_memcpy;
	device->device_issue_pending = engine_issue_pending;
	device->device_tx_status = engine_tx_status;
	device->device_terminate_all = engine_terminate_all;
	dma_cap_set(DMA_MEMCPY, device->cap_mask);
	dma_cap_set(DMA_PRIVATE, device->cap_mask);

	INIT_LIST_HEAD(&device->channels);
	for (i = 0; i < CHANNELS; i++)
		engine_add_channel(engine, &engine->channels[i]);

	return dmaenginem_async_device_register(device);
}

static struct platform_driver engine_driver = {
	.driver.name = "dma_rs_bench_engine",
	.probe = engine_probe,
};

static struct platform_device *engine_device;

static int __init engine_init(void)
{
	const struct platform_device_info info = {
		.name = "dma_rs_bench_engine",
		.id = PLATFORM_DEVID_NONE,
		.dma_mask = DMA_BIT_MASK(64),
	};
	int err;

	err = platform_driver_register(&engine_driver);
	if (err)
		return err;

	engine_device = platform_device_register_full(&info);
	if (IS_ERR(engine_device)) {
		platform_driver_unregister(&engine_driver);
		return PTR_ERR(engine_device);
	}

	return 0;
}
module_init(engine_init);

static void __exit engine_exit(void)
{
	platform_device_unregister(engine_device);
	platform_driver_unregister(&engine_driver);
}
module_exit(engine_exit);

MODULE_AUTHOR("The dma-rs authors");
MODULE_DESCRIPTION("A DMA engine that copies nothing, for measuring its clients");
MODULE_LICENSE("GPL");
