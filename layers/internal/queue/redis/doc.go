// Package redis keeps the queue in Redis Streams: Redis 7.0 or later, alone, behind Sentinels, or as a Cluster.
//
// Partition p is the stream "gochat:deliveries:{p}"; the braces are its Cluster hash tag. A script appends a batch to
// it as a whole or not at all. Its only consumer group is "task", in which every reader is the consumer "owner":
// ownership is exclusive, so what an earlier owner has read and not acknowledged is simply the new owner's own, no
// claiming is needed, and no names of dead processes pile up. Acknowledged items are deleted, so a stream holds what is
// undelivered, and its length is the depth.
//
// One partition is read like this, over and over:
//
//	look     in one round trip: acknowledge and delete what was handled, ask for what is read but not acknowledged,
//	         oldest first, and for what is new; pending entries, else new ones, go to handle
//	wait     if there were none, wait up to a quarter of a second for new ones; go to handle, or again to look
//	handle   call the handler; on an error pause; go to look
//
// All partitions that are read here look and wait together, in one round trip, at most every four milliseconds: a
// message costs a share of it. Whose handler works does not take part; that one is waited for shortly, and if it is
// slow the others go on without it. A Cluster answers for one slot at a time, so there each partition looks for itself.
//
// There is no other state. Each failure, and each takeover, ends in look, and new items are handed over only when
// nothing older is left: what a paused process, that has lost its ownership without knowing, has read away is found.
// Looking may be repeated by the client: what the lost reply had is pending at the second look, and goes first.
//
// A wait for new items is never repeated by the client: if the first reply was lost, a second read would skip what
// was in it. Everything else is repeated a few times. A publish that is repeated may add a batch twice, one after the
// other, which keeps the order of first arrivals.
//
// What Redis loses (no append-only file, an asynchronous failover, a wipe) is lost here. The group is made again as
// soon as it is missed, from the stream's beginning, so nothing published in between is passed over. The outbox
// and the repair of conversations make up for what is gone.
package redis
