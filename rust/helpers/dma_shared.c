// SPDX-License-Identifier: GPL-2.0

#include <linux/dma-mapping.h>
#include <linux/highmem.h>
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>

/*
 * Whether this is no place to free coherent memory: dma_free_attrs() warns with
 * interrupts off, and may unmap the memory, which isn't done where one may not
 * sleep. Without PREEMPT_COUNT nobody can tell.
 */
__rust_helper bool rust_helper_dma_frees_later(void)
{
	return !IS_ENABLED(CONFIG_PREEMPT_COUNT) || irqs_disabled() ||
	       preempt_count() || rcu_preempt_depth() > 0;
}

__rust_helper bool rust_helper_gfpflags_allow_blocking(gfp_t flags)
{
	return gfpflags_allow_blocking(flags);
}

__rust_helper unsigned long rust_helper_totalram_pages(void)
{
	return totalram_pages();
}

/* Without DMA nothing has this function, though its header declares it. */
__rust_helper struct page *
rust_helper_dma_noncoherent_alloc(struct device *dev, size_t size,
				  dma_addr_t *addr, enum dma_data_direction dir,
				  gfp_t flags)
{
	if (!IS_ENABLED(CONFIG_HAS_DMA))
		return NULL;

	return dma_alloc_pages(dev, size, addr, dir, flags);
}

__rust_helper void
rust_helper_dma_noncoherent_free(struct device *dev, size_t size,
				 struct page *page, dma_addr_t addr,
				 enum dma_data_direction dir)
{
	if (IS_ENABLED(CONFIG_HAS_DMA))
		dma_free_pages(dev, size, page, addr, dir);
}

__rust_helper void *rust_helper_dma_page_address(struct page *page)
{
	return page_address(page);
}

__rust_helper struct sg_table *
rust_helper_dma_pieces_alloc(struct device *dev, size_t size,
			     enum dma_data_direction dir, gfp_t flags)
{
	return dma_alloc_noncontiguous(dev, size, dir, flags, 0);
}

__rust_helper void *rust_helper_dma_pieces_vmap(struct device *dev, size_t size,
						struct sg_table *table)
{
	return dma_vmap_noncontiguous(dev, size, table);
}

/* If they are mapped for the CPU, at @cpu. */
__rust_helper void rust_helper_dma_pieces_free(struct device *dev, size_t size,
					       struct sg_table *table, void *cpu,
					       enum dma_data_direction dir)
{
	if (cpu)
		dma_vunmap_noncontiguous(dev, cpu);

	dma_free_noncontiguous(dev, size, table, dir);
}

__rust_helper void
rust_helper_dma_pieces_sync_for_cpu(struct device *dev, struct sg_table *table,
				    void *cpu, size_t size,
				    enum dma_data_direction dir)
{
	dma_sync_sgtable_for_cpu(dev, table, dir);
	invalidate_kernel_vmap_range(cpu, size);
}

__rust_helper void
rust_helper_dma_pieces_sync_for_device(struct device *dev,
				       struct sg_table *table, void *cpu,
				       size_t size, enum dma_data_direction dir)
{
	flush_kernel_vmap_range(cpu, size);
	dma_sync_sgtable_for_device(dev, table, dir);
}
