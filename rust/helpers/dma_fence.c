// SPDX-License-Identifier: GPL-2.0

#include <linux/dma-fence.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>

#ifdef CONFIG_RUST_DMA_FENCE
__rust_helper void rust_helper_dma_fence_get(struct dma_fence *fence)
{
	dma_fence_get(fence);
}

__rust_helper void rust_helper_dma_fence_put(struct dma_fence *fence)
{
	dma_fence_put(fence);
}

__rust_helper void rust_helper_dma_fence_set_error(struct dma_fence *fence,
						   int error)
{
	dma_fence_set_error(fence, error);
}

/*
 * As dma_fence_get_status(), without its lock: a callback, which is called
 * under that lock, may ask.
 */
__rust_helper int rust_helper_dma_fence_status(struct dma_fence *fence)
{
	if (!dma_fence_is_signaled(fence))
		return 0;

	/* The error is stored before the flag is set, which is a full barrier. */
	smp_rmb();
	return READ_ONCE(fence->error) ?: 1;
}

/* Whether somebody besides the caller has a reference. */
__rust_helper bool rust_helper_dma_fence_is_shared(struct dma_fence *fence)
{
	return kref_read(&fence->refcount) > 1;
}

/*
 * Keeps the module of a function from being unloaded. NULL stands for the
 * kernel, which isn't.
 */
__rust_helper bool rust_helper_dma_fence_pin_code(unsigned long function,
						  struct module **module)
{
	bool pinned;

	rcu_read_lock();
	*module = __module_text_address(function);
	pinned = try_module_get(*module);
	rcu_read_unlock();

	return pinned;
}

__rust_helper void rust_helper_dma_fence_unpin_code(struct module *module)
{
	module_put(module);
}

#ifndef CONFIG_LOCKDEP
__rust_helper bool rust_helper_dma_fence_begin_signalling(void)
{
	return dma_fence_begin_signalling();
}

__rust_helper void rust_helper_dma_fence_end_signalling(bool cookie)
{
	dma_fence_end_signalling(cookie);
}
#endif /* !CONFIG_LOCKDEP */

#ifdef CONFIG_RUST_DMA_FENCE_KUNIT_TEST
/* Has a kernel thread send itself a signal, and forget it again. */
__rust_helper void rust_helper_dma_fence_test_signal(bool pending)
{
	if (pending) {
		allow_signal(SIGINT);
		send_sig(SIGINT, current, 1);
	} else {
		flush_signals(current);
		disallow_signal(SIGINT);
	}
}
#endif /* CONFIG_RUST_DMA_FENCE_KUNIT_TEST */
#endif /* CONFIG_RUST_DMA_FENCE */
