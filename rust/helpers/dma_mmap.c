// SPDX-License-Identifier: GPL-2.0

#include <linux/anon_inodes.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>

#if defined(CONFIG_HAS_DMA) && defined(CONFIG_MMU)
#include <linux/dma-direct.h>
#include <linux/iommu-dma.h>
#endif

/*
 * A file with an address space of its own.
 */
__rust_helper struct file *
rust_helper_dma_mmap_file(const struct file_operations *fops, void *private,
			  int flags)
{
	return anon_inode_create_getfile("[dma]", fops, private, flags, NULL);
}

/*
 * Whether user space may have coherent memory of the device that is here. It
 * may if the memory is in the linear map, or if the DMA API has mapped pages of
 * RAM for it. Memory that a device has of its own is neither: it may have no
 * struct page, and not all who look up its page frames let go of them later.
 */
__rust_helper bool rust_helper_dma_mmap_allowed(struct device *dev,
						const void *address)
{
	struct vm_struct *area;

	if (!IS_ENABLED(CONFIG_MMU) || !dma_can_mmap(dev))
		return false;

	/* The address is an alias there, which virt_to_page() doesn't know. */
	if (IS_ENABLED(CONFIG_ARCH_HAS_DMA_SET_UNCACHED) &&
	    !dev_is_dma_coherent(dev))
		return false;

	if (!is_vmalloc_addr(address))
		return virt_addr_valid(address);

	area = find_vm_area(address);
	return area && area->flags & VM_DMA_COHERENT;
}

/*
 * Which page frame is at an address of such memory.
 */
__rust_helper unsigned long rust_helper_dma_mmap_pfn(const void *address)
{
	if (is_vmalloc_addr(address))
		return vmalloc_to_pfn(address);

	return page_to_pfn(virt_to_page(address));
}

/*
 * How user space maps coherent memory: as dma_mmap_attrs() has it, by direct
 * mapping or by an IOMMU.
 */
__rust_helper pgprot_t rust_helper_dma_mmap_pgprot(struct device *dev,
						   pgprot_t prot,
						   unsigned long attrs)
{
#if defined(CONFIG_HAS_DMA) && defined(CONFIG_MMU)
	if (!use_dma_iommu(dev) && !get_dma_ops(dev) &&
	    force_dma_unencrypted(dev))
		attrs |= DMA_ATTR_CC_SHARED;

	return dma_pgprot(dev, prot, attrs);
#else
	return prot;
#endif
}

/*
 * Prepares an area, whose pages come by faults. It gets the file instead of its
 * own.
 */
__rust_helper void
rust_helper_dma_mmap_prepare(struct device *dev, struct vm_area_struct *vma,
			     struct file *file,
			     const struct vm_operations_struct *ops,
			     unsigned long attrs)
{
	vma->vm_page_prot = rust_helper_dma_mmap_pgprot(dev, vma->vm_page_prot,
							attrs);
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = ops;
	vma_set_file(vma, file);
}

__rust_helper void *rust_helper_dma_mmap_private(struct vm_fault *vmf)
{
	return vmf->vma->vm_file->private_data;
}

/*
 * Has a page table for the address that a fault is about: so the fault needs no
 * memory later. Returns 0, or why it fails.
 */
__rust_helper vm_fault_t rust_helper_dma_mmap_make_room(struct vm_fault *vmf)
{
#ifdef CONFIG_MMU
	if (pte_alloc(vmf->vma->vm_mm, vmf->pmd))
		return VM_FAULT_OOM;
#endif
	return 0;
}

/*
 * Lets user space have the page that a fault is about, if it is one of the
 * memory's. vmf_insert_pfn() can't have an area of both kinds; a driver makes
 * one of it by VmaNew::set_mixedmap(). The kernel sets vm_page_prot anew after
 * mmap(), and some machines lose a bit that says who can decrypt the page.
 */
__rust_helper vm_fault_t rust_helper_dma_mmap_fault(struct vm_fault *vmf,
						    struct device *dev,
						    unsigned long attrs,
						    const void *memory,
						    unsigned long pages)
{
#ifdef CONFIG_MMU
	struct vm_area_struct *vma = vmf->vma;
	const void *page = memory + (vmf->pgoff << PAGE_SHIFT);

	if (vmf->pgoff < pages && !(vma->vm_flags & VM_MIXEDMAP))
		return vmf_insert_pfn_prot(vma, vmf->address,
					   rust_helper_dma_mmap_pfn(page),
					   rust_helper_dma_mmap_pgprot(dev, vma->vm_page_prot,
								       attrs));
#endif
	return VM_FAULT_SIGBUS;
}
