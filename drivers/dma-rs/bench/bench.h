/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _DMA_RS_BENCH_H
#define _DMA_RS_BENCH_H

#include <linux/dma-mapping.h>
#include <linux/types.h>

/* What the Rust half knows by the same values. */
#define DMA_BENCH_DESC_DONE	BIT(0)
#define DMA_BENCH_DESC_END	BIT(1)
#define DMA_BENCH_FRAME		2048
#define DMA_BENCH_RECEIVED	1514
#define DMA_BENCH_COPIED	64
#define DMA_BENCH_COHERENT	4096
#define DMA_BENCH_BLOCK		64
#define DMA_BENCH_TAIL		4
#define DMA_BENCH_BATCH		32

/* A descriptor, as most devices have it: little endian. */
struct dma_bench_desc {
	__le64 addr;
	__le32 len;
	__le32 status;
};

/*
 * The "device" of a ring: when it is told of buffers, it marks the next ones as
 * done, so that what is counted is the CPU's work alone. It finds descriptors by
 * their pages, which need not be next to each other where it doesn't look
 * through an IOMMU.
 */
struct dma_bench_device {
	struct device *dev;
	struct dma_bench_desc *pages[16];
	u32 mask;
	u32 next;
	/* How many it works off each time. */
	u32 batch;
};

struct dma_bench_tx_ring;
struct dma_bench_rx_ring;

/* The C half. */
struct dma_bench {
	struct pci_dev *pdev;
	struct device *dev;
	void __iomem *regs;
	struct dma_pool *pool;
	/* What is mapped: the same as in Rust, which lends it to each run. */
	void *buf;
	size_t len;
	u32 batch;
	struct dma_bench_tx_ring *tx;
	struct dma_bench_rx_ring *rx;
};

struct dma_bench_device *dma_bench_device_new(const char *name);
void dma_bench_device_free(struct dma_bench_device *device);
void dma_bench_device_set_batch(struct dma_bench_device *device, u32 batch);
int dma_bench_device_attach(struct dma_bench_device *device, dma_addr_t addr,
			    u32 len);
void dma_bench_device_run(struct dma_bench_device *device);

struct dma_bench *dma_bench_open(const char *name);
void dma_bench_close(struct dma_bench *bench);
int dma_bench_prepare(struct dma_bench *bench, u32 batch, u32 ring);
int dma_bench_run(struct dma_bench *bench,
		  int (*loop)(struct dma_bench *bench, u32 n),
		  void *buf, size_t len, u32 n);
u32 dma_bench_slot_size(void);

/* A loop, which is named in Rust, and called by dma_bench_run(). */
#define DMA_BENCH_LOOP(name)						\
int dma_bench_##name(struct dma_bench *bench, u32 n);			\
int dma_bench_##name(struct dma_bench *bench, u32 n)

int dma_bench_rings_set_up(struct dma_bench *bench, u32 len);
void dma_bench_rings_tear_down(struct dma_bench *bench);

#endif
