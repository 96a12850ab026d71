// SPDX-License-Identifier: GPL-2.0
/*
 * Rings of descriptors as the kernel's own e1000 driver has them: a buffer_info
 * for each descriptor, two indexes that each side reads of the other, one
 * doorbell a batch.
 */

#include <linux/io.h>
#include <linux/slab.h>

#include "bench.h"

struct dma_bench_buffer {
	void *data;
	dma_addr_t dma;
};

struct dma_bench_tx_ring {
	struct dma_bench_desc *desc;
	dma_addr_t dma;
	struct dma_bench_buffer *buffer_info;
	struct device *dev;
	struct dma_bench_device *device;
	void __iomem *tail;
	u32 count;
	u32 next_to_use;
	u32 next_to_clean;
	/* Frames that aren't under way. */
	void *spare[DMA_BENCH_BATCH];
	u32 spares;
};

struct dma_bench_rx_ring {
	struct dma_bench_desc *desc;
	dma_addr_t dma;
	struct dma_bench_buffer *buffer_info;
	struct device *dev;
	struct dma_bench_device *device;
	void __iomem *tail;
	u32 count;
	u32 next_to_use;
	u32 next_to_clean;
	u64 bytes;
	/* Buffers whose frames were received, and that of the slot left free. */
	void *spare[DMA_BENCH_BATCH + 1];
	u32 spares;
};

/* How many descriptors are free; one is never used. */
static __always_inline u32 desc_unused(u32 *next_to_clean, u32 *next_to_use,
				       u32 count)
{
	/* Pairs with the store where rings are cleaned. */
	u32 clean = smp_load_acquire(next_to_clean);
	u32 use = READ_ONCE(*next_to_use);

	return (clean > use ? 0 : count) + clean - use - 1;
}

static __always_inline u32 tx_unused(struct dma_bench_tx_ring *ring)
{
	return desc_unused(&ring->next_to_clean, &ring->next_to_use,
			   ring->count);
}

static __always_inline u32 rx_unused(struct dma_bench_rx_ring *ring)
{
	return desc_unused(&ring->next_to_clean, &ring->next_to_use,
			   ring->count);
}

static noinline int tx_post(struct dma_bench_tx_ring *ring, void *data)
{
	struct dma_bench_buffer *buffer_info;
	struct dma_bench_desc *desc;
	dma_addr_t dma;
	u32 i;

	if (unlikely(!tx_unused(ring)))
		return -EBUSY;

	dma = dma_map_single(ring->dev, data, DMA_BENCH_FRAME, DMA_TO_DEVICE);
	if (dma_mapping_error(ring->dev, dma))
		return -ENOMEM;

	i = ring->next_to_use;
	buffer_info = &ring->buffer_info[i];
	buffer_info->data = data;
	buffer_info->dma = dma;

	desc = &ring->desc[i];
	desc->addr = cpu_to_le64(dma);
	desc->len = cpu_to_le32(DMA_BENCH_FRAME);
	desc->status = 0;

	if (unlikely(++i == ring->count))
		i = 0;

	ring->next_to_use = i;
	return 0;
}

static __always_inline void kick(u32 next_to_use, void __iomem *tail,
				 struct dma_bench_device *device)
{
	/* writel() orders it after the descriptors. */
	writel(next_to_use, tail);
	dma_bench_device_run(device);
}

static noinline void tx_clean(struct dma_bench_tx_ring *ring)
{
	u32 i = ring->next_to_clean;
	struct dma_bench_buffer *buffer_info;
	struct dma_bench_desc *desc;

	while (i != READ_ONCE(ring->next_to_use)) {
		desc = &ring->desc[i];

		if (!(READ_ONCE(desc->status) &
		      cpu_to_le32(DMA_BENCH_DESC_DONE)))
			break;

		/* Done before the rest. */
		dma_rmb();

		buffer_info = &ring->buffer_info[i];
		dma_unmap_single(ring->dev, buffer_info->dma, DMA_BENCH_FRAME,
				 DMA_TO_DEVICE);
		ring->spare[ring->spares++] = buffer_info->data;
		buffer_info->data = NULL;

		if (unlikely(++i == ring->count))
			i = 0;
	}

	/* Pairs with desc_unused(). */
	smp_store_release(&ring->next_to_clean, i);
}

DMA_BENCH_LOOP(post_reap)
{
	struct dma_bench_tx_ring *ring = bench->tx;
	u32 i, batch = bench->batch;
	int err;

	/* A run that failed may have left them in the ring. */
	if (!ring || ring->spares < batch)
		return -EINVAL;

	for (; n; n -= batch) {
		for (i = 0; i < batch; i++) {
			err = tx_post(ring, ring->spare[--ring->spares]);
			if (err) {
				ring->spares++;
				return err;
			}
		}

		kick(ring->next_to_use, ring->tail, ring->device);
		tx_clean(ring);
	}

	return 0;
}

/* What the device costs, which isn't to be counted. */
DMA_BENCH_LOOP(device)
{
	struct dma_bench_device *device;
	u32 batch = bench->batch;
	u32 next;

	if (!bench->tx)
		return -EINVAL;

	device = bench->tx->device;
	next = device->next;

	for (; n; n -= batch)
		dma_bench_device_run(device);

	device->next = next;
	return 0;
}

static int rx_map(struct dma_bench_rx_ring *ring,
		  struct dma_bench_buffer *buffer_info, void *data)
{
	dma_addr_t dma = dma_map_single(ring->dev, data, DMA_BENCH_FRAME,
					DMA_FROM_DEVICE);

	if (dma_mapping_error(ring->dev, dma))
		return -ENOMEM;

	buffer_info->data = data;
	buffer_info->dma = dma;
	return 0;
}

/* Posts what is there, or maps and posts a buffer where there is none. */
static noinline int rx_refill(struct dma_bench_rx_ring *ring)
{
	struct dma_bench_buffer *buffer_info;
	struct dma_bench_desc *desc;
	u32 i = ring->next_to_use;
	u32 room = rx_unused(ring);
	int err = 0;

	for (; room; room--) {
		buffer_info = &ring->buffer_info[i];

		if (!buffer_info->data) {
			if (!ring->spares) {
				err = -ENOMEM;
				break;
			}

			err = rx_map(ring, buffer_info,
				     ring->spare[ring->spares - 1]);
			if (err)
				break;

			ring->spares--;
		}

		desc = &ring->desc[i];
		desc->addr = cpu_to_le64(buffer_info->dma);
		desc->len = 0;
		desc->status = 0;

		if (unlikely(++i == ring->count))
			i = 0;
	}

	if (ring->next_to_use != i) {
		ring->next_to_use = i;
		kick(i, ring->tail, ring->device);
	}

	return err;
}

static __always_inline void rx_clean(struct dma_bench_rx_ring *ring, bool unmap)
{
	u32 i = ring->next_to_clean;
	struct dma_bench_buffer *buffer_info;
	struct dma_bench_desc *desc;
	u32 len, status;

	while (i != READ_ONCE(ring->next_to_use)) {
		desc = &ring->desc[i];
		status = le32_to_cpu(READ_ONCE(desc->status));

		if (!(status & DMA_BENCH_DESC_DONE))
			break;

		/* Done before the rest. */
		dma_rmb();

		len = le32_to_cpu(desc->len);

		/* What the device says can't be true, or isn't all of it. */
		if (unlikely(len > DMA_BENCH_FRAME ||
			     !(status & DMA_BENCH_DESC_END)))
			goto next;

		buffer_info = &ring->buffer_info[i];
		ring->bytes += len;

		if (unmap) {
			dma_unmap_single(ring->dev, buffer_info->dma,
					 DMA_BENCH_FRAME, DMA_FROM_DEVICE);
			ring->spare[ring->spares++] = buffer_info->data;
			buffer_info->data = NULL;
		} else {
			dma_sync_single_for_cpu(ring->dev, buffer_info->dma,
						len, DMA_FROM_DEVICE);
		}

next:
		if (unlikely(++i == ring->count))
			i = 0;
	}

	/* Pairs with desc_unused(). */
	smp_store_release(&ring->next_to_clean, i);
}

static noinline void rx_clean_recycle(struct dma_bench_rx_ring *ring)
{
	rx_clean(ring, false);
}

static noinline void rx_clean_unmap(struct dma_bench_rx_ring *ring)
{
	rx_clean(ring, true);
}

static __always_inline int receive(struct dma_bench *bench, u32 n,
				   void (*clean)(struct dma_bench_rx_ring *))
{
	u32 batch = bench->batch;
	int err = 0;

	if (!bench->rx)
		return -EINVAL;

	for (; n && !err; n -= batch) {
		clean(bench->rx);
		err = rx_refill(bench->rx);
	}

	return err;
}

DMA_BENCH_LOOP(receive_recycle)
{
	return receive(bench, n, rx_clean_recycle);
}

DMA_BENCH_LOOP(receive_unmap)
{
	return receive(bench, n, rx_clean_unmap);
}

/* What a ring needs for a descriptor, besides the descriptor. */
u32 dma_bench_slot_size(void)
{
	return sizeof(struct dma_bench_buffer);
}

static int tx_set_up(struct dma_bench *bench, u32 len)
{
	struct dma_bench_tx_ring *ring;

	ring = kzalloc_obj(*ring);
	if (!ring)
		return -ENOMEM;

	bench->tx = ring;
	ring->dev = bench->dev;
	ring->tail = bench->regs + DMA_BENCH_TAIL;
	ring->count = len;

	ring->buffer_info = kvzalloc_objs(*ring->buffer_info, len);
	ring->desc = dma_alloc_coherent(bench->dev, len * sizeof(*ring->desc),
					&ring->dma, GFP_KERNEL);
	if (!ring->buffer_info || !ring->desc)
		return -ENOMEM;

	for (; ring->spares < DMA_BENCH_BATCH; ring->spares++) {
		ring->spare[ring->spares] = kzalloc(DMA_BENCH_FRAME,
						    GFP_KERNEL);
		if (!ring->spare[ring->spares])
			return -ENOMEM;
	}

	ring->device = dma_bench_device_new(dev_name(ring->dev));
	if (!ring->device)
		return -ENOMEM;

	dma_bench_device_set_batch(ring->device, bench->batch);
	return dma_bench_device_attach(ring->device, ring->dma, len);
}

static void tx_tear_down(struct dma_bench *bench)
{
	struct dma_bench_tx_ring *ring = bench->tx;

	if (!ring)
		return;

	/* A loop that failed may have left some. */
	if (ring->device) {
		dma_bench_device_run(ring->device);
		tx_clean(ring);
	}

	while (ring->spares)
		kfree(ring->spare[--ring->spares]);
	if (ring->desc)
		dma_free_coherent(ring->dev, ring->count * sizeof(*ring->desc),
				  ring->desc, ring->dma);
	dma_bench_device_free(ring->device);
	kvfree(ring->buffer_info);
	kfree(ring);
	bench->tx = NULL;
}

static int rx_set_up(struct dma_bench *bench, u32 len)
{
	struct dma_bench_rx_ring *ring;
	u32 i;
	int err;

	ring = kzalloc_obj(*ring);
	if (!ring)
		return -ENOMEM;

	bench->rx = ring;
	ring->dev = bench->dev;
	ring->tail = bench->regs + DMA_BENCH_TAIL;
	ring->count = len;

	ring->buffer_info = kvzalloc_objs(*ring->buffer_info, len);
	ring->desc = dma_alloc_coherent(bench->dev, len * sizeof(*ring->desc),
					&ring->dma, GFP_KERNEL);
	if (!ring->buffer_info || !ring->desc)
		return -ENOMEM;

	for (i = 0; i < len; i++) {
		void *data = kzalloc(DMA_BENCH_FRAME, GFP_KERNEL);

		if (!data)
			return -ENOMEM;

		err = rx_map(ring, &ring->buffer_info[i], data);
		if (err) {
			kfree(data);
			return err;
		}
	}

	ring->device = dma_bench_device_new(dev_name(ring->dev));
	if (!ring->device)
		return -ENOMEM;

	dma_bench_device_set_batch(ring->device, bench->batch);
	err = dma_bench_device_attach(ring->device, ring->dma, len);
	if (err)
		return err;

	return rx_refill(ring);
}

static void rx_tear_down(struct dma_bench *bench)
{
	struct dma_bench_rx_ring *ring = bench->rx;
	u32 i;

	if (!ring)
		return;

	for (i = 0; ring->buffer_info && i < ring->count; i++) {
		struct dma_bench_buffer *buffer_info = &ring->buffer_info[i];

		if (buffer_info->data)
			dma_unmap_single(ring->dev, buffer_info->dma,
					 DMA_BENCH_FRAME, DMA_FROM_DEVICE);
		kfree(buffer_info->data);
	}

	while (ring->spares)
		kfree(ring->spare[--ring->spares]);

	if (ring->desc)
		dma_free_coherent(ring->dev, ring->count * sizeof(*ring->desc),
				  ring->desc, ring->dma);
	dma_bench_device_free(ring->device);
	kvfree(ring->buffer_info);
	kfree(ring);
	bench->rx = NULL;
}

int dma_bench_rings_set_up(struct dma_bench *bench, u32 len)
{
	int err = tx_set_up(bench, len);

	return err ?: rx_set_up(bench, len);
}

void dma_bench_rings_tear_down(struct dma_bench *bench)
{
	tx_tear_down(bench);
	rx_tear_down(bench);
}
