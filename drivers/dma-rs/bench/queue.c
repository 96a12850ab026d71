// SPDX-License-Identifier: GPL-2.0
/*
 * Commands and completions as the kernel's own NVMe driver has them: a request
 * for each tag, a generation in what the device echoes, a phase that says which
 * completions are new, one doorbell a batch on both sides.
 *
 * What drivers/nvme/host reads and writes of its own for each command,
 * completion and doorbell is read and written here, too, also where this device
 * makes no use of it: without doorbells in memory, events, lists of SGL. Each
 * function says which of that driver's functions it follows. Left out are
 *
 * - its locks, since none is taken in Rust either;
 * - the block layer: time-outs, batches of completions, peer-to-peer memory,
 *   statistics. A bitmap stands for its tags;
 * - what a command says: its flags, namespaces, integrity;
 * - the look at how long a buffer is. Commands with one page, and those with a
 *   list of pages, are submitted by functions of their own, as they are in Rust;
 * - for lists of pages, the way by dma_iova_link(), and the larger of two pools.
 */

#include <linux/bitmap.h>
#include <linux/bug.h>
#include <linux/device.h>
#include <linux/dmapool.h>
#include <linux/io.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/prefetch.h>
#include <linux/slab.h>

#include "bench.h"

/* What a command echoes: a tag, and how often that was given. */
#define TAG_MASK	0xfff
#define GENERATION_BITS	12

/* Tags from here on are those of events, in a queue whose number is 0. */
#define EVENT_TAGS	31

/* Of a queue. */
#define QUEUE_ENABLED	0

/* States, quirks and abilities of a controller. */
#define NVME_LIVE		1
#define NVME_NO_GENERATIONS	BIT(0)
#define NVME_SGLS		(BIT(0) | BIT(1))

/* Of a request: that it is prepared, and how its memory is mapped. */
#define REQUEST_PREPARED	BIT(0)
#define SINGLE_SEGMENT		BIT(0)

/* The pages that the device knows, and how many a list has room for. */
#define NVME_PAGE	4096
#define LIST_LEN	32

/* A buffer, as a bio has it. */
struct dma_bench_piece {
	struct page *page;
	u32 offset;
};

/* struct nvme_request, and struct nvme_iod, which begins with it. */
struct dma_bench_request {
	__le64 result;
	u16 generation;
	u16 status;
	u8 retries;
	u8 cancelled;
	struct dma_bench_nvme *nvme;
	struct dma_bench_command command;
	u8 flags;
	u8 lists;
	u8 vecs;
	u32 len;
	u32 meta_len;
	__le64 *list;
	/* struct request */
	u32 block_flags;
	u16 segments;
	struct dma_bench_piece data;
	u32 data_len;
	enum dma_data_direction direction;
};

/* struct blk_mq_tags */
struct dma_bench_tags {
	u32 count;
	struct dma_bench_request *requests[DMA_BENCH_TAGS];
};

/* struct nvme_dev: what all queues of a device share. */
struct dma_bench_nvme {
	struct device *dev;
	int state;
	unsigned long quirks;
	u32 sgls;
	/* By the number of the queue. */
	struct dma_bench_tags *tags[2];
	struct dma_pool *lists;
};

/* A doorbell in memory, and behind which value of it the device is to be woken. */
struct dma_bench_shadow {
	__le32 value;
	__le32 event;
};

/* struct nvme_queue */
struct dma_bench_queue {
	void *commands;
	dma_addr_t commands_dma;
	struct dma_bench_completion *completions;
	dma_addr_t completions_dma;
	struct dma_bench_nvme *nvme;
	struct dma_bench_controller *device;
	void __iomem *tail_register;
	void __iomem *head_register;
	unsigned long flags;
	u16 number;
	/* Of a command: a power of two. */
	u8 command_shift;
	u32 commands_len;
	u32 completions_len;
	/* If the device has doorbells in memory. */
	struct dma_bench_shadow *shadow_tail;
	struct dma_bench_shadow *shadow_head;
	u32 tail;
	/* What the device was told. */
	u32 last_tail;
	u32 head;
	u16 phase;
	/* The block layer's. */
	DECLARE_BITMAP(busy, DMA_BENCH_TAGS);
	struct dma_bench_tags tags;
	struct dma_bench_request requests[DMA_BENCH_TAGS];
	/* Buffers that aren't under way: frames, and the one of the loop. */
	struct dma_bench_piece spare[DMA_BENCH_BATCH + 1];
	u32 spares;
	u32 failed;
};

static struct dma_bench_piece piece_of(void *data)
{
	return (struct dma_bench_piece) {
		.page = virt_to_page(data),
		.offset = offset_in_page(data),
	};
}

static __always_inline int get_tag(struct dma_bench_queue *queue)
{
	unsigned int tag;

	do {
		tag = find_first_zero_bit(queue->busy, DMA_BENCH_TAGS);
		if (tag >= DMA_BENCH_TAGS)
			return -EBUSY;
	} while (test_and_set_bit_lock(tag, queue->busy));

	return tag;
}

/* nvme_pci_use_sgls() */
static __always_inline bool uses_sgls(struct dma_bench_queue *queue)
{
	return queue->number && queue->nvme->sgls & NVME_SGLS;
}

/* nvme_pci_setup_data_simple() */
static __always_inline int map_page(struct dma_bench_queue *queue,
				    struct dma_bench_request *request)
{
	struct device *dev = queue->nvme->dev;
	dma_addr_t addr;

	if (unlikely(uses_sgls(queue)) || request->segments != 1)
		return -EOPNOTSUPP;

	addr = dma_map_page(dev, request->data.page, request->data.offset,
			    request->data_len, request->direction);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;

	request->len = request->data_len;
	request->flags |= SINGLE_SEGMENT;
	request->command.prp1 = cpu_to_le64(addr);
	request->command.prp2 = 0;
	return 0;
}

/* nvme_pci_setup_data_prp(), for memory that is mapped in one piece */
static __always_inline int map_list(struct dma_bench_queue *queue,
				    struct dma_bench_request *request)
{
	struct dma_bench_nvme *nvme = queue->nvme;
	u32 part, i = 0, left = request->data_len;
	dma_addr_t addr, list_addr;
	__le64 *list;

	if (unlikely(uses_sgls(queue)))
		return -EOPNOTSUPP;

	addr = dma_map_page(nvme->dev, request->data.page, request->data.offset,
			    left, request->direction);
	if (dma_mapping_error(nvme->dev, addr))
		return -ENOMEM;

	request->command.prp1 = cpu_to_le64(addr);
	part = min(left, NVME_PAGE - (u32)(addr & (NVME_PAGE - 1)));
	request->len += part;
	addr += part;
	left -= part;

	list = dma_pool_alloc(nvme->lists, GFP_ATOMIC, &list_addr);
	if (!list)
		goto err_unmap;

	request->list = list;
	request->lists++;
	request->command.prp2 = cpu_to_le64(list_addr);

	while (left) {
		if (WARN_ON_ONCE(i == LIST_LEN))
			goto err_free;

		list[i++] = cpu_to_le64(addr);
		part = min(left, NVME_PAGE);
		request->len += part;
		addr += part;
		left -= part;
	}

	return 0;

err_free:
	dma_pool_free(nvme->lists, list, list_addr);
err_unmap:
	dma_unmap_page(nvme->dev, le64_to_cpu(request->command.prp1),
		       request->data_len, request->direction);
	return -ENOMEM;
}

/* nvme_unmap_data() */
static __always_inline void unmap_data(struct dma_bench_queue *queue,
				       struct dma_bench_request *request)
{
	struct dma_bench_nvme *nvme = queue->nvme;

	if (likely(request->flags & SINGLE_SEGMENT)) {
		dma_unmap_page(nvme->dev, le64_to_cpu(request->command.prp1),
			       request->len, request->direction);
		return;
	}

	if (dma_need_unmap(nvme->dev))
		dma_unmap_page(nvme->dev, le64_to_cpu(request->command.prp1),
			       request->len, request->direction);

	if (request->lists)
		dma_pool_free(nvme->lists, request->list,
			      le64_to_cpu(request->command.prp2));
}

typedef int (*map_fn)(struct dma_bench_queue *queue,
		      struct dma_bench_request *request);

/* nvme_prep_rq(), with nvme_setup_cmd() */
static __always_inline int prepare(struct dma_bench_queue *queue,
				   struct dma_bench_request *request, u32 tag,
				   u64 block, map_fn map)
{
	u32 id = tag | (request->generation & 0xf) << GENERATION_BITS;

	request->flags = 0;
	request->lists = 0;
	request->len = 0;
	request->meta_len = 0;
	request->vecs = 0;

	if (!(request->block_flags & REQUEST_PREPARED)) {
		request->status = 0;
		request->retries = 0;
		request->cancelled = 0;
		request->block_flags |= REQUEST_PREPARED;
	}

	request->command.head = cpu_to_le32(1 | id << 16);
	request->command.namespace = cpu_to_le32(1);
	request->command.unused[0] = 0;
	request->command.unused[1] = 0;
	request->command.block = cpu_to_le64(block);
	request->command.blocks = cpu_to_le32(request->data_len / 512 - 1);
	request->command.more[0] = 0;
	request->command.more[1] = 0;
	request->command.more[2] = 0;

	return request->segments ? map(queue, request) : 0;
}

/* nvme_dbbuf_update_and_check_event() */
static noinline bool shadow_write(struct dma_bench_shadow *shadow, u16 value)
{
	u16 old, event;

	/* The queue before the doorbell. */
	wmb();
	old = le32_to_cpu(shadow->value);
	WRITE_ONCE(shadow->value, cpu_to_le32(value));
	/* The doorbell before the look at what the device waits for. */
	mb();
	event = le32_to_cpu(READ_ONCE(shadow->event));

	return (u16)(value - event - 1) < (u16)(value - old);
}

/* Returns whether the register is to be written. */
static __always_inline bool rings(struct dma_bench_shadow *shadow, u16 value)
{
	return likely(!shadow) || shadow_write(shadow, value);
}

/* nvme_write_sq_db() */
static __always_inline void queue_kick(struct dma_bench_queue *queue, bool last)
{
	if (!last) {
		u32 next = queue->tail + 1;

		if (next == queue->commands_len)
			next = 0;
		if (likely(next != queue->last_tail))
			return;
	}

	/* writel() orders it after the commands. */
	if (rings(queue->shadow_tail, queue->tail))
		writel(queue->tail, queue->tail_register);
	queue->last_tail = queue->tail;
	dma_bench_controller_run(queue->device, queue->tail);
}

/* nvme_queue_rq(), with nvme_sq_copy_cmd() */
static __always_inline int
queue_submit_by(struct dma_bench_queue *queue, struct dma_bench_piece data,
		u32 len, u64 block, bool last, map_fn map)
{
	struct dma_bench_request *request;
	int tag, err;

	if (unlikely(!test_bit(QUEUE_ENABLED, &queue->flags)))
		return -EIO;
	if (unlikely(READ_ONCE(queue->nvme->state) != NVME_LIVE))
		return -EIO;

	tag = get_tag(queue);
	if (unlikely(tag < 0))
		return tag;

	request = &queue->requests[tag];
	request->block_flags = 0;
	request->segments = 1;
	request->data = data;
	request->data_len = len;

	err = prepare(queue, request, tag, block, map);
	if (unlikely(err)) {
		clear_bit_unlock(tag, queue->busy);
		return err;
	}

	memcpy(queue->commands + (queue->tail << queue->command_shift),
	       absolute_pointer(&request->command), sizeof(request->command));

	if (unlikely(++queue->tail == queue->commands_len))
		queue->tail = 0;

	queue_kick(queue, last);
	return 0;
}

static noinline int queue_submit(struct dma_bench_queue *queue,
				 struct dma_bench_piece data, u64 block,
				 bool last)
{
	return queue_submit_by(queue, data, DMA_BENCH_FRAME, block, last,
			       map_page);
}

static noinline int queue_submit_list(struct dma_bench_queue *queue,
				      struct dma_bench_piece data, u64 block)
{
	return queue_submit_by(queue, data, DMA_BENCH_LARGE, block, true,
			       map_list);
}

static noinline void queue_event(struct dma_bench_queue *queue,
				 struct dma_bench_completion *completion)
{
	dev_warn_once(queue->nvme->dev, "an event: status %#x\n",
		      le16_to_cpu(completion->status));
}

/* nvme_find_rq(), with blk_mq_tag_to_rq() */
static __always_inline struct dma_bench_request *
find_request(struct dma_bench_tags *tags, u16 id)
{
	u16 tag = id & TAG_MASK;
	struct dma_bench_request *request;

	if (tag >= tags->count)
		return NULL;

	prefetch(tags->requests[tag]);
	request = tags->requests[tag];
	if (unlikely(!request))
		return NULL;
	if (unlikely((request->generation & 0xf) != id >> GENERATION_BITS))
		return NULL;

	return request;
}

/* nvme_handle_cqe(), with nvme_try_complete_req() and nvme_pci_complete_rq() */
static __always_inline void
queue_complete(struct dma_bench_queue *queue,
	       struct dma_bench_completion *completion)
{
	u16 id = le16_to_cpu(READ_ONCE(completion->id));
	struct dma_bench_request *request;

	if (unlikely(!queue->number && (id & TAG_MASK) >= EVENT_TAGS)) {
		queue_event(queue, completion);
		return;
	}

	request = find_request(queue->nvme->tags[queue->number], id);
	if (unlikely(!request)) {
		dev_warn_ratelimited(queue->nvme->dev, "invalid id %d\n", id);
		return;
	}

	if (!(request->nvme->quirks & NVME_NO_GENERATIONS))
		request->generation++;

	request->status = le16_to_cpu(completion->status) >> 1;
	request->result = completion->result;
	unmap_data(queue, request);
	if (unlikely(request->status))
		queue->failed++;
	queue->spare[queue->spares++] = request->data;
	clear_bit_unlock(id & TAG_MASK, queue->busy);
}

/* nvme_poll_cq(), with nvme_update_cq_head() */
static noinline void queue_reap(struct dma_bench_queue *queue)
{
	struct dma_bench_completion *completion;
	bool found = false;

	for (;;) {
		completion = &queue->completions[queue->head];
		if ((le16_to_cpu(READ_ONCE(completion->status)) & 1) !=
		    queue->phase)
			break;

		found = true;
		/* The phase before the rest. */
		dma_rmb();
		queue_complete(queue, completion);

		if (unlikely(++queue->head == queue->completions_len)) {
			queue->head = 0;
			queue->phase ^= 1;
		}
	}

	if (found && rings(queue->shadow_head, queue->head))
		writel(queue->head, queue->head_register);
}

DMA_BENCH_LOOP(submit_complete)
{
	struct dma_bench_queue *queue = bench->queue;
	u32 i, batch = bench->batch;
	int err;

	/* A run that failed may have left them in the queue. */
	if (!queue || queue->spares < batch)
		return -EINVAL;

	for (; n; n -= batch) {
		for (i = 0; i < batch; i++) {
			err = queue_submit(queue,
					   queue->spare[--queue->spares], n,
					   i == batch - 1);
			if (err) {
				queue->spares++;
				return err;
			}
		}

		queue_reap(queue);
	}

	return queue->failed ? -EIO : 0;
}

DMA_BENCH_LOOP(submit_list)
{
	struct dma_bench_queue *queue = bench->queue;
	struct dma_bench_piece data;
	int err;

	if (!queue || queue->spares != DMA_BENCH_BATCH ||
	    bench->len != DMA_BENCH_LARGE)
		return -EINVAL;

	data = piece_of(bench->buf);

	for (; n; n--) {
		err = queue_submit_list(queue, data, n);
		if (err)
			return err;

		queue_reap(queue);
		if (queue->spares == DMA_BENCH_BATCH)
			return -EIO;
		data = queue->spare[--queue->spares];
	}

	return queue->failed ? -EIO : 0;
}

/*
 * What the device costs, which isn't to be counted. Both queues come round an
 * even number of times, so all is as it was: the phases, too.
 */
DMA_BENCH_LOOP(controller)
{
	struct dma_bench_queue *queue = bench->queue;
	u32 batch = bench->batch;
	u32 tail;

	if (!queue || n % (2 * DMA_BENCH_COMPLETIONS))
		return -EINVAL;

	tail = queue->tail;

	for (; n; n -= batch) {
		tail = (tail + batch) % DMA_BENCH_COMMANDS;
		dma_bench_controller_run(queue->device, tail);
	}

	return 0;
}

int dma_bench_queue_set_up(struct dma_bench *bench)
{
	struct dma_bench_queue *queue = kzalloc_obj(*queue);
	struct dma_bench_nvme *nvme;
	void *frame;
	int err, i;

	if (!queue)
		return -ENOMEM;

	bench->queue = queue;
	nvme = kzalloc_obj(*nvme);
	if (!nvme)
		return -ENOMEM;

	queue->nvme = nvme;
	nvme->dev = bench->dev;
	nvme->state = NVME_LIVE;
	nvme->tags[1] = &queue->tags;
	queue->tail_register = bench->regs + DMA_BENCH_TAIL;
	queue->head_register = bench->regs + DMA_BENCH_HEAD;
	queue->command_shift = ilog2(sizeof(struct dma_bench_command));
	queue->commands_len = DMA_BENCH_COMMANDS;
	queue->completions_len = DMA_BENCH_COMPLETIONS;
	queue->phase = 1;
	queue->number = 1;
	set_bit(QUEUE_ENABLED, &queue->flags);

	queue->tags.count = DMA_BENCH_TAGS;
	for (i = 0; i < DMA_BENCH_TAGS; i++) {
		queue->tags.requests[i] = &queue->requests[i];
		queue->requests[i].nvme = nvme;
		queue->requests[i].direction = DMA_TO_DEVICE;
	}

	nvme->lists = dma_pool_create("dma_rs_bench_lists", bench->dev,
				      LIST_LEN * sizeof(__le64), 8, 0);
	if (!nvme->lists)
		return -ENOMEM;

	queue->commands = dma_alloc_coherent(bench->dev,
					     DMA_BENCH_COMMANDS *
					     sizeof(struct dma_bench_command),
					     &queue->commands_dma, GFP_KERNEL);
	queue->completions = dma_alloc_coherent(bench->dev,
						DMA_BENCH_COMPLETIONS *
						sizeof(*queue->completions),
						&queue->completions_dma,
						GFP_KERNEL);
	if (!queue->commands || !queue->completions)
		return -ENOMEM;

	for (; queue->spares < DMA_BENCH_BATCH; queue->spares++) {
		frame = kzalloc(DMA_BENCH_FRAME, GFP_KERNEL);
		if (!frame)
			return -ENOMEM;
		queue->spare[queue->spares] = piece_of(frame);
	}

	queue->device = dma_bench_controller_new(dev_name(nvme->dev));
	if (!queue->device)
		return -ENOMEM;

	err = dma_bench_controller_attach_completions(queue->device,
						      queue->completions_dma,
						      DMA_BENCH_COMPLETIONS);
	if (err)
		return err;

	return dma_bench_controller_attach_commands(queue->device,
						    queue->commands_dma,
						    DMA_BENCH_COMMANDS);
}

void dma_bench_queue_tear_down(struct dma_bench *bench)
{
	struct dma_bench_queue *queue = bench->queue;

	if (!queue)
		return;

	/* A loop that failed may have left some. */
	if (queue->device) {
		dma_bench_controller_run(queue->device, queue->tail);
		queue_reap(queue);
	}

	while (queue->spares--)
		kfree(page_address(queue->spare[queue->spares].page) +
		      queue->spare[queue->spares].offset);
	if (queue->completions)
		dma_free_coherent(bench->dev,
				  DMA_BENCH_COMPLETIONS *
				  sizeof(*queue->completions),
				  queue->completions, queue->completions_dma);
	if (queue->commands)
		dma_free_coherent(bench->dev,
				  DMA_BENCH_COMMANDS *
				  sizeof(struct dma_bench_command),
				  queue->commands, queue->commands_dma);
	if (queue->nvme)
		dma_pool_destroy(queue->nvme->lists);
	dma_bench_controller_free(queue->device);
	kfree(queue->nvme);
	kfree(queue);
	bench->queue = NULL;
}
