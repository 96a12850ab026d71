// SPDX-License-Identifier: GPL-2.0
/*
 * The C twin of what drivers/dma-rs/edu does in its file memory: each read and
 * write is a transfer of QEMU's edu device, which ends with an interrupt.
 *
 * It binds only where the file driver_override of a device in sysfs names it.
 */

#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "../edu/edu.h"

static unsigned int dma_bits = 28;
module_param(dma_bits, uint, 0444);
MODULE_PARM_DESC(dma_bits, "Bits of a bus address that the device has");

struct edu {
	struct device *dev;
	void __iomem *regs;
	/* One transfer at a time. */
	struct mutex lock;
	struct completion done;
	struct dentry *dir;
};

static irqreturn_t edu_interrupt(int irq, void *data)
{
	struct edu *edu = data;
	u32 status = readl(edu->regs + EDU_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;

	writel(status, edu->regs + EDU_IRQ_ACK);
	complete(&edu->done);
	return IRQ_HANDLED;
}

static int edu_transfer(struct edu *edu, void *buf, size_t len, loff_t offset,
			enum dma_data_direction dir)
{
	u64 device = EDU_MEMORY + offset;
	u32 command = EDU_RUN | EDU_INTERRUPT;
	dma_addr_t dma;
	int err = 0;

	guard(mutex)(&edu->lock);

	if (readl(edu->regs + EDU_COMMAND) & EDU_RUN)
		return -EBUSY;

	dma = dma_map_single(edu->dev, buf, len, dir);
	if (dma_mapping_error(edu->dev, dma))
		return -ENOMEM;

	/* Of one that came too late. */
	writel(readl(edu->regs + EDU_IRQ_STATUS), edu->regs + EDU_IRQ_ACK);
	reinit_completion(&edu->done);

	if (dir == DMA_TO_DEVICE) {
		writeq(dma, edu->regs + EDU_SOURCE);
		writeq(device, edu->regs + EDU_DESTINATION);
	} else {
		writeq(device, edu->regs + EDU_SOURCE);
		writeq(dma, edu->regs + EDU_DESTINATION);
		command |= EDU_TO_RAM;
	}

	writel(len, edu->regs + EDU_COUNT);
	writel(command, edu->regs + EDU_COMMAND);

	if (!wait_for_completion_timeout(&edu->done, HZ) ||
	    readl(edu->regs + EDU_COMMAND) & EDU_RUN) {
		/* A transfer can't be called off, but moves nothing then. */
		pci_clear_master(to_pci_dev(edu->dev));
		err = -ETIMEDOUT;
	}

	dma_unmap_single(edu->dev, dma, len, dir);
	return err;
}

static ssize_t edu_read(struct file *file, char __user *to, size_t count,
			loff_t *offset)
{
	struct edu *edu = file->private_data;
	void *buf;
	int err;

	if (*offset >= EDU_SIZE || !count)
		return 0;

	count = min_t(size_t, count, EDU_SIZE - *offset);
	buf = kzalloc(count, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;

	err = edu_transfer(edu, buf, count, *offset, DMA_FROM_DEVICE);
	if (!err && copy_to_user(to, buf, count))
		err = -EFAULT;

	kfree(buf);
	if (err)
		return err;

	*offset += count;
	return count;
}

static ssize_t edu_write(struct file *file, const char __user *from,
			 size_t count, loff_t *offset)
{
	struct edu *edu = file->private_data;
	void *buf;
	int err;

	if (!count)
		return 0;
	if (*offset >= EDU_SIZE)
		return -ENOSPC;

	count = min_t(size_t, count, EDU_SIZE - *offset);
	buf = kzalloc(count, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;

	if (copy_from_user(buf, from, count))
		err = -EFAULT;
	else
		err = edu_transfer(edu, buf, count, *offset, DMA_TO_DEVICE);

	kfree(buf);
	if (err)
		return err;

	*offset += count;
	return count;
}

static const struct file_operations edu_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = edu_read,
	.write = edu_write,
	.llseek = default_llseek,
};

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu;
	char name[48];
	int err;

	if (dma_bits < 1 || dma_bits > 64)
		return -EINVAL;

	edu = devm_kzalloc(&pdev->dev, sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;

	err = pcim_enable_device(pdev);
	if (err)
		return err;

	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(dma_bits));
	if (err)
		return err;

	edu->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(edu->regs))
		return PTR_ERR(edu->regs);

	edu->dev = &pdev->dev;
	mutex_init(&edu->lock);
	init_completion(&edu->done);
	pci_set_drvdata(pdev, edu);
	pci_set_master(pdev);

	err = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI | PCI_IRQ_INTX);
	if (err < 0)
		return err;

	err = pci_request_irq(pdev, 0, edu_interrupt, NULL, edu, KBUILD_MODNAME);
	if (err) {
		pci_free_irq_vectors(pdev);
		return err;
	}

	snprintf(name, sizeof(name), "dma_rs_bench_edu-%s", pci_name(pdev));
	edu->dir = debugfs_create_dir(name, NULL);
	debugfs_create_file("memory", 0600, edu->dir, edu, &edu_fops);
	return 0;
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	debugfs_remove(edu->dir);
	pci_free_irq(pdev, 0, edu);
	pci_free_irq_vectors(pdev);
}

/* Matches nothing. */
static const struct pci_device_id edu_ids[] = {
	{ }
};

static struct pci_driver edu_driver = {
	.name = "dma_rs_bench_edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};
module_pci_driver(edu_driver);

MODULE_AUTHOR("The dma-rs authors");
MODULE_DESCRIPTION("QEMU's edu device moving bytes, in C, to be measured");
MODULE_LICENSE("GPL");
