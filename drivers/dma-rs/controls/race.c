// SPDX-License-Identifier: GPL-2.0
/*
 * A data race on request.
 *
 * Where the kernel has KCSAN, two threads store to one word here, and nothing
 * orders them. KCSAN must report it, or it is asleep: then it says nothing
 * about the drivers either. The suite rust_dma_race does the same in Rust, whose
 * code is instrumented by another compiler.
 */

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/kthread.h>
#include <linux/sched.h>

/* KCSAN looks at one access of some hundred. */
#define TIMES	100000

struct racer {
	struct completion done;
	atomic_t *together;
	u64 *word;
};

/* Not inlined, so that each race is one between these two instructions. */
static noinline void dma_rs_racing_store(u64 *word, u64 value)
{
	*word = value;
}

static int dma_rs_race(void *data)
{
	struct racer *racer = data;
	int i;

	/* One that begins early would be gone when the other one comes. */
	atomic_inc(racer->together);
	while (atomic_read(racer->together) < 2)
		cond_resched();

	for (i = 0; i < TIMES; i++) {
		dma_rs_racing_store(racer->word, i);
		cond_resched();
	}

	complete(&racer->done);
	return 0;
}

/* Two CPUs store to one word. */
static void race(struct kunit *test)
{
	atomic_t together = ATOMIC_INIT(0);
	struct task_struct *tasks[2];
	struct racer racers[2];
	u64 word = 0;
	int i, cpu = -1;

	if (num_online_cpus() < ARRAY_SIZE(racers))
		kunit_skip(test, "needs two CPUs");

	for (i = 0; i < ARRAY_SIZE(racers); i++) {
		init_completion(&racers[i].done);
		racers[i].together = &together;
		racers[i].word = &word;
		cpu = cpumask_next(cpu, cpu_online_mask);
		tasks[i] = kthread_create_on_cpu(dma_rs_race, &racers[i], cpu,
						 "dma_rs_race/%u");
		if (IS_ERR(tasks[i])) {
			/* The other one doesn't run yet, and never will. */
			if (i)
				kthread_stop(tasks[0]);
			KUNIT_FAIL_AND_ABORT(test, "no thread");
		}
	}

	kunit_info(test, "dma-rs-expect: dma_rs_racing_store / ");

	for (i = 0; i < ARRAY_SIZE(racers); i++)
		wake_up_process(tasks[i]);

	for (i = 0; i < ARRAY_SIZE(racers); i++)
		wait_for_completion(&racers[i].done);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(race),
	{}
};

static struct kunit_suite suite = {
	.name = "dma_rs_race",
	.test_cases = cases,
};

kunit_test_suite(suite);
