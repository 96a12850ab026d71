// SPDX-License-Identifier: GPL-2.0
/*
 * Mapping, syncing and allocating as C drivers do it.
 *
 * What is done once is in a function that isn't inlined, as in the Rust half,
 * so that the compiler can't take any of it out of the loop.
 */

#include <linux/dmapool.h>
#include <linux/io.h>
#include <linux/scatterlist.h>

#include "bench.h"

/* Does something with so much of the buffer, again and again. */
static __always_inline int again(struct dma_bench *bench, u32 n, size_t len,
				 int (*step)(struct device *dev, void *buf))
{
	struct device *dev = bench->dev;
	void *buf = bench->buf;
	int err = 0;

	if (bench->len < len)
		return -EINVAL;

	for (; n && !err; n--)
		err = step(dev, buf);

	return err;
}

/* Does nothing: what a loop costs. */
static noinline int nothing(struct device *dev, void *buf)
{
	barrier();
	return 0;
}

DMA_BENCH_LOOP(nothing)
{
	return again(bench, n, 0, nothing);
}

static __always_inline int map_unmap(struct device *dev, void *buf, size_t len,
				     enum dma_data_direction dir)
{
	dma_addr_t addr = dma_map_single(dev, buf, len, dir);

	if (dma_mapping_error(dev, addr))
		return -ENOMEM;

	dma_unmap_single(dev, addr, len, dir);
	return 0;
}

static __always_inline int map_unmap_phys(struct device *dev, void *buf,
					  size_t len,
					  enum dma_data_direction dir)
{
	dma_addr_t addr = dma_map_phys(dev, virt_to_phys(buf), len, dir, 0);

	if (dma_mapping_error(dev, addr))
		return -ENOMEM;

	dma_unmap_phys(dev, addr, len, dir, 0);
	return 0;
}

#define LEN_64		64
#define LEN_2048	DMA_BENCH_FRAME
#define LEN_65536	65536

#define DMA_BENCH_MAP_UNMAP(way, size, name, dir)			\
static noinline int way##_##size##_##name(struct device *dev, void *buf) \
{									\
	return way(dev, buf, LEN_##size, dir);				\
}									\
									\
DMA_BENCH_LOOP(way##_##size##_##name)					\
{									\
	return again(bench, n, LEN_##size, way##_##size##_##name);	\
}

DMA_BENCH_MAP_UNMAP(map_unmap, 64, to, DMA_TO_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap, 64, from, DMA_FROM_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap, 64, both, DMA_BIDIRECTIONAL)
DMA_BENCH_MAP_UNMAP(map_unmap, 2048, to, DMA_TO_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap, 2048, from, DMA_FROM_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap, 2048, both, DMA_BIDIRECTIONAL)
DMA_BENCH_MAP_UNMAP(map_unmap, 65536, to, DMA_TO_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap, 65536, from, DMA_FROM_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap, 65536, both, DMA_BIDIRECTIONAL)

DMA_BENCH_MAP_UNMAP(map_unmap_phys, 64, to, DMA_TO_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 64, from, DMA_FROM_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 64, both, DMA_BIDIRECTIONAL)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 2048, to, DMA_TO_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 2048, from, DMA_FROM_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 2048, both, DMA_BIDIRECTIONAL)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 65536, to, DMA_TO_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 65536, from, DMA_FROM_DEVICE)
DMA_BENCH_MAP_UNMAP(map_unmap_phys, 65536, both, DMA_BIDIRECTIONAL)

/*
 * A buffer that stays mapped, and changes hands again and again. Only what the
 * other side may have written is synced (Documentation/core-api/dma-api-howto.rst).
 */
static __always_inline void pass_to(struct device *dev, dma_addr_t addr)
{
	dma_sync_single_for_device(dev, addr, DMA_BENCH_FRAME, DMA_TO_DEVICE);
}

static __always_inline void pass_from(struct device *dev, dma_addr_t addr)
{
	dma_sync_single_for_cpu(dev, addr, DMA_BENCH_FRAME, DMA_FROM_DEVICE);
}

static __always_inline void pass_both(struct device *dev, dma_addr_t addr)
{
	dma_sync_single_for_device(dev, addr, DMA_BENCH_FRAME,
				   DMA_BIDIRECTIONAL);
	dma_sync_single_for_cpu(dev, addr, DMA_BENCH_FRAME, DMA_BIDIRECTIONAL);
}

static __always_inline void pass_part(struct device *dev, dma_addr_t addr)
{
	dma_sync_single_for_cpu(dev, addr, DMA_BENCH_COPIED, DMA_FROM_DEVICE);
}

static __always_inline int pass(struct dma_bench *bench, u32 n,
				enum dma_data_direction dir,
				void (*step)(struct device *dev,
					     dma_addr_t addr))
{
	dma_addr_t addr;

	if (bench->len < DMA_BENCH_FRAME)
		return -EINVAL;

	addr = dma_map_single(bench->dev, bench->buf, DMA_BENCH_FRAME, dir);
	if (dma_mapping_error(bench->dev, addr))
		return -ENOMEM;

	for (; n; n--) {
		step(bench->dev, addr);
		/* Somebody else has accessed memory meanwhile. */
		barrier();
	}

	dma_unmap_single(bench->dev, addr, DMA_BENCH_FRAME, dir);
	return 0;
}

DMA_BENCH_LOOP(pass_to)
{
	return pass(bench, n, DMA_TO_DEVICE, pass_to);
}

DMA_BENCH_LOOP(pass_from)
{
	return pass(bench, n, DMA_FROM_DEVICE, pass_from);
}

DMA_BENCH_LOOP(pass_both)
{
	return pass(bench, n, DMA_BIDIRECTIONAL, pass_both);
}

DMA_BENCH_LOOP(pass_part)
{
	return pass(bench, n, DMA_FROM_DEVICE, pass_part);
}

/* Drivers keep their pool in a structure of theirs. */
static noinline int pool(struct dma_bench *bench)
{
	dma_addr_t addr;
	void *block = dma_pool_zalloc(bench->pool, GFP_ATOMIC, &addr);

	if (!block)
		return -ENOMEM;

	dma_pool_free(bench->pool, block, addr);
	return 0;
}

DMA_BENCH_LOOP(pool)
{
	for (; n; n--) {
		int err = pool(bench);

		if (err)
			return err;
	}

	return 0;
}

static noinline int coherent(struct device *dev, void *unused)
{
	dma_addr_t addr;
	void *memory = dma_alloc_coherent(dev, DMA_BENCH_COHERENT, &addr,
					  GFP_KERNEL);

	if (!memory)
		return -ENOMEM;

	dma_free_coherent(dev, DMA_BENCH_COHERENT, memory, addr);
	return 0;
}

DMA_BENCH_LOOP(coherent)
{
	return again(bench, n, 0, coherent);
}

static noinline int pages(struct device *dev, void *unused)
{
	dma_addr_t addr;
	struct page *page = dma_alloc_pages(dev, DMA_BENCH_COHERENT, &addr,
					    DMA_FROM_DEVICE,
					    GFP_KERNEL | __GFP_ZERO);

	if (!page)
		return -ENOMEM;

	dma_free_pages(dev, DMA_BENCH_COHERENT, page, addr, DMA_FROM_DEVICE);
	return 0;
}

DMA_BENCH_LOOP(pages)
{
	return again(bench, n, 0, pages);
}

/*
 * Lists of pages. What is mapped is an array of pointers to them then. Pages that
 * follow each other share an entry, as long as the device takes it.
 */
static int list_of_pages(struct sg_table *table, struct dma_bench *bench,
			 struct page **pages)
{
	unsigned int count = bench->len / sizeof(void *);

	return sg_alloc_table_from_pages_segment(table, pages, count, 0,
						 (size_t)count << PAGE_SHIFT,
						 dma_get_max_seg_size(bench->dev),
						 GFP_KERNEL);
}

/* An entry for each, whatever the device takes. */
static int list_of_buffers(struct sg_table *table, struct dma_bench *bench,
			   struct page **pages)
{
	void **buffers = bench->buf;
	struct scatterlist *sg;
	unsigned int i;
	int err;

	err = sg_alloc_table(table, bench->len / sizeof(*buffers), GFP_KERNEL);
	if (err)
		return err;

	for_each_sgtable_sg(table, sg, i)
		sg_set_buf(sg, buffers[i], PAGE_SIZE);

	return 0;
}

static __always_inline int map_list(struct dma_bench *bench,
				    struct page **pages,
				    int (*alloc)(struct sg_table *table,
						 struct dma_bench *bench,
						 struct page **pages))
{
	struct sg_table table;
	int err;

	err = alloc(&table, bench, pages);
	if (err)
		return err;

	err = dma_map_sgtable(bench->dev, &table, DMA_TO_DEVICE, 0);
	if (!err)
		dma_unmap_sgtable(bench->dev, &table, DMA_TO_DEVICE, 0);

	sg_free_table(&table);
	return err;
}

static noinline int list_map_unmap(struct dma_bench *bench, struct page **pages)
{
	return map_list(bench, pages, list_of_pages);
}

static noinline int list_lowest(struct dma_bench *bench, struct page **pages)
{
	return map_list(bench, pages, list_of_buffers);
}

static __always_inline int lists(struct dma_bench *bench, u32 n,
				 int (*step)(struct dma_bench *bench,
					     struct page **pages))
{
	unsigned int i, count = bench->len / sizeof(void *);
	void **buffers = bench->buf;
	struct page **pages;
	int err = 0;

	pages = kmalloc_objs(*pages, count);
	if (!pages)
		return -ENOMEM;

	for (i = 0; i < count; i++)
		pages[i] = virt_to_page(buffers[i]);

	for (; n && !err; n--)
		err = step(bench, pages);

	kfree(pages);
	return err;
}

DMA_BENCH_LOOP(list)
{
	return lists(bench, n, list_map_unmap);
}

DMA_BENCH_LOOP(list_lowest)
{
	return lists(bench, n, list_lowest);
}

/* A list that stays mapped, and changes hands again and again. */
DMA_BENCH_LOOP(list_pass)
{
	struct sg_table table;
	int err;

	err = list_of_buffers(&table, bench, NULL);
	if (err)
		return err;

	err = dma_map_sgtable(bench->dev, &table, DMA_FROM_DEVICE, 0);
	if (err)
		goto out;

	for (; n; n--) {
		dma_sync_sgtable_for_cpu(bench->dev, &table, DMA_FROM_DEVICE);
		/* Somebody else has accessed memory meanwhile. */
		barrier();
	}

	dma_unmap_sgtable(bench->dev, &table, DMA_FROM_DEVICE, 0);
out:
	sg_free_table(&table);
	return err;
}

/*
 * A mailbox in coherent memory: what the other side has written is read before
 * its state, and written after it.
 */
struct mailbox {
	__le32 index;
	__le32 argument;
};

static noinline u32 read_word(struct dma_bench *bench)
{
	struct mailbox *mailbox = bench->memory;
	u32 index = le32_to_cpu(READ_ONCE(mailbox->index));

	dma_rmb();
	return index;
}

static noinline void write_word(struct dma_bench *bench, u32 argument)
{
	struct mailbox *mailbox = bench->memory;

	dma_wmb();
	WRITE_ONCE(mailbox->argument, cpu_to_le32(argument));
}

DMA_BENCH_LOOP(read_word)
{
	u32 sum = 0;

	for (; n; n--)
		sum += read_word(bench);

	/* Nobody has written anything. */
	return sum ? -EIO : 0;
}

DMA_BENCH_LOOP(write_word)
{
	for (; n; n--)
		write_word(bench, n);

	return 0;
}
