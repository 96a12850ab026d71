// SPDX-License-Identifier: GPL-2.0
/*
 * Misbehaviour on request.
 *
 * A checker that never complains may be asleep. Each function here breaks one
 * rule that a checker of the kernel watches. Write the name of one to
 * dma_rs_controls/run in debugfs, then look whether the log has a complaint.
 *
 * Most of them need QEMU's edu device, with 32 address bits
 * ("-device edu,dma_mask=0xffffffff"). It is taken by driver_override only, so
 * that this driver is in nobody's way. To be used by one writer at a time.
 */

#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/iopoll.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "../edu/edu.h"

#define EDU_VENDOR	0x1234
#define EDU_DEVICE	0x11e8

#define SIZE		512

/* What the device moves. An IOMMU may report each word, but not many at once. */
#define MOVED		4

/* Above the per-CPU lists of pages: what is freed isn't soon allocated again. */
#define STALE_ORDER	5

static struct pci_dev *edu;
static void __iomem *registers;

/* A mapped buffer. */
struct mapping {
	void *buffer;
	dma_addr_t address;
	enum dma_data_direction direction;
};

static int map(struct mapping *mapping, enum dma_data_direction direction)
{
	mapping->buffer = kzalloc(SIZE, GFP_KERNEL);
	if (!mapping->buffer)
		return -ENOMEM;

	mapping->direction = direction;
	mapping->address = dma_map_single(&edu->dev, mapping->buffer, SIZE,
					  direction);
	if (dma_mapping_error(&edu->dev, mapping->address)) {
		kfree(mapping->buffer);
		return -ENOMEM;
	}

	return 0;
}

static void unmap(struct mapping *mapping)
{
	dma_unmap_single(&edu->dev, mapping->address, SIZE, mapping->direction);
}

/* The transfer happens 100 ms later. */
static void edu_start(dma_addr_t address, bool to_ram)
{
	writeq(to_ram ? EDU_MEMORY : address, registers + EDU_SOURCE);
	writeq(to_ram ? address : EDU_MEMORY, registers + EDU_DESTINATION);
	writel(MOVED, registers + EDU_COUNT);
	writel(EDU_RUN | (to_ram ? EDU_TO_RAM : 0), registers + EDU_COMMAND);
}

static int edu_wait(void)
{
	u32 command;

	return readl_poll_timeout(registers + EDU_COMMAND, command,
				  !(command & EDU_RUN), 10 * USEC_PER_MSEC,
				  USEC_PER_SEC);
}

/* The driver lets go of the device, but not of a mapping. */
static int unbind_mapped(struct mapping *mapping)
{
	struct pci_dev *pdev = edu;
	int ret;

	device_release_driver(&pdev->dev);
	ret = device_attach(&pdev->dev);
	if (ret < 0 || !edu)
		return -ENODEV;

	unmap(mapping);
	return 0;
}

/* Unmapped with another direction than mapped. */
static int unmap_direction(struct mapping *mapping)
{
	dma_unmap_single(&edu->dev, mapping->address, SIZE, DMA_TO_DEVICE);
	return 0;
}

/* Only a part is unmapped. */
static int unmap_size(struct mapping *mapping)
{
	dma_unmap_single(&edu->dev, mapping->address, SIZE / 2, DMA_FROM_DEVICE);
	return 0;
}

/* Mapped for one device, unmapped for another. */
static int unmap_device(struct mapping *mapping)
{
	struct pci_dev *other = pci_get_device(PCI_ANY_ID, PCI_ANY_ID, NULL);
	int ret = -ENODEV;

	if (other && other != edu) {
		dma_unmap_single(&other->dev, mapping->address, SIZE,
				 DMA_FROM_DEVICE);
		ret = 0;
	}

	unmap(mapping);
	pci_dev_put(other);
	return ret;
}

/* Unmapped twice. */
static int unmap_twice(struct mapping *mapping)
{
	unmap(mapping);
	unmap(mapping);
	return 0;
}

/* Unmapped although mapping it had failed. */
static int unmap_failed(void)
{
	dma_unmap_single(&edu->dev, DMA_MAPPING_ERROR, SIZE, DMA_FROM_DEVICE);
	return 0;
}

/* Coherent memory, given back as if it were a streaming mapping. */
static int unmap_coherent(void)
{
	dma_addr_t address;

	if (!dma_alloc_coherent(&edu->dev, SIZE, &address, GFP_KERNEL))
		return -ENOMEM;

	dma_unmap_single(&edu->dev, address, SIZE, DMA_BIDIRECTIONAL);
	return 0;
}

/* Coherent memory, freed with another size. */
static int free_size(void)
{
	dma_addr_t address;
	void *memory;

	memory = dma_alloc_coherent(&edu->dev, SIZE, &address, GFP_KERNEL);
	if (!memory)
		return -ENOMEM;

	dma_free_coherent(&edu->dev, SIZE / 2, memory, address);
	return 0;
}

/* Nobody asks whether the mapping failed. */
static int map_unchecked(void)
{
	void *buffer = kzalloc(SIZE, GFP_KERNEL);
	dma_addr_t address;

	if (!buffer)
		return -ENOMEM;

	address = dma_map_single(&edu->dev, buffer, SIZE, DMA_TO_DEVICE);
	dma_unmap_single(&edu->dev, address, SIZE, DMA_TO_DEVICE);
	kfree(buffer);
	return 0;
}

/* The buffer is on the stack, which virtual memory may hide. */
static int map_stack(void)
{
	u8 buffer[64] = {};
	struct page *page = is_vmalloc_addr(buffer) ? vmalloc_to_page(buffer) :
						      virt_to_page(buffer);
	dma_addr_t address;

	address = dma_map_page(&edu->dev, page, offset_in_page(buffer),
			       sizeof(buffer), DMA_TO_DEVICE);
	if (dma_mapping_error(&edu->dev, address))
		return -ENOMEM;

	dma_unmap_page(&edu->dev, address, sizeof(buffer), DMA_TO_DEVICE);
	return 0;
}

/* Synced after the unmap. */
static int sync_unmapped(struct mapping *mapping)
{
	unmap(mapping);
	dma_sync_single_for_cpu(&edu->dev, mapping->address, SIZE,
				DMA_FROM_DEVICE);
	return 0;
}

/* Synced beyond the end of the mapping. */
static int sync_beyond(struct mapping *mapping)
{
	dma_sync_single_for_cpu(&edu->dev, mapping->address, SIZE + 1,
				DMA_FROM_DEVICE);
	unmap(mapping);
	return 0;
}

/* Synced with another direction than mapped. */
static int sync_direction(struct mapping *mapping)
{
	dma_sync_single_for_device(&edu->dev, mapping->address, SIZE,
				   DMA_FROM_DEVICE);
	unmap(mapping);
	return 0;
}

/* The device accesses what has been unmapped. */
static int access_unmapped(struct mapping *mapping)
{
	int ret;

	unmap(mapping);
	edu_start(mapping->address, mapping->direction == DMA_FROM_DEVICE);
	ret = edu_wait();
	/* An IOMMU's interrupt may be handled by a thread. */
	msleep(100);
	return ret;
}

/* Allocates until it gets this block, and gives everything back. */
static int allocate_again(struct page *wanted)
{
	struct page *page, *next;
	LIST_HEAD(pages);
	int ret = -ENOENT;

	while (ret) {
		page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
				   STALE_ORDER);
		if (!page)
			break;
		list_add(&page->lru, &pages);
		if (page == wanted)
			ret = 0;
	}

	list_for_each_entry_safe(page, next, &pages, lru)
		__free_pages(page, STALE_ORDER);
	return ret;
}

/* The device writes to pages that have been freed. */
static int write_freed(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, STALE_ORDER);
	dma_addr_t address;
	int ret;

	if (!page)
		return -ENOMEM;

	address = dma_map_page(&edu->dev, page, 0, SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(&edu->dev, address)) {
		__free_pages(page, STALE_ORDER);
		return -ENOMEM;
	}

	dma_unmap_page(&edu->dev, address, SIZE, DMA_FROM_DEVICE);
	__free_pages(page, STALE_ORDER);
	edu_start(address, true);
	ret = edu_wait();
	return ret ?: allocate_again(page);
}

/* The CPU reads a buffer that has been unmapped and freed. */
static int use_freed(struct mapping *mapping)
{
	unmap(mapping);
	kfree(mapping->buffer);
	READ_ONCE(*(u8 *)mapping->buffer);
	mapping->buffer = NULL;
	return 0;
}

/* The CPU reads beyond the end of a buffer. */
static int use_beyond(void)
{
	u8 *buffer = kzalloc(SIZE, GFP_KERNEL);

	if (!buffer)
		return -ENOMEM;

	OPTIMIZER_HIDE_VAR(buffer);
	READ_ONCE(buffer[SIZE]);
	kfree(buffer);
	return 0;
}

/* Allocated and forgotten; some are, in case a stale pointer to one is left. */
static int forget_memory(void)
{
	int i;

	for (i = 0; i < 8; i++) {
		void *buffer = kzalloc(SIZE, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(buffer);
		if (!buffer)
			return -ENOMEM;
	}

	return 0;
}

/* An index beyond the end of an array, and of what may be pointed to. */
static int index_beyond(void)
{
	struct {
		u8 array[4];
		u8 beyond[4];
	} row = {};
	int index = ARRAY_SIZE(row.array) + 1;

	OPTIMIZER_HIDE_VAR(index);
	READ_ONCE(row.array[index]);
	return 0;
}

/* The same entry leaves its list twice. */
static int delete_twice(void)
{
	struct list_head entry;
	LIST_HEAD(list);

	list_add(&entry, &list);
	list_del(&entry);
	list_del(&entry);
	return 0;
}

/* An entry of a scatterlist that is a link has no page. */
static int use_scatterlist(void)
{
	struct scatterlist list[2], next[1];

	sg_init_table(list, ARRAY_SIZE(list));
	sg_init_table(next, ARRAY_SIZE(next));
	sg_chain(list, ARRAY_SIZE(list), next);
	sg_page(&list[1]);
	return 0;
}

static int warn(void)
{
	WARN(1, "on request\n");
	return 0;
}

static int read_null(void)
{
	int *pointer = NULL;

	OPTIMIZER_HIDE_VAR(pointer);
	READ_ONCE(*pointer);
	return 0;
}

/* An address that no machine has. */
static int read_wild(void)
{
	struct list_head *entry = LIST_POISON1;

	OPTIMIZER_HIDE_VAR(entry);
	READ_ONCE(entry->next);
	return 0;
}

static DEFINE_SPINLOCK(atomic_lock);

/* An allocation that may sleep, under a spinlock. */
static int sleep_atomic(void)
{
	dma_addr_t address;
	void *memory;

	spin_lock(&atomic_lock);
	memory = dma_alloc_coherent(&edu->dev, SIZE, &address, GFP_KERNEL);
	spin_unlock(&atomic_lock);
	if (!memory)
		return -ENOMEM;

	dma_free_coherent(&edu->dev, SIZE, memory, address);
	return 0;
}

static DEFINE_RAW_SPINLOCK(irq_lock);

static void take_irq_lock(struct irq_work *work)
{
	raw_spin_lock(&irq_lock);
	raw_spin_unlock(&irq_lock);
}

/* A lock that an interrupt takes, held while interrupts are on. */
static int lock_irq(void)
{
	struct irq_work work;

	raw_spin_lock(&irq_lock);
	raw_spin_unlock(&irq_lock);

	init_irq_work(&work, take_irq_lock);
	irq_work_queue(&work);
	irq_work_sync(&work);
	return 0;
}

static DEFINE_MUTEX(first_lock);
static DEFINE_MUTEX(second_lock);

/* Two locks, taken in both orders. */
static int lock_order(void)
{
	mutex_lock(&first_lock);
	mutex_lock(&second_lock);
	mutex_unlock(&second_lock);
	mutex_unlock(&first_lock);

	mutex_lock(&second_lock);
	mutex_lock(&first_lock);
	mutex_unlock(&first_lock);
	mutex_unlock(&second_lock);
	return 0;
}

static DECLARE_COMPLETION(freed);

static void wait_freed(struct work_struct *work)
{
	wait_for_completion(&freed);
}

static DECLARE_WORK(first_work, wait_freed);

/* Work is freed while it waits for its turn. */
static int free_queued(void)
{
	struct workqueue_struct *queue;
	struct work_struct *work;
	int ret = -ENOMEM;

	queue = alloc_ordered_workqueue("dma_rs_controls", 0);
	if (!queue)
		return ret;

	work = kzalloc_obj(*work);
	if (work) {
		INIT_WORK(work, wait_freed);
		reinit_completion(&freed);
		queue_work(queue, &first_work);
		queue_work(queue, work);
		/* Who notices it takes the work from the queue. */
		kfree(work);
		complete(&freed);
		ret = 0;
	}

	destroy_workqueue(queue);
	return ret;
}

static DECLARE_COMPLETION(reading);

static void read_long(struct work_struct *work)
{
	unsigned long end;

	rcu_read_lock();
	complete(&reading);
	/* Not mdelay(): how fast its loop is, was measured when the guest began. */
	for (end = jiffies + 2 * HZ; time_before(jiffies, end);)
		cpu_relax();
	rcu_read_unlock();
}

static DECLARE_WORK(reader_work, read_long);

/* A reader that holds up everybody: longer than rcu_exp_cpu_stall_timeout. */
static int stall_rcu(void)
{
	reinit_completion(&reading);
	schedule_work(&reader_work);
	wait_for_completion(&reading);
	synchronize_rcu_expedited();
	flush_work(&reader_work);
	return 0;
}

/* What some of them have in common: a mapped buffer, which is freed afterwards. */
static int run_mapped(int (*run)(struct mapping *mapping),
		      enum dma_data_direction direction)
{
	struct mapping mapping;
	int ret;

	ret = map(&mapping, direction);
	if (ret)
		return ret;

	ret = run(&mapping);
	/* Otherwise it may still be mapped. */
	if (!ret)
		kfree(mapping.buffer);

	return ret;
}

static const struct control {
	const char *name;
	int (*run)(void);
	int (*run_mapped)(struct mapping *mapping);
	enum dma_data_direction direction;
} controls[] = {
	{ "unbind-mapped", NULL, unbind_mapped, DMA_FROM_DEVICE },
	{ "unmap-direction", NULL, unmap_direction, DMA_FROM_DEVICE },
	{ "unmap-size", NULL, unmap_size, DMA_FROM_DEVICE },
	{ "unmap-device", NULL, unmap_device, DMA_FROM_DEVICE },
	{ "unmap-twice", NULL, unmap_twice, DMA_FROM_DEVICE },
	{ "unmap-failed", unmap_failed },
	{ "unmap-coherent", unmap_coherent },
	{ "free-size", free_size },
	{ "map-unchecked", map_unchecked },
	{ "map-stack", map_stack },
	{ "sync-unmapped", NULL, sync_unmapped, DMA_FROM_DEVICE },
	{ "sync-beyond", NULL, sync_beyond, DMA_FROM_DEVICE },
	{ "sync-direction", NULL, sync_direction, DMA_TO_DEVICE },
	{ "read-unmapped", NULL, access_unmapped, DMA_TO_DEVICE },
	{ "write-unmapped", NULL, access_unmapped, DMA_FROM_DEVICE },
	{ "write-freed", write_freed },
	{ "use-freed", NULL, use_freed, DMA_FROM_DEVICE },
	{ "use-beyond", use_beyond },
	{ "forget-memory", forget_memory },
	{ "index-beyond", index_beyond },
	{ "delete-twice", delete_twice },
	{ "use-scatterlist", use_scatterlist },
	{ "warn", warn },
	{ "read-null", read_null },
	{ "read-wild", read_wild },
	{ "sleep-atomic", sleep_atomic },
	{ "lock-irq", lock_irq },
	{ "lock-order", lock_order },
	{ "free-queued", free_queued },
	{ "stall-rcu", stall_rcu },
};

static ssize_t run_write(struct file *file, const char __user *data,
			 size_t count, loff_t *position)
{
	char name[32];
	ssize_t len;
	int i, ret;

	len = simple_write_to_buffer(name, sizeof(name) - 1, position, data,
				     count);
	if (len < 0)
		return len;
	name[len] = '\0';

	if (!edu)
		return -ENODEV;

	for (i = 0; i < ARRAY_SIZE(controls); i++) {
		if (!sysfs_streq(name, controls[i].name))
			continue;

		if (controls[i].run)
			ret = controls[i].run();
		else
			ret = run_mapped(controls[i].run_mapped,
					 controls[i].direction);

		return ret ?: len;
	}

	return -EINVAL;
}

static const struct file_operations run_operations = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = run_write,
};

static int controls_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	void __iomem *bar;
	int ret;

	if (edu || pdev->vendor != EDU_VENDOR || pdev->device != EDU_DEVICE)
		return -ENODEV;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;

	bar = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(bar))
		return PTR_ERR(bar);

	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(32));
	if (ret)
		return ret;

	pci_set_master(pdev);
	registers = bar;
	edu = pdev;
	return 0;
}

static void controls_remove(struct pci_dev *pdev)
{
	edu = NULL;
}

static struct pci_driver controls_driver = {
	.name = "dma_rs_controls",
	.probe = controls_probe,
	.remove = controls_remove,
};

static int __init controls_init(void)
{
	struct dentry *folder = debugfs_create_dir("dma_rs_controls", NULL);

	debugfs_create_file("run", 0200, folder, NULL, &run_operations);
	return pci_register_driver(&controls_driver);
}
device_initcall(controls_init);
