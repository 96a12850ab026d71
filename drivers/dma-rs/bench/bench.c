// SPDX-License-Identifier: GPL-2.0
/*
 * The C half of the benchmark: what the loops need, and the device behind the
 * rings.
 */

#include <linux/dma-direct.h>
#include <linux/dmapool.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "bench.h"

/* The device must be bound to the Rust half, and stay so until the close. */
struct dma_bench *dma_bench_open(const char *name)
{
	struct dma_bench *bench;
	struct device *dev;

	bench = kzalloc_obj(*bench);
	if (!bench)
		return NULL;

	dev = bus_find_device_by_name(&pci_bus_type, NULL, name);
	if (!dev)
		goto err_free;

	bench->dev = dev;
	bench->pdev = to_pci_dev(dev);

	bench->regs = pci_iomap(bench->pdev, 0, 0);
	if (!bench->regs)
		goto err_put;

	bench->pool = dma_pool_create("dma_rs_bench_c", dev, DMA_BENCH_BLOCK, 8,
				      0);
	if (!bench->pool)
		goto err_unmap;

	bench->memory = dma_alloc_coherent(dev, DMA_BENCH_COHERENT,
					   &bench->memory_addr, GFP_KERNEL);
	if (!bench->memory)
		goto err_destroy;

	return bench;

err_destroy:
	dma_pool_destroy(bench->pool);
err_unmap:
	pci_iounmap(bench->pdev, bench->regs);
err_put:
	put_device(dev);
err_free:
	kfree(bench);
	return NULL;
}

void dma_bench_close(struct dma_bench *bench)
{
	dma_bench_rings_tear_down(bench);
	dma_bench_queue_tear_down(bench);
	dma_bench_copier_tear_down(bench);
	dma_free_coherent(bench->dev, DMA_BENCH_COHERENT, bench->memory,
			  bench->memory_addr);
	dma_pool_destroy(bench->pool);
	pci_iounmap(bench->pdev, bench->regs);
	put_device(bench->dev);
	kfree(bench);
}

int dma_bench_prepare(struct dma_bench *bench, u32 batch, u32 ring, bool queue,
		      bool copies)
{
	int err;

	if (!batch || batch > DMA_BENCH_BATCH)
		return -EINVAL;

	bench->batch = batch;
	dma_bench_rings_tear_down(bench);
	dma_bench_queue_tear_down(bench);
	dma_bench_copier_tear_down(bench);

	if (queue) {
		err = dma_bench_queue_set_up(bench);
		if (err)
			return err;
	}

	if (copies) {
		err = dma_bench_copier_set_up(bench);
		if (err)
			return err;
	}

	return ring ? dma_bench_rings_set_up(bench, ring) : 0;
}

/* Runs a loop on a buffer, which the loop leaves unmapped. */
int dma_bench_run(struct dma_bench *bench,
		  int (*loop)(struct dma_bench *bench, u32 n),
		  void *buf, size_t len, u32 n)
{
	int err;

	bench->buf = buf;
	bench->len = len;
	err = loop(bench, n);
	bench->buf = NULL;
	bench->len = 0;

	return err;
}

struct dma_bench_device *dma_bench_device_new(const char *name)
{
	struct dma_bench_device *device = kzalloc_obj(*device);

	if (!device)
		return NULL;

	device->dev = bus_find_device_by_name(&pci_bus_type, NULL, name);
	if (!device->dev) {
		kfree(device);
		return NULL;
	}

	return device;
}

void dma_bench_device_free(struct dma_bench_device *device)
{
	if (!device)
		return;

	put_device(device->dev);
	kfree(device);
}

void dma_bench_device_set_batch(struct dma_bench_device *device, u32 batch)
{
	WRITE_ONCE(device->batch, batch);
}

/* Where the CPU finds what the device sees at an address. */
static void *dma_bench_look_up(struct device *dev, dma_addr_t addr)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);
	phys_addr_t phys;

	if (domain && domain->type != IOMMU_DOMAIN_IDENTITY)
		phys = iommu_iova_to_phys(domain, addr);
	else
		phys = dma_to_phys(dev, addr);

	return phys_to_virt(phys);
}

/* Tells the device of a ring: all descriptors are the driver's. */
int dma_bench_device_attach(struct dma_bench_device *device, dma_addr_t addr,
			    u32 len)
{
	size_t size = len * sizeof(struct dma_bench_desc);
	size_t at;

	if (size > ARRAY_SIZE(device->pages) * PAGE_SIZE)
		return -EINVAL;

	for (at = 0; at < size; at += PAGE_SIZE)
		device->pages[at / PAGE_SIZE] = dma_bench_look_up(device->dev,
								  addr + at);

	device->mask = len - 1;
	device->next = 0;
	return 0;
}

/* The device works off a batch. */
void dma_bench_device_run(struct dma_bench_device *device)
{
	const u32 a_page = PAGE_SIZE / sizeof(struct dma_bench_desc);
	u32 count = READ_ONCE(device->batch);
	struct dma_bench_desc *desc;
	u32 i = device->next;

	for (; count; count--) {
		desc = &device->pages[i / a_page][i % a_page];
		desc->len = cpu_to_le32(DMA_BENCH_RECEIVED);
		WRITE_ONCE(desc->status, cpu_to_le32(DMA_BENCH_DESC_DONE |
						     DMA_BENCH_DESC_END));
		i = (i + 1) & device->mask;
	}

	device->next = i;
}

struct dma_bench_controller *dma_bench_controller_new(const char *name)
{
	struct dma_bench_controller *device = kzalloc_obj(*device);

	if (!device)
		return NULL;

	device->dev = bus_find_device_by_name(&pci_bus_type, NULL, name);
	if (!device->dev) {
		kfree(device);
		return NULL;
	}

	return device;
}

void dma_bench_controller_free(struct dma_bench_controller *device)
{
	if (!device)
		return;

	put_device(device->dev);
	kfree(device);
}

int
dma_bench_controller_attach_commands(struct dma_bench_controller *device,
				     dma_addr_t addr, u32 len)
{
	if (len * sizeof(*device->commands) > PAGE_SIZE)
		return -EINVAL;

	device->commands = dma_bench_look_up(device->dev, addr);
	device->commands_mask = len - 1;
	device->next_command = 0;
	return 0;
}

int
dma_bench_controller_attach_completions(struct dma_bench_controller *device,
					dma_addr_t addr, u32 len)
{
	if (len * sizeof(*device->completions) > PAGE_SIZE)
		return -EINVAL;

	device->completions = dma_bench_look_up(device->dev, addr);
	device->completions_mask = len - 1;
	device->next_completion = 0;
	device->phase = 1;
	return 0;
}

/* The device carries out what was submitted. */
void dma_bench_controller_run(struct dma_bench_controller *device, u32 tail)
{
	struct dma_bench_completion *completion;
	u32 i;

	while (device->next_command != tail) {
		i = device->next_command;
		device->next_command = (i + 1) & device->commands_mask;

		completion = &device->completions[device->next_completion];
		completion->result = 0;
		completion->head = cpu_to_le16(device->next_command);
		completion->queue = 0;
		completion->id =
			cpu_to_le16(le32_to_cpu(device->commands[i].head) >> 16);
		smp_wmb(); /* the phase comes last */
		WRITE_ONCE(completion->status, cpu_to_le16(device->phase));

		device->next_completion = (device->next_completion + 1) &
					  device->completions_mask;
		if (!device->next_completion)
			device->phase ^= 1;
	}
}
