// Package rabbitmq keeps the queue in RabbitMQ: 3.10 or later, alone or as a cluster, without plugins.
//
// Partition p is the durable quorum queue "gochat.deliveries.p", which has a single active consumer. An item is a
// message: its key, its headers and the time are header fields, its body is the body. What is set aside goes to
// "gochat.deliveries.p.aside", made when it is first needed, which keeps the last 200. Queues are made by whoever
// misses them first, with the same arguments.
//
// # Publishing
//
// An instance publishes on one channel, so items keep the order of the calls. A call writes everything and then waits
// for the broker's confirms, and answers nil if each message was confirmed and none came back for want of a queue.
// After any other outcome all of it is to be published again; what was held already then comes twice.
//
// The bound is kept by the publishers: before items go to a partition the broker is asked how many messages wait
// there, and again once a share of the room is used up or a second has passed. A refused partition gets nothing, which
// a nack does not promise: RabbitMQ tells channels of a full queue after the fact, goes on refusing until it is down
// to 80 per cent, and may take the end of a call whose middle it has refused, so that what is held would have a gap.
// The broker's own bound stands a quarter above ours, where 80 per cent are 100 of ours, as a fence. Only there can a
// gap come to be, and only if publishers at once have overfilled the partition by a quarter, and a fifth of it was
// acknowledged while one call was on its way. Items that are being handled do not count, neither here nor there: a
// partition holds up to 512 more. A bound that is changed applies to publishers at once, and to the fence when the
// queue is made anew.
//
// # Reading
//
// Ownership decides which instance reads a partition; an instance registers for its own alone, so that they are spread
// evenly. The single active consumer is the fence behind it: while a former owner that knows nothing of its loss still
// holds messages, the new one is kept waiting, and both never read at once. One partition is read like this:
//
//	open    declare the queue, register as its reader; the broker sends up to 512 messages ahead
//	await   wait until a message is held; if the channel is lost, close, pause, open; if nothing comes for 10 s, close, open
//	handle  give the oldest that are held to the handler; on an error pause, go to await: they are still held
//	ack     acknowledge what was handled, go to await
//	close   close the channel: what is held and not acknowledged goes back
//
// Messages are never given back one by one, and a reader is never cancelled while it holds some: either would let newer
// ones pass. What goes back with a closed channel is put before everything else, in order, but behind what an earlier
// reader has given back. So every reader has the same prefetch, whatever its batch: it takes all of that at once. This
// needs a delivery limit, since without one messages go back to the end; it is so high that none is ever dropped.
//
// Item.Attempt counts the readers that had the item before, whether or not they had handed it over, and the tries of
// this one. An acknowledgement has no answer: one that is lost with its connection was none, and the items come again.
// A handler that takes more than the broker's consumer_timeout, half an hour, loses its channel, and the items come
// again when it has returned.
//
// A partition that is read has a connection of its own, and so have publishing and asking. Partitions do not wait for
// each other, a broker that is short of memory and takes no items still gets acknowledgements, and an operation that
// is not answered is ended by cutting its connection, for which the protocol has no other word. A partition has one
// owner, so that is Partitions connections over all processes together, and two for each.
//
// # What nobody knows
//
// The broker tells how many messages wait, not how many were read nor how old they are, unless the management plugin
// is asked. So only the instance that reads a partition knows its whole Depth, its Pending and its OldestAge, and that
// one sets the gauges. To others Depth is what waits. The age is that of the oldest item held, from the publisher's
// clock. Asking whether a queue is there costs a round trip for each partition.
//
// # What may be lost
//
// What most of a cluster's nodes have on disk survives; a queue that is deleted takes its items along, and the outbox
// and the repair of conversations make up for them. Measured with 3.10.8: a node that is killed within half a second
// of having made a queue may not find it again, and the queue must then be deleted by hand; one that is deleted and
// made again at once may keep its former reader and send it nothing, which is why a reader begins anew after 10 s
// without items.
package rabbitmq
