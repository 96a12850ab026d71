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
 * Which page frame is at an address of coherent memory, as dma_common_mmap()
 * finds it: in the linear map or in a vmalloc area. Returns false for memory
 * that is elsewhere.
 */
__rust_helper bool rust_helper_dma_mmap_pfn(const void *address,
					    unsigned long *pfn)
{
	struct page *page;

	if (is_vmalloc_addr(address))
		page = vmalloc_to_page(address);
	else if (virt_addr_valid(address))
		page = virt_to_page(address);
	else
		page = NULL;

	if (!page)
		return false;

	*pfn = page_to_pfn(page);
	return true;
}

/*
 * Whether user space may have coherent memory of the device that is here.
 */
__rust_helper bool rust_helper_dma_mmap_allowed(struct device *dev,
						const void *address)
{
	unsigned long pfn;

	return IS_ENABLED(CONFIG_MMU) && dma_can_mmap(dev) &&
	       rust_helper_dma_mmap_pfn(address, &pfn);
}

/*
 * How user space maps coherent memory: as dma_direct_mmap() and the others do.
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
	unsigned long pfn;

	if (vmf->pgoff < pages && !(vma->vm_flags & VM_MIXEDMAP) &&
	    rust_helper_dma_mmap_pfn(memory + (vmf->pgoff << PAGE_SHIFT), &pfn))
		return vmf_insert_pfn_prot(vma, vmf->address, pfn,
					   rust_helper_dma_mmap_pgprot(dev, vma->vm_page_prot,
								       attrs));
#endif
	return VM_FAULT_SIGBUS;
}
