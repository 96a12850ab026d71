// SPDX-License-Identifier: GPL-2.0

#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>

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

__rust_helper phys_addr_t rust_helper_virt_to_phys(void *address)
{
	return virt_to_phys(address);
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
