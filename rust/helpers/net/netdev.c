// SPDX-License-Identifier: GPL-2.0

#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <net/checksum.h>
#include <net/dst.h>
#include <net/gro.h>
#include <net/netdev_lock.h>
#include <net/netdev_queues.h>
#include <net/sch_generic.h>

#ifdef CONFIG_RUST_NETDEV

/* What all devices of Rust drivers have in common. Before they are registered. */
__rust_helper void
rust_helper_netdev_prepare(struct net_device *dev, struct device *parent,
			   const struct net_device_ops *ops,
			   const struct ethtool_ops *ethtool)
{
	SET_NETDEV_DEV(dev, parent);
	dev->netdev_ops = ops;
	dev->ethtool_ops = ethtool;
	/* The instance lock is held in all callbacks of the control path. */
	dev->request_ops_lock = true;
	/* No frame is sent twice at the same time. */
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	/* Until it is registered. The queue may be woken by a test before. */
	rcu_assign_pointer(netdev_get_tx_queue(dev, 0)->qdisc, &noop_qdisc);
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

/* What the device does, and which of that can be switched off. Before it is registered. */
__rust_helper void rust_helper_netdev_set_features(struct net_device *dev,
						   u64 changeable, u64 fixed)
{
	dev->hw_features |= changeable;
	dev->features |= changeable | fixed;
	/* The same of frames that have a tag within. */
	dev->vlan_features |= (changeable | fixed) &
			      (NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_ALL_TSO);
}

/*
 * Whether its address can be changed while it is open, and whether it can
 * receive for several addresses. Before it is registered.
 */
__rust_helper void rust_helper_netdev_set_addressing(struct net_device *dev,
						     bool live, bool filters)
{
	if (live)
		dev->priv_flags |= IFF_LIVE_ADDR_CHANGE;
	if (filters)
		dev->priv_flags |= IFF_UNICAST_FLT;
}

/* The address of a list that follows on another one, or the first; null at the end. */
__rust_helper struct netdev_hw_addr *
rust_helper_netdev_hw_addr_next(struct netdev_hw_addr_list *list,
				struct netdev_hw_addr *addr)
{
	struct list_head *next = addr ? addr->list.next : list->list.next;

	return next == &list->list ?
		       NULL : list_entry(next, struct netdev_hw_addr, list);
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

__rust_helper bool rust_helper_netif_carrier_ok(const struct net_device *dev)
{
	return netif_carrier_ok(dev);
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

/* From process context: the softirq isn't put off until the next interrupt. */
__rust_helper void rust_helper_napi_kick(struct napi_struct *napi)
{
	local_bh_disable();
	napi_schedule(napi);
	local_bh_enable();
}

/*
 * A received frame of an Ethernet device, with its header. @checked if the
 * device has found its checksum to be right; @vlan if it has taken out @tag.
 */
__rust_helper void rust_helper_napi_gro_receive_eth(struct napi_struct *napi,
						    struct sk_buff *skb,
						    bool checked, bool vlan,
						    u16 tag)
{
	skb->protocol = eth_type_trans(skb, napi->dev);
	if (checked && (napi->dev->features & NETIF_F_RXCSUM))
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	if (vlan)
		__vlan_hwaccel_put_tag(skb, htons(ETH_P_8021Q), tag);
	napi_gro_receive(napi, skb);
}

#ifdef CONFIG_RUST_NETDEV_KUNIT_TEST
__rust_helper void rust_helper_skb_add_rx_frag(struct sk_buff *skb, int at,
					       struct page *page, int offset,
					       int size, unsigned int truesize)
{
	skb_add_rx_frag(skb, at, page, offset, size, truesize);
}

__rust_helper struct sk_buff *rust_helper_skb_get(struct sk_buff *skb)
{
	return skb_get(skb);
}
#endif

__rust_helper struct sk_buff *rust_helper_alloc_skb(unsigned int size,
						    gfp_t flags)
{
	return alloc_skb(size, flags);
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

__rust_helper bool rust_helper_skb_shared(const struct sk_buff *skb)
{
	return skb_shared(skb);
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

/* In how many pieces a frame is, as one that is to be sent. */
__rust_helper unsigned int rust_helper_skb_pieces(const struct sk_buff *skb)
{
	return 1 + skb_shinfo(skb)->nr_frags;
}

__rust_helper bool rust_helper_skb_has_frag_list(const struct sk_buff *skb)
{
	return skb_has_frag_list(skb);
}

__rust_helper const void *rust_helper_skb_piece(const struct sk_buff *skb,
						unsigned int at, size_t *len)
{
	const skb_frag_t *frag;

	if (!at) {
		*len = skb_headlen(skb);
		return skb->data;
	}

	frag = &skb_shinfo(skb)->frags[at - 1];
	*len = skb_frag_size(frag);
	return skb_frag_address(frag);
}

/* Whether the device is to insert a checksum, over what, and where: from the start of the frame. */
__rust_helper bool rust_helper_skb_wants_csum(const struct sk_buff *skb,
					      u16 *start, u16 *offset)
{
	if (skb->ip_summed != CHECKSUM_PARTIAL)
		return false;

	*start = skb_checksum_start_offset(skb);
	*offset = *start + skb->csum_offset;
	return true;
}

/* Whether the device is to insert a VLAN tag, and which. */
__rust_helper bool rust_helper_skb_wants_vlan(const struct sk_buff *skb,
					      u16 *tag)
{
	if (!skb_vlan_tag_present(skb))
		return false;

	*tag = skb_vlan_tag_get(skb);
	return true;
}

__rust_helper bool rust_helper_skb_is_gso(const struct sk_buff *skb)
{
	return skb_is_gso(skb);
}

/*
 * Prepares the headers of a frame that the device is to divide (TCP over IPv4),
 * so that it can put lengths and checksums into each part.
 */
__rust_helper int rust_helper_skb_prepare_tso(struct sk_buff *skb, u16 *size,
					      u16 *headers, u16 *network,
					      u16 *transport)
{
	struct iphdr *ip;
	int err;

	if (!(skb_shinfo(skb)->gso_type & SKB_GSO_TCPV4))
		return -EPROTONOSUPPORT;

	err = skb_cow_head(skb, 0);
	if (err)
		return err;

	ip = ip_hdr(skb);
	ip->tot_len = 0;
	ip->check = 0;
	tcp_hdr(skb)->check = ~csum_tcpudp_magic(ip->saddr, ip->daddr, 0,
						 IPPROTO_TCP, 0);

	*size = skb_shinfo(skb)->gso_size;
	*headers = skb_tcp_all_headers(skb);
	*network = skb_network_offset(skb);
	*transport = skb_transport_offset(skb);
	return 0;
}

/* How many bytes a frame that was sent has on the wire, and in how many frames. */
__rust_helper unsigned int rust_helper_skb_wire_bytes(const struct sk_buff *skb,
						      unsigned int *frames)
{
	*frames = 1;
	if (likely(!skb_is_gso(skb)))
		return skb->len;

	*frames = skb_shinfo(skb)->gso_segs;
	return skb->len + (*frames - 1) * skb_tcp_all_headers(skb);
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
