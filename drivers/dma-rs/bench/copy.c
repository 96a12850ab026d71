// SPDX-License-Identifier: GPL-2.0
/*
 * Copies by a channel of a DMA engine, as C's clients have them done: memory is
 * mapped for the engine, the callback says how it went, and a completion wakes
 * who waits for it.
 */

#include <linux/completion.h>
#include <linux/dmaengine.h>
#include <linux/slab.h>

#include "bench.h"

struct dma_bench_copier {
	struct dma_chan *chan;
	/* The device that accesses memory. */
	struct device *dev;
	struct completion done;
	enum dmaengine_tx_result result;
	/* Where the copies go. */
	void *target;
};

static void copied(void *param, const struct dmaengine_result *result)
{
	struct dma_bench_copier *copier = param;

	copier->result = result ? result->result : DMA_TRANS_NOERROR;
	complete(&copier->done);
}

/* Has mapped memory copied. */
static __always_inline int copy_mapped(struct dma_bench_copier *copier,
				       dma_addr_t to, dma_addr_t from)
{
	struct dma_async_tx_descriptor *tx;
	int err;

	tx = dmaengine_prep_dma_memcpy(copier->chan, to, from, DMA_BENCH_FRAME,
				       DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
	if (!tx)
		return -ENOMEM;

	reinit_completion(&copier->done);
	tx->callback_result = copied;
	tx->callback_param = copier;

	err = dma_submit_error(dmaengine_submit(tx));
	if (err)
		return err;

	dma_async_issue_pending(copier->chan);

	if (!wait_for_completion_timeout(&copier->done, HZ)) {
		dmaengine_terminate_sync(copier->chan);
		return -ETIMEDOUT;
	}

	return copier->result == DMA_TRANS_NOERROR ? 0 : -EIO;
}

static noinline int engine_copy(struct dma_bench_copier *copier, void *buf)
{
	struct device *dev = copier->dev;
	dma_addr_t from, to;
	int err;

	from = dma_map_single(dev, buf, DMA_BENCH_FRAME, DMA_TO_DEVICE);
	if (dma_mapping_error(dev, from))
		return -ENOMEM;

	to = dma_map_single(dev, copier->target, DMA_BENCH_FRAME,
			    DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, to)) {
		err = -ENOMEM;
		goto out;
	}

	err = copy_mapped(copier, to, from);
	dma_unmap_single(dev, to, DMA_BENCH_FRAME, DMA_FROM_DEVICE);
out:
	dma_unmap_single(dev, from, DMA_BENCH_FRAME, DMA_TO_DEVICE);
	return err;
}

static noinline int engine_copy_lowest(struct dma_bench_copier *copier,
				       void *buf)
{
	struct device *dev = copier->dev;
	dma_addr_t from, to;
	int err;

	from = dma_map_phys(dev, virt_to_phys(buf), DMA_BENCH_FRAME,
			    DMA_TO_DEVICE, 0);
	if (dma_mapping_error(dev, from))
		return -ENOMEM;

	to = dma_map_phys(dev, virt_to_phys(copier->target), DMA_BENCH_FRAME,
			  DMA_FROM_DEVICE, 0);
	if (dma_mapping_error(dev, to)) {
		err = -ENOMEM;
		goto out;
	}

	err = copy_mapped(copier, to, from);
	dma_unmap_phys(dev, to, DMA_BENCH_FRAME, DMA_FROM_DEVICE, 0);
out:
	dma_unmap_phys(dev, from, DMA_BENCH_FRAME, DMA_TO_DEVICE, 0);
	return err;
}

static __always_inline int copies(struct dma_bench *bench, u32 n,
				  int (*step)(struct dma_bench_copier *copier,
					      void *buf))
{
	int err = 0;

	if (!bench->copier || bench->len < DMA_BENCH_FRAME)
		return -EINVAL;

	for (; n && !err; n--)
		err = step(bench->copier, bench->buf);

	return err;
}

DMA_BENCH_LOOP(engine_copy)
{
	return copies(bench, n, engine_copy);
}

DMA_BENCH_LOOP(engine_copy_lowest)
{
	return copies(bench, n, engine_copy_lowest);
}

int dma_bench_copier_set_up(struct dma_bench *bench)
{
	struct dma_bench_copier *copier = kzalloc_obj(*copier);
	dma_cap_mask_t mask;
	int err = -ENOMEM;

	if (!copier)
		return -ENOMEM;

	init_completion(&copier->done);

	copier->target = kzalloc(DMA_BENCH_FRAME, GFP_KERNEL);
	if (!copier->target)
		goto err_free;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);

	copier->chan = dma_request_chan_by_mask(&mask);
	if (IS_ERR(copier->chan)) {
		err = PTR_ERR(copier->chan);
		goto err_free;
	}

	copier->dev = dmaengine_get_dma_device(copier->chan);
	bench->copier = copier;
	return 0;

err_free:
	kfree(copier->target);
	kfree(copier);
	return err;
}

void dma_bench_copier_tear_down(struct dma_bench *bench)
{
	struct dma_bench_copier *copier = bench->copier;

	if (!copier)
		return;

	dmaengine_terminate_sync(copier->chan);
	dma_release_channel(copier->chan);
	kfree(copier->target);
	kfree(copier);
	bench->copier = NULL;
}
