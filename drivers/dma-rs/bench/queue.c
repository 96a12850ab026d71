// SPDX-License-Identifier: GPL-2.0
/*
 * Commands and completions as the kernel's own NVMe driver has them: a request
 * for each tag, a generation in what the device echoes, a phase that says which
 * completions are new, one doorbell a batch on both sides. What that driver looks
 * at for each command or doorbell is looked at here, too: whether the queue and
 * the controller take commands, whether there are doorbells in memory, whether
 * a completion is one of an event. Its lock isn't taken, nor one in Rust.
 */

#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/slab.h>

#include "bench.h"

/* What a command echoes: a tag, and how often that was given. */
#define TAG_MASK	0xfff
#define GENERATION_BITS	12

/* Tags from here on are those of events, in a queue whose number is 0. */
#define EVENT_TAGS	30

#define QUEUE_ENABLED	0
#define CONTROLLER_LIVE	1

struct dma_bench_request {
	void *data;
	dma_addr_t dma;
	u16 generation;
	u16 status;
	__le32 result;
};

/* A doorbell in memory, and behind which value of it the device is to be woken. */
struct dma_bench_shadow {
	__le32 value;
	__le32 event;
};

struct dma_bench_queue {
	struct dma_bench_command *commands;
	dma_addr_t commands_dma;
	struct dma_bench_completion *completions;
	dma_addr_t completions_dma;
	struct device *dev;
	struct dma_bench_controller *device;
	void __iomem *tail_register;
	void __iomem *head_register;
	unsigned long flags;
	int state;
	u16 number;
	/* If the device has doorbells in memory. */
	struct dma_bench_shadow *shadow_tail;
	struct dma_bench_shadow *shadow_head;
	u32 tail;
	/* What the device was told. */
	u32 last_tail;
	u32 head;
	u16 phase;
	DECLARE_BITMAP(tags, DMA_BENCH_TAGS);
	struct dma_bench_request requests[DMA_BENCH_TAGS];
	/* Frames that aren't under way. */
	void *spare[DMA_BENCH_BATCH];
	u32 spares;
};

static __always_inline int get_tag(struct dma_bench_queue *queue)
{
	unsigned int tag;

	do {
		tag = find_first_zero_bit(queue->tags, DMA_BENCH_TAGS);
		if (tag >= DMA_BENCH_TAGS)
			return -EBUSY;
	} while (test_and_set_bit_lock(tag, queue->tags));

	return tag;
}

static noinline int queue_submit(struct dma_bench_queue *queue, void *data,
				 u64 block)
{
	struct dma_bench_command command = { };
	struct dma_bench_request *request;
	int tag;
	u32 id;

	if (unlikely(!test_bit(QUEUE_ENABLED, &queue->flags)))
		return -EIO;
	if (unlikely(READ_ONCE(queue->state) != CONTROLLER_LIVE))
		return -EIO;

	tag = get_tag(queue);
	if (unlikely(tag < 0))
		return tag;

	request = &queue->requests[tag];
	request->dma = dma_map_single(queue->dev, data, DMA_BENCH_FRAME,
				      DMA_TO_DEVICE);
	if (dma_mapping_error(queue->dev, request->dma)) {
		clear_bit_unlock(tag, queue->tags);
		return -ENOMEM;
	}

	request->data = data;
	id = tag | (request->generation & 0xf) << GENERATION_BITS;

	command.head = cpu_to_le32(1 | id << 16);
	command.namespace = cpu_to_le32(1);
	command.prp1 = cpu_to_le64(request->dma);
	command.block = cpu_to_le64(block);
	command.blocks = cpu_to_le32(DMA_BENCH_FRAME / 512 - 1);

	memcpy(&queue->commands[queue->tail], &command, sizeof(command));

	if (unlikely(++queue->tail == DMA_BENCH_COMMANDS))
		queue->tail = 0;

	return 0;
}

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

static noinline void queue_kick(struct dma_bench_queue *queue)
{
	/* writel() orders it after the commands. */
	if (rings(queue->shadow_tail, queue->tail))
		writel(queue->tail, queue->tail_register);
	queue->last_tail = queue->tail;
	dma_bench_controller_run(queue->device, queue->tail);
}

static noinline void queue_event(struct dma_bench_queue *queue,
				 struct dma_bench_completion *completion)
{
	dev_warn_once(queue->dev, "an event: status %#x\n",
		      le16_to_cpu(completion->status));
}

static __always_inline void
queue_complete(struct dma_bench_queue *queue,
	       struct dma_bench_completion *completion)
{
	u16 id = le16_to_cpu(READ_ONCE(completion->id));
	u16 tag = id & TAG_MASK;
	struct dma_bench_request *request;

	if (unlikely(!queue->number && tag >= EVENT_TAGS)) {
		queue_event(queue, completion);
		return;
	}

	if (unlikely(tag >= DMA_BENCH_TAGS || !test_bit(tag, queue->tags)))
		return;

	request = &queue->requests[tag];
	if (unlikely((request->generation & 0xf) != id >> GENERATION_BITS))
		return;

	request->generation++;
	request->status = le16_to_cpu(completion->status) >> 1;
	request->result = completion->result;
	dma_unmap_single(queue->dev, request->dma, DMA_BENCH_FRAME,
			 DMA_TO_DEVICE);
	queue->spare[queue->spares++] = request->data;
	clear_bit_unlock(tag, queue->tags);
}

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

		if (unlikely(++queue->head == DMA_BENCH_COMPLETIONS)) {
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
					   queue->spare[--queue->spares], n);
			if (err) {
				queue->spares++;
				return err;
			}
		}

		queue_kick(queue);
		queue_reap(queue);
	}

	return 0;
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
	int err;

	if (!queue)
		return -ENOMEM;

	bench->queue = queue;
	queue->dev = bench->dev;
	queue->tail_register = bench->regs + DMA_BENCH_TAIL;
	queue->head_register = bench->regs + DMA_BENCH_HEAD;
	queue->phase = 1;
	queue->number = 1;
	queue->state = CONTROLLER_LIVE;
	set_bit(QUEUE_ENABLED, &queue->flags);

	queue->commands = dma_alloc_coherent(bench->dev,
					     DMA_BENCH_COMMANDS *
					     sizeof(*queue->commands),
					     &queue->commands_dma, GFP_KERNEL);
	queue->completions = dma_alloc_coherent(bench->dev,
						DMA_BENCH_COMPLETIONS *
						sizeof(*queue->completions),
						&queue->completions_dma,
						GFP_KERNEL);
	if (!queue->commands || !queue->completions)
		return -ENOMEM;

	for (; queue->spares < DMA_BENCH_BATCH; queue->spares++) {
		queue->spare[queue->spares] = kzalloc(DMA_BENCH_FRAME,
						      GFP_KERNEL);
		if (!queue->spare[queue->spares])
			return -ENOMEM;
	}

	queue->device = dma_bench_controller_new(dev_name(queue->dev));
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

	while (queue->spares)
		kfree(queue->spare[--queue->spares]);
	if (queue->completions)
		dma_free_coherent(queue->dev,
				  DMA_BENCH_COMPLETIONS *
				  sizeof(*queue->completions),
				  queue->completions, queue->completions_dma);
	if (queue->commands)
		dma_free_coherent(queue->dev,
				  DMA_BENCH_COMMANDS *
				  sizeof(*queue->commands),
				  queue->commands, queue->commands_dma);
	dma_bench_controller_free(queue->device);
	kfree(queue);
	bench->queue = NULL;
}
