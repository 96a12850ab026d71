// SPDX-License-Identifier: GPL-2.0
/*
 * The C twin of what drivers/dma-rs/e1000 does in its file traffic: an Intel
 * 8254x, as QEMU emulates it, sends frames to itself, and each is compared with
 * what arrives. Its rings are as in the kernel's own driver, and it polls.
 *
 * It binds only where the file driver_override of a device in sysfs names it.
 */

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#define NIC_MDIC	0x0020
#define NIC_IMC		0x00d8
#define NIC_RCTL	0x0100
#define NIC_TCTL	0x0400
#define NIC_RING_RX	0x2800
#define NIC_RING_TX	0x3800
#define NIC_RING_LOW	0x00
#define NIC_RING_HIGH	0x04
#define NIC_RING_SIZE	0x08
#define NIC_RING_HEAD	0x10
#define NIC_RING_TAIL	0x18

#define NIC_MDIC_READY	BIT(28)
/* Writes register 0 of PHY 1: loopback, 1000 Mbit/s, full duplex. */
#define NIC_MDIC_LOOP	(BIT(26) | 1 << 21 | 0x4140)
/* Frames for all, long ones, without their checksum. */
#define NIC_RCTL_ON	(BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(15) | BIT(26))
#define NIC_TCTL_ON	(BIT(1) | BIT(3) | 0x10 << 4 | 0x40 << 12)

#define NIC_TX_EOP	BIT(24)
#define NIC_TX_IFCS	BIT(25)
#define NIC_TX_RS	BIT(27)
#define NIC_DD		BIT(0)
#define NIC_RX_EOP	BIT(1)
#define NIC_RX_ERRORS	(0x97 << 8)

#define NIC_DESCRIPTORS	256
#define NIC_BATCH	32
#define NIC_BUFFER	2048
#define NIC_NUMBER	14

struct nic_desc {
	__le64 addr;
	__le32 len;
	__le32 status;
};

struct nic_buffer {
	void *data;
	dma_addr_t dma;
	u32 len;
};

struct nic_ring {
	struct nic_desc *desc;
	dma_addr_t dma;
	struct nic_buffer buffer_info[NIC_DESCRIPTORS];
	void __iomem *regs;
	struct device *dev;
	u32 next_to_use;
	u32 next_to_clean;
};

struct nic_report {
	u64 frames;
	u64 bytes;
	u64 nanoseconds;
	u64 mismatches;
	u64 lost;
};

struct nic {
	struct device *dev;
	void __iomem *regs;
	struct nic_ring tx;
	struct nic_ring rx;
	struct dentry *dir;
	/* For what follows. */
	struct mutex lock;
	struct nic_report report;
	void *spare[NIC_BATCH];
	u32 spares;
};

static u32 nic_next(u32 i)
{
	return ++i == NIC_DESCRIPTORS ? 0 : i;
}

static u32 nic_unused(struct nic_ring *ring)
{
	/* Pairs with the stores where rings are cleaned. */
	u32 clean = smp_load_acquire(&ring->next_to_clean);
	u32 use = READ_ONCE(ring->next_to_use);

	return (clean > use ? 0 : NIC_DESCRIPTORS) + clean - use - 1;
}

static int nic_post(struct nic_ring *ring, void *data, u32 len)
{
	struct nic_buffer *buffer_info;
	struct nic_desc *desc;
	dma_addr_t dma;

	if (unlikely(!nic_unused(ring)))
		return -EBUSY;

	dma = dma_map_single(ring->dev, data, len, DMA_TO_DEVICE);
	if (dma_mapping_error(ring->dev, dma))
		return -ENOMEM;

	buffer_info = &ring->buffer_info[ring->next_to_use];
	buffer_info->data = data;
	buffer_info->dma = dma;
	buffer_info->len = len;

	desc = &ring->desc[ring->next_to_use];
	desc->addr = cpu_to_le64(dma);
	desc->len = cpu_to_le32(len | NIC_TX_EOP | NIC_TX_IFCS | NIC_TX_RS);
	desc->status = 0;

	ring->next_to_use = nic_next(ring->next_to_use);
	return 0;
}

static void nic_kick(struct nic_ring *ring)
{
	writel(ring->next_to_use, ring->regs + NIC_RING_TAIL);
}

static void nic_clean_tx(struct nic *nic)
{
	struct nic_ring *ring = &nic->tx;
	u32 i = ring->next_to_clean;

	while (i != READ_ONCE(ring->next_to_use)) {
		struct nic_buffer *buffer_info = &ring->buffer_info[i];

		if (!(READ_ONCE(ring->desc[i].status) & cpu_to_le32(NIC_DD)))
			break;

		/* Done before the rest. */
		dma_rmb();

		dma_unmap_single(ring->dev, buffer_info->dma, buffer_info->len,
				 DMA_TO_DEVICE);
		nic->spare[nic->spares++] = buffer_info->data;
		buffer_info->data = NULL;
		i = nic_next(i);
	}

	/* Pairs with nic_unused(). */
	smp_store_release(&ring->next_to_clean, i);
}

static int nic_refill(struct nic_ring *ring)
{
	u32 room = nic_unused(ring);

	if (!room)
		return 0;

	for (; room; room--) {
		u32 i = ring->next_to_use;
		struct nic_buffer *buffer_info = &ring->buffer_info[i];
		struct nic_desc *desc = &ring->desc[i];

		if (!buffer_info->data) {
			void *data = kzalloc(NIC_BUFFER, GFP_KERNEL);
			dma_addr_t dma;

			if (!data)
				return -ENOMEM;

			dma = dma_map_single(ring->dev, data, NIC_BUFFER,
					     DMA_FROM_DEVICE);
			if (dma_mapping_error(ring->dev, dma)) {
				kfree(data);
				return -ENOMEM;
			}

			buffer_info->data = data;
			buffer_info->dma = dma;
		}

		desc->addr = cpu_to_le64(buffer_info->dma);
		desc->len = 0;
		desc->status = 0;
		ring->next_to_use = nic_next(i);
	}

	nic_kick(ring);
	return 0;
}

/* Compares what has arrived with what was sent; returns how many came. */
static u32 nic_clean_rx(struct nic *nic, u8 *template, u32 len, u32 first,
			u32 budget)
{
	struct nic_ring *ring = &nic->rx;
	u32 i = ring->next_to_clean;
	u32 count = 0;

	while (count < budget && i != READ_ONCE(ring->next_to_use)) {
		struct nic_buffer *buffer_info = &ring->buffer_info[i];
		struct nic_desc *desc = &ring->desc[i];
		u32 status = le32_to_cpu(READ_ONCE(desc->status));
		u32 got;

		if (!(status & NIC_DD))
			break;

		/* Done before the rest. */
		dma_rmb();
		got = le32_to_cpu(desc->len) & 0xffff;
		i = nic_next(i);

		if (unlikely(got > NIC_BUFFER || !(status & NIC_RX_EOP) ||
			     status & NIC_RX_ERRORS))
			continue;

		dma_sync_single_for_cpu(ring->dev, buffer_info->dma, got,
					DMA_FROM_DEVICE);

		if (got < NIC_NUMBER ||
		    memcmp(buffer_info->data, template, NIC_NUMBER))
			continue;

		put_unaligned_be32(first + count, template + NIC_NUMBER);
		count++;

		if (got == len && !memcmp(buffer_info->data, template, len)) {
			nic->report.frames++;
			nic->report.bytes += got;
		} else {
			nic->report.mismatches++;
		}
	}

	/* Pairs with nic_unused(). */
	smp_store_release(&ring->next_to_clean, i);
	return count;
}

static int nic_exchange(struct nic *nic, u32 frames, u32 len)
{
	ktime_t start;
	u8 *template;
	u32 next = 0;
	int err = 0;
	u32 i;

	template = kzalloc(len, GFP_KERNEL);
	if (!template)
		return -ENOMEM;

	for (i = 0; i < len; i++)
		template[i] = i < 12 ? 2 : i * 13 + i / 251;
	template[12] = 0x88;
	template[13] = 0xb5;

	for (i = 0; i < nic->spares; i++)
		memcpy(nic->spare[i], template, len);

	memset(&nic->report, 0, sizeof(nic->report));
	start = ktime_get_boottime();

	while (next < frames) {
		u32 first = next;
		u32 got = 0;
		u32 tries;

		while (next < frames && nic->spares) {
			u8 *frame = nic->spare[nic->spares - 1];

			put_unaligned_be32(next, frame + NIC_NUMBER);
			err = nic_post(&nic->tx, frame, len);
			if (err)
				goto out;
			nic->spares--;
			next++;
		}

		nic_kick(&nic->tx);

		for (tries = 0; got < next - first && tries < 1000; tries++) {
			u32 more = nic_clean_rx(nic, template, len, first + got,
						next - first - got);

			got += more;
			err = nic_refill(&nic->rx);
			if (err)
				goto out;
			if (!more)
				usleep_range(1000, 2000);
		}

		nic->report.lost += next - first - got;
		nic_clean_tx(nic);
	}

	nic->report.nanoseconds = ktime_sub(ktime_get_boottime(), start);
out:
	kfree(template);
	return err;
}

static int nic_show(struct seq_file *file, void *unused)
{
	struct nic *nic = file->private;

	guard(mutex)(&nic->lock);
	seq_printf(file, "frames %llu\nbytes %llu\nnanoseconds %llu\n",
		   nic->report.frames, nic->report.bytes,
		   nic->report.nanoseconds);
	seq_printf(file, "mismatches %llu\nlost %llu\n",
		   nic->report.mismatches, nic->report.lost);
	return 0;
}

static int nic_open(struct inode *inode, struct file *file)
{
	return single_open(file, nic_show, inode->i_private);
}

/* How many frames of how many bytes: one buffer each. */
static ssize_t nic_write(struct file *file, const char __user *from,
			 size_t count, loff_t *offset)
{
	struct seq_file *seq = file->private_data;
	struct nic *nic = seq->private;
	char text[32] = {};
	u32 frames, len;
	int err;

	if (count >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, count))
		return -EFAULT;
	if (sscanf(text, "%u %u", &frames, &len) != 2)
		return -EINVAL;
	if (len < 60 || len > NIC_BUFFER)
		return -EINVAL;

	guard(mutex)(&nic->lock);
	err = nic_exchange(nic, frames, len);
	return err ?: count;
}

static const struct file_operations nic_fops = {
	.owner = THIS_MODULE,
	.open = nic_open,
	.read = seq_read,
	.write = nic_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int nic_ring_set_up(struct nic *nic, struct nic_ring *ring, u32 place)
{
	size_t size = NIC_DESCRIPTORS * sizeof(*ring->desc);

	ring->dev = nic->dev;
	ring->regs = nic->regs + place;
	ring->desc = dmam_alloc_coherent(nic->dev, size, &ring->dma, GFP_KERNEL);
	if (!ring->desc)
		return -ENOMEM;

	writel(lower_32_bits(ring->dma), ring->regs + NIC_RING_LOW);
	writel(upper_32_bits(ring->dma), ring->regs + NIC_RING_HIGH);
	writel(size, ring->regs + NIC_RING_SIZE);
	writel(0, ring->regs + NIC_RING_HEAD);
	writel(0, ring->regs + NIC_RING_TAIL);
	return 0;
}

static void nic_stop(struct nic *nic)
{
	u32 i;

	writel(0, nic->regs + NIC_RCTL);
	writel(0, nic->regs + NIC_TCTL);
	pci_clear_master(to_pci_dev(nic->dev));

	for (i = 0; i < NIC_DESCRIPTORS; i++) {
		struct nic_buffer *tx = &nic->tx.buffer_info[i];
		struct nic_buffer *rx = &nic->rx.buffer_info[i];

		if (tx->data)
			dma_unmap_single(nic->dev, tx->dma, tx->len,
					 DMA_TO_DEVICE);
		if (rx->data)
			dma_unmap_single(nic->dev, rx->dma, NIC_BUFFER,
					 DMA_FROM_DEVICE);
		kfree(tx->data);
		kfree(rx->data);
	}

	while (nic->spares)
		kfree(nic->spare[--nic->spares]);
}

static int nic_start(struct nic *nic)
{
	u32 mdic;
	int err;

	writel(~0, nic->regs + NIC_IMC);

	err = nic_ring_set_up(nic, &nic->tx, NIC_RING_TX);
	if (err)
		return err;

	err = nic_ring_set_up(nic, &nic->rx, NIC_RING_RX);
	if (err)
		return err;

	for (; nic->spares < NIC_BATCH; nic->spares++) {
		nic->spare[nic->spares] = kzalloc(NIC_BUFFER, GFP_KERNEL);
		if (!nic->spare[nic->spares])
			return -ENOMEM;
	}

	pci_set_master(to_pci_dev(nic->dev));
	writel(NIC_MDIC_LOOP, nic->regs + NIC_MDIC);
	err = readl_poll_timeout(nic->regs + NIC_MDIC, mdic,
				 mdic & NIC_MDIC_READY, 50, 20000);
	if (err)
		return err;

	writel(NIC_TCTL_ON, nic->regs + NIC_TCTL);
	writel(NIC_RCTL_ON, nic->regs + NIC_RCTL);

	err = nic_refill(&nic->rx);
	if (err)
		return err;

	/* For a second after that QEMU receives nothing. */
	msleep(1020);
	return 0;
}

static int nic_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nic *nic;
	char name[48];
	int err;

	nic = devm_kzalloc(&pdev->dev, sizeof(*nic), GFP_KERNEL);
	if (!nic)
		return -ENOMEM;

	err = pcim_enable_device(pdev);
	if (err)
		return err;

	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (err)
		return err;

	nic->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(nic->regs))
		return PTR_ERR(nic->regs);

	mutex_init(&nic->lock);
	nic->dev = &pdev->dev;
	pci_set_drvdata(pdev, nic);

	err = nic_start(nic);
	if (err) {
		nic_stop(nic);
		return err;
	}

	snprintf(name, sizeof(name), "dma_rs_bench_nic-%s", pci_name(pdev));
	nic->dir = debugfs_create_dir(name, NULL);
	debugfs_create_file("traffic", 0600, nic->dir, nic, &nic_fops);
	return 0;
}

static void nic_remove(struct pci_dev *pdev)
{
	struct nic *nic = pci_get_drvdata(pdev);

	debugfs_remove(nic->dir);
	nic_stop(nic);
}

/* Matches nothing. */
static const struct pci_device_id nic_ids[] = {
	{ }
};

static struct pci_driver nic_driver = {
	.name = "dma_rs_bench_nic",
	.id_table = nic_ids,
	.probe = nic_probe,
	.remove = nic_remove,
};
module_pci_driver(nic_driver);

MODULE_AUTHOR("The dma-rs authors");
MODULE_DESCRIPTION("Intel 8254x sending frames to itself, in C, to be measured");
MODULE_LICENSE("GPL");
