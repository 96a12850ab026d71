// SPDX-License-Identifier: GPL-2.0

#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/radix-tree.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/swiotlb.h>
#include <linux/vmalloc.h>

__rust_helper u64 rust_helper_dma_get_mask(struct device *dev)
{
	return dma_get_mask(dev);
}

__rust_helper void rust_helper_dma_set_seg_boundary(struct device *dev,
						    unsigned long mask)
{
	dma_set_seg_boundary(dev, mask);
}

__rust_helper void rust_helper_dma_set_min_align_mask(struct device *dev,
						      unsigned int mask)
{
	dma_set_min_align_mask(dev, mask);
}

__rust_helper int rust_helper_dma_get_cache_alignment(void)
{
	return dma_get_cache_alignment();
}

__rust_helper bool rust_helper_dev_is_dma_coherent(struct device *dev)
{
	return dev_is_dma_coherent(dev);
}

__rust_helper bool rust_helper_dma_dev_need_sync(const struct device *dev)
{
	return dma_dev_need_sync(dev);
}

__rust_helper int rust_helper_dev_to_node(struct device *dev)
{
	return dev_to_node(dev);
}

/*
 * As virt_to_phys(), for memory that is in the linear map, and not in the
 * kernel's image, for which x86 and arm64 would look.
 */
__rust_helper phys_addr_t rust_helper_dma_linear_to_phys(const void *address)
{
#if defined(CONFIG_X86_64) && !defined(CONFIG_DEBUG_VIRTUAL)
	return (unsigned long)address - PAGE_OFFSET;
#elif defined(CONFIG_ARM64) && !defined(CONFIG_DEBUG_VIRTUAL)
	return __lm_to_phys(__tag_reset((unsigned long)address));
#else
	return virt_to_phys((void *)address);
#endif
}

__rust_helper int rust_helper_dma_mapping_error(struct device *dev,
						dma_addr_t addr)
{
	return dma_mapping_error(dev, addr);
}

__rust_helper void
rust_helper_dma_sync_single_for_cpu(struct device *dev, dma_addr_t addr,
				    size_t size, enum dma_data_direction dir)
{
	dma_sync_single_for_cpu(dev, addr, size, dir);
}

__rust_helper void
rust_helper_dma_sync_single_for_device(struct device *dev, dma_addr_t addr,
				       size_t size, enum dma_data_direction dir)
{
	dma_sync_single_for_device(dev, addr, size, dir);
}

__rust_helper unsigned int
rust_helper_dma_get_max_seg_size(struct device *dev)
{
	return dma_get_max_seg_size(dev);
}

__rust_helper unsigned long
rust_helper_dma_get_seg_boundary(struct device *dev)
{
	return dma_get_seg_boundary(dev);
}

/*
 * Where a byte of a vmalloc area is.
 */
__rust_helper phys_addr_t rust_helper_dma_vmalloc_to_phys(const void *address)
{
	return page_to_phys(vmalloc_to_page(address)) + offset_in_page(address);
}

/*
 * Takes a reference to a page that came from the page allocator by itself,
 * unless there are too many. free_page() gives it back.
 */
__rust_helper bool rust_helper_dma_get_page(const void *address)
{
	return try_get_page(virt_to_page(address));
}

__rust_helper void rust_helper_dma_sg_set_piece(struct scatterlist *sg,
						phys_addr_t phys,
						unsigned int len)
{
	sg_set_page(sg, pfn_to_page(PHYS_PFN(phys)), len, offset_in_page(phys));
}

__rust_helper void rust_helper_sg_mark_end(struct scatterlist *sg)
{
	sg_mark_end(sg);
}

__rust_helper void
rust_helper_dma_sync_sgtable_for_cpu(struct device *dev, struct sg_table *sgt,
				     enum dma_data_direction dir)
{
	dma_sync_sgtable_for_cpu(dev, sgt, dir);
}

__rust_helper void
rust_helper_dma_sync_sgtable_for_device(struct device *dev,
					struct sg_table *sgt,
					enum dma_data_direction dir)
{
	dma_sync_sgtable_for_device(dev, sgt, dir);
}

/*
 * Whether a buffer that was allocated with that size is bounced, so that it may
 * share a cache line with something else. Custom operations don't do so.
 */
__rust_helper bool rust_helper_dma_bounces_unaligned(struct device *dev,
						     size_t size,
						     enum dma_data_direction dir)
{
#ifdef CONFIG_ARCH_HAS_DMA_OPS
	if (dev->dma_ops)
		return false;
#endif
	return dma_kmalloc_needs_bounce(dev, size, dir) &&
	       is_swiotlb_active(dev);
}

/*
 * Keeps the module of a function from being unloaded while a device is bound.
 * NULL stands for code that isn't: the kernel's, and that of the device's
 * driver, which is unbound when its module goes, before the code does.
 */
__rust_helper bool rust_helper_dma_pin_code(const struct device *dev,
					    unsigned long function,
					    struct module **module)
{
	bool pinned;

	rcu_read_lock();
	*module = __module_text_address(function);
	if (dev->driver && dev->driver->owner == *module)
		*module = NULL;
	pinned = try_module_get(*module);
	rcu_read_unlock();

	return pinned;
}

__rust_helper void rust_helper_dma_unpin_code(struct module *module)
{
	module_put(module);
}

/*
 * A section for which synchronize_rcu() waits. Without preemption is what costs
 * the least, but with PREEMPT_RT the locks that drivers take meanwhile sleep.
 */
__rust_helper void rust_helper_dma_running_enter(void)
{
#ifdef CONFIG_PREEMPT_RT
	rcu_read_lock();
#else
	preempt_disable();
	rcu_lock_acquire(&rcu_lock_map);
#endif
}

__rust_helper void rust_helper_dma_running_exit(void)
{
#ifdef CONFIG_PREEMPT_RT
	rcu_read_unlock();
#else
	rcu_lock_release(&rcu_lock_map);
	preempt_enable();
#endif
}

#ifdef CONFIG_MMIOWB
__rust_helper void rust_helper_mmiowb(void)
{
	mmiowb();
}
#endif

#ifdef CONFIG_RUST_DMA_FIXTURE
__rust_helper void *rust_helper_phys_to_virt(phys_addr_t address)
{
	return phys_to_virt(address);
}

__rust_helper void rust_helper_dev_assign_dma_coherent(struct device *dev,
						       bool coherent)
{
	dev_assign_dma_coherent(dev, coherent);
}

#ifdef CONFIG_FAULT_INJECTION
/*
 * Has the n-th allocation of this thread fail, from now on. dma-debug keeps what
 * is mapped in a radix tree, and is off for good if it gets no node for that: so
 * this CPU, where the thread stays, gets spare ones.
 */
__rust_helper int rust_helper_dma_fault_begin(unsigned int nth)
{
	int err;

	migrate_disable();
	err = radix_tree_preload(GFP_KERNEL);
	if (err) {
		migrate_enable();
		return err;
	}
	radix_tree_preload_end();
	WRITE_ONCE(current->fail_nth, nth);
	return 0;
}

/*
 * No more allocations fail. Returns zero if one did.
 */
__rust_helper unsigned int rust_helper_dma_fault_end(void)
{
	unsigned int left = READ_ONCE(current->fail_nth);

	WRITE_ONCE(current->fail_nth, 0);
	migrate_enable();
	return left;
}
#endif /* CONFIG_FAULT_INJECTION */
#endif /* CONFIG_RUST_DMA_FIXTURE */

#ifndef CONFIG_HAS_DMA
/*
 * Stubs in C, too: a driver compiles, but has no mask, and nothing is mapped or
 * allocated. The pool is a void pointer, since without the functions nothing
 * declares its type.
 */
__rust_helper dma_addr_t rust_helper_dma_map_phys(struct device *dev,
						  phys_addr_t phys, size_t size,
						  enum dma_data_direction dir,
						  unsigned long attrs)
{
	return dma_map_phys(dev, phys, size, dir, attrs);
}

__rust_helper void rust_helper_dma_unmap_phys(struct device *dev,
					      dma_addr_t addr, size_t size,
					      enum dma_data_direction dir,
					      unsigned long attrs)
{
	dma_unmap_phys(dev, addr, size, dir, attrs);
}

__rust_helper u64 rust_helper_dma_get_required_mask(struct device *dev)
{
	return dma_get_required_mask(dev);
}

__rust_helper bool rust_helper_dma_addressing_limited(struct device *dev)
{
	return dma_addressing_limited(dev);
}

__rust_helper size_t rust_helper_dma_opt_mapping_size(struct device *dev)
{
	return dma_opt_mapping_size(dev);
}

__rust_helper unsigned long rust_helper_dma_get_merge_boundary(struct device *dev)
{
	return dma_get_merge_boundary(dev);
}

__rust_helper void *rust_helper_dma_pool_create_node(const char *name,
						     struct device *dev,
						     size_t size, size_t align,
						     size_t boundary, int node)
{
	return dma_pool_create_node(name, dev, size, align, boundary, node);
}

__rust_helper void rust_helper_dma_pool_destroy(void *pool)
{
	dma_pool_destroy(pool);
}

__rust_helper void *rust_helper_dma_pool_alloc(void *pool, gfp_t flags,
					       dma_addr_t *addr)
{
	return dma_pool_alloc(pool, flags, addr);
}

__rust_helper void rust_helper_dma_pool_free(void *pool, void *block,
					     dma_addr_t addr)
{
	dma_pool_free(pool, block, addr);
}
#endif /* !CONFIG_HAS_DMA */
