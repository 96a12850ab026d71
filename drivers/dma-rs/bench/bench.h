/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _DMA_RS_BENCH_H
#define _DMA_RS_BENCH_H

#include <linux/dma-mapping.h>
#include <linux/types.h>

/* What the Rust half knows by the same values. */
#define DMA_BENCH_DESC_DONE	BIT(0)
#define DMA_BENCH_DESC_END	BIT(1)
#define DMA_BENCH_FRAME		2048
#define DMA_BENCH_LARGE		65536
#define DMA_BENCH_RECEIVED	1514
#define DMA_BENCH_COPIED	64
#define DMA_BENCH_COHERENT	4096
#define DMA_BENCH_BLOCK		64
#define DMA_BENCH_TAIL		4
#define DMA_BENCH_HEAD		8
#define DMA_BENCH_BATCH		32
#define DMA_BENCH_TAGS		32
#define DMA_BENCH_COMMANDS	64
#define DMA_BENCH_COMPLETIONS	128

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

/* A command, and a completion, as NVMe has them. */
struct dma_bench_command {
	/* What is to be done, and from bit 16 on what the device echoes. */
	__le32 head;
	__le32 namespace;
	__le64 unused[2];
	__le64 prp1;
	__le64 prp2;
	__le64 block;
	__le32 blocks;
	__le32 more[3];
};

struct dma_bench_completion {
	__le64 result;
	__le16 head;
	__le16 queue;
	__le16 id;
	/* Bit 0 is the phase. */
	__le16 status;
};

/*
 * The "device" of queues: when it is told of commands, it completes them at
 * once. A queue has one page at most.
 */
struct dma_bench_controller {
	struct device *dev;
	struct dma_bench_command *commands;
	struct dma_bench_completion *completions;
	u32 commands_mask;
	u32 completions_mask;
	u32 next_command;
	u32 next_completion;
	u16 phase;
};

struct dma_bench_tx_ring;
struct dma_bench_rx_ring;
struct dma_bench_queue;
struct dma_bench_copier;

/* The C half. */
struct dma_bench {
	struct pci_dev *pdev;
	struct device *dev;
	void __iomem *regs;
	struct dma_pool *pool;
	/* A page of coherent memory. */
	void *memory;
	dma_addr_t memory_addr;
	/* What is mapped: the same as in Rust, which lends it to each run. */
	void *buf;
	size_t len;
	u32 batch;
	struct dma_bench_tx_ring *tx;
	struct dma_bench_rx_ring *rx;
	struct dma_bench_queue *queue;
	struct dma_bench_copier *copier;
};

struct dma_bench_device *dma_bench_device_new(const char *name);
void dma_bench_device_free(struct dma_bench_device *device);
void dma_bench_device_set_batch(struct dma_bench_device *device, u32 batch);
int dma_bench_device_attach(struct dma_bench_device *device, dma_addr_t addr,
			    u32 len);
void dma_bench_device_run(struct dma_bench_device *device);

struct dma_bench_controller *dma_bench_controller_new(const char *name);
void dma_bench_controller_free(struct dma_bench_controller *device);
int
dma_bench_controller_attach_commands(struct dma_bench_controller *device,
				     dma_addr_t addr, u32 len);
int
dma_bench_controller_attach_completions(struct dma_bench_controller *device,
					dma_addr_t addr, u32 len);
void dma_bench_controller_run(struct dma_bench_controller *device, u32 tail);

struct dma_bench *dma_bench_open(const char *name);
void dma_bench_close(struct dma_bench *bench);
int dma_bench_prepare(struct dma_bench *bench, u32 batch, u32 ring, bool queue,
		      bool copies);
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
int dma_bench_queue_set_up(struct dma_bench *bench);
void dma_bench_queue_tear_down(struct dma_bench *bench);
int dma_bench_copier_set_up(struct dma_bench *bench);
void dma_bench_copier_tear_down(struct dma_bench *bench);

#endif
