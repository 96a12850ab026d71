// SPDX-License-Identifier: GPL-2.0

#include <linux/etherdevice.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <net/dst.h>
#include <net/gro.h>
#include <net/netdev_lock.h>
#include <net/netdev_queues.h>

#ifdef CONFIG_RUST_NETDEV

/* What all devices of Rust drivers have in common. Before they are registered. */
__rust_helper void rust_helper_netdev_prepare(struct net_device *dev,
					      struct device *parent,
					      const struct net_device_ops *ops)
{
	SET_NETDEV_DEV(dev, parent);
	dev->netdev_ops = ops;
	/* The instance lock is held in all callbacks of the control path. */
	dev->request_ops_lock = true;
	/* A frame that is sent is the driver's alone. */
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	/* netpoll would call the poll function without NAPI_STATE_SCHED. */
	dev->priv_flags |= IFF_DISABLE_NETPOLL;
}

__rust_helper void rust_helper_netdev_set_mtu_range(struct net_device *dev,
						    unsigned int min,
						    unsigned int max)
{
	dev->min_mtu = min;
	dev->max_mtu = max;
}

__rust_helper void *rust_helper_netdev_priv(const struct net_device *dev)
{
	return netdev_priv(dev);
}

__rust_helper void rust_helper_eth_hw_addr_set(struct net_device *dev,
					       const u8 *addr)
{
	eth_hw_addr_set(dev, addr);
}

__rust_helper bool rust_helper_netif_running(const struct net_device *dev)
{
	return netif_running(dev);
}

__rust_helper struct netdev_queue *
rust_helper_netdev_get_tx_queue(const struct net_device *dev,
				unsigned int index)
{
	return netdev_get_tx_queue(dev, index);
}

__rust_helper void rust_helper_netif_tx_lock_queue_bh(struct netdev_queue *txq)
{
	__netif_tx_lock_bh(txq);
}

__rust_helper void
rust_helper_netif_tx_unlock_queue_bh(struct netdev_queue *txq)
{
	__netif_tx_unlock_bh(txq);
}

__rust_helper void
rust_helper_netif_tx_assert_locked(struct netdev_queue *txq)
{
	lockdep_assert_held(&txq->_xmit_lock);
}

__rust_helper void rust_helper_netif_tx_stop_queue(struct netdev_queue *txq)
{
	netif_tx_stop_queue(txq);
}

__rust_helper void rust_helper_netif_tx_stop_queue_mb(struct netdev_queue *txq)
{
	netif_tx_stop_queue(txq);
	/* The flag is set before whatever is looked at next. */
	smp_mb__after_atomic();
}

__rust_helper void rust_helper_netif_tx_start_queue(struct netdev_queue *txq)
{
	netif_tx_start_queue(txq);
}

__rust_helper bool
rust_helper_netif_tx_queue_stopped(const struct netdev_queue *txq)
{
	return netif_tx_queue_stopped(txq);
}

__rust_helper bool rust_helper_netif_xmit_stopped(const struct netdev_queue *txq)
{
	return netif_xmit_stopped(txq);
}

__rust_helper bool rust_helper_netdev_xmit_more(void)
{
	return netdev_xmit_more();
}

__rust_helper void rust_helper_netdev_tx_sent(struct netdev_queue *txq,
					      unsigned int bytes, bool more)
{
	__netdev_tx_sent_queue(txq, bytes, more);
}

__rust_helper void rust_helper_netdev_txq_completed_mb(struct netdev_queue *txq,
						       unsigned int pkts,
						       unsigned int bytes)
{
	netdev_txq_completed_mb(txq, pkts, bytes);
}

__rust_helper void
rust_helper_netif_napi_add(struct net_device *dev, struct napi_struct *napi,
			   int (*poll)(struct napi_struct *napi, int budget))
{
	netif_napi_add(dev, napi, poll);
}

__rust_helper bool rust_helper_napi_schedule(struct napi_struct *napi)
{
	return napi_schedule(napi);
}

/* From process context: the softirq runs before this returns. */
__rust_helper void rust_helper_napi_kick(struct napi_struct *napi)
{
	local_bh_disable();
	napi_schedule(napi);
	local_bh_enable();
}

/* A received frame of an Ethernet device, with its header. */
__rust_helper void rust_helper_napi_gro_receive_eth(struct napi_struct *napi,
						    struct sk_buff *skb)
{
	skb->protocol = eth_type_trans(skb, napi->dev);
	napi_gro_receive(napi, skb);
}

__rust_helper unsigned int rust_helper_skb_tailroom(const struct sk_buff *skb)
{
	return skb_tailroom(skb);
}

__rust_helper void rust_helper_skb_put_data(struct sk_buff *skb,
					    const void *data, unsigned int len)
{
	skb_put_data(skb, data, len);
}

__rust_helper int rust_helper_skb_put_padto(struct sk_buff *skb,
					    unsigned int len)
{
	return skb_put_padto(skb, len);
}

__rust_helper int rust_helper_skb_linearize(struct sk_buff *skb)
{
	return skb_linearize(skb);
}

__rust_helper void rust_helper_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

/*
 * Releases what a frame needs no more when it waits in a ring, and what a
 * network namespace would wait for: its route, and its connection's state.
 */
__rust_helper void rust_helper_skb_shed(struct sk_buff *skb)
{
	skb_dst_drop(skb);
	nf_reset_ct(skb);
}

/* The device may be gone when the frame is freed, and those who trace that would look at it. */
__rust_helper void rust_helper_skb_forget_dev(struct sk_buff *skb)
{
	skb->dev = NULL;
}

#endif
