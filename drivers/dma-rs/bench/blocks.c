// SPDX-License-Identifier: GPL-2.0
/*
 * Writes blocks by the kernel's block layer, reads them again, and compares, as
 * many at a time as drivers/dma-rs/nvme/exchange.rs does. Write the device and
 * the bytes of each, "/dev/nvme0n1 4096", to the file dma_rs_bench_blocks in
 * debugfs. What was in the blocks is lost.
 */

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/* How many are in flight at the same time, at most. */
#define IN_FLIGHT	64

#define MOST_BYTES	PAGE_SIZE

struct blocks {
	struct block_device *bdev;
	u32 len;
	/* Bytes that are like no others when they are moved by some. */
	u8 *template;
	u8 *buffers[IN_FLIGHT];
	atomic_t left;
	bool failed;
	struct completion done;
};

static void blocks_end(struct bio *bio)
{
	struct blocks *blocks = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(blocks->failed, true);
	bio_put(bio);
	if (atomic_dec_and_test(&blocks->left))
		complete(&blocks->done);
}

static int blocks_move(struct blocks *blocks, blk_opf_t op)
{
	struct blk_plug plug;
	struct bio *bio;
	u32 i;

	atomic_set(&blocks->left, IN_FLIGHT);
	reinit_completion(&blocks->done);
	blk_start_plug(&plug);

	for (i = 0; i < IN_FLIGHT; i++) {
		/* Or neighbours would become one command. */
		bio = bio_alloc(blocks->bdev, 1, op | REQ_NOMERGE, GFP_KERNEL);
		bio->bi_iter.bi_sector = i * (blocks->len >> SECTOR_SHIFT);
		bio->bi_end_io = blocks_end;
		bio->bi_private = blocks;
		bio_add_virt_nofail(bio, blocks->buffers[i], blocks->len);
		submit_bio(bio);
	}

	blk_finish_plug(&plug);
	wait_for_completion(&blocks->done);

	return READ_ONCE(blocks->failed) ? -EIO : 0;
}

static int blocks_alloc(struct blocks *blocks, gfp_t flags)
{
	u32 i;

	for (i = 0; i < IN_FLIGHT; i++) {
		blocks->buffers[i] = kmalloc(blocks->len, flags);
		if (!blocks->buffers[i])
			return -ENOMEM;
	}

	return 0;
}

static void blocks_free(struct blocks *blocks)
{
	u32 i;

	for (i = 0; i < IN_FLIGHT; i++) {
		kfree(blocks->buffers[i]);
		blocks->buffers[i] = NULL;
	}
}

static int blocks_write_and_read(struct blocks *blocks)
{
	u32 i;
	int err;

	for (i = 0; i < blocks->len + IN_FLIGHT; i++)
		blocks->template[i] = i * 13 + i / 251;

	err = blocks_alloc(blocks, GFP_KERNEL);
	if (err)
		return err;

	for (i = 0; i < IN_FLIGHT; i++)
		memcpy(blocks->buffers[i], blocks->template + i, blocks->len);

	err = blocks_move(blocks, REQ_OP_WRITE | REQ_SYNC | REQ_IDLE);
	if (err)
		return err;

	blocks_free(blocks);
	err = blocks_alloc(blocks, GFP_KERNEL | __GFP_ZERO);
	if (err)
		return err;

	err = blocks_move(blocks, REQ_OP_READ);
	if (err)
		return err;

	for (i = 0; i < IN_FLIGHT; i++) {
		if (memcmp(blocks->buffers[i], blocks->template + i,
			   blocks->len))
			return -EILSEQ;
	}

	return 0;
}

static int blocks_run(const char *path, u32 len)
{
	struct blocks *blocks;
	struct file *file;
	int err = -ENOMEM;

	blocks = kzalloc_obj(*blocks);
	if (!blocks)
		return -ENOMEM;

	blocks->len = len;
	init_completion(&blocks->done);
	blocks->template = kmalloc(len + IN_FLIGHT, GFP_KERNEL);
	if (!blocks->template)
		goto out_free;

	file = bdev_file_open_by_path(path, BLK_OPEN_READ | BLK_OPEN_WRITE,
				      blocks, NULL);
	if (IS_ERR(file)) {
		err = PTR_ERR(file);
		goto out_free;
	}

	blocks->bdev = file_bdev(file);
	err = blocks_write_and_read(blocks);
	blocks_free(blocks);
	bdev_fput(file);

out_free:
	kfree(blocks->template);
	kfree(blocks);
	return err;
}

static ssize_t blocks_write(struct file *file, const char __user *text,
			    size_t size, loff_t *pos)
{
	char words[64] = { }, path[64];
	unsigned int len;
	int err;

	if (size >= sizeof(words))
		return -EINVAL;
	if (copy_from_user(words, text, size))
		return -EFAULT;
	if (sscanf(words, "%63s %u", path, &len) != 2)
		return -EINVAL;
	if (!len || len > MOST_BYTES || len % SECTOR_SIZE)
		return -EINVAL;

	err = blocks_run(path, len);
	return err ?: size;
}

static const struct file_operations blocks_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= blocks_write,
};

static struct dentry *blocks_file;

static int __init blocks_init(void)
{
	blocks_file = debugfs_create_file("dma_rs_bench_blocks", 0200, NULL,
					  NULL, &blocks_fops);

	return 0;
}
module_init(blocks_init);

static void __exit blocks_exit(void)
{
	debugfs_remove(blocks_file);
}
module_exit(blocks_exit);

MODULE_AUTHOR("The dma-rs authors");
MODULE_DESCRIPTION("Blocks through the block layer, to be measured");
MODULE_LICENSE("GPL");
