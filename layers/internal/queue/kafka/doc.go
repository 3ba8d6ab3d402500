// Package kafka keeps the queue in Kafka: brokers from 2.4 on. No real broker was to be had where this was written: it
// is tested against kfake, the imitation of a cluster by the authors of the client, which keeps its data over restarts.
//
// Partition p is partition p of the topic "gochat.deliveries", chosen by queue.Partition as in every driver. An item is
// a record: its key, its body as the value, its headers as headers. The topics are made if they are missing, with as
// many replicas as the cluster's default says; one that has another number of partitions is refused. What is
// acknowledged is the committed offset of the consumer group "gochat.task".
//
// # Publishing
//
// The producer is idempotent and waits for all replicas that are in sync. What it has begun to send it never takes
// back, and never lets another record of the partition overtake. So a Publish whose time is up leaves records on their
// way: until they are answered the next Publish for that partition waits, and gives up in its turn with nothing added.
// An outage thus leaves at most one unfinished batch for each Publish that ran when it began, not one for each attempt.
//
// Kafka has no bound on items, only on bytes or age, and what these remove was perhaps never delivered. The publisher
// keeps the bound: end of the partition less committed offset, which it asks for at most once a second and when it
// seems full, and else knows from Kafka's answers. Several publishers may overshoot it by what the others add within a
// second. Retention must be longer than any outage of task: the broker's own default, a week, is left as it is.
//
// # Consuming
//
// The group decides who reads which partition, cooperatively: one that stays where it is is not interrupted. One that
// moves is given up in a first round, which its owner holds up until its handler has returned and the offset is
// committed, and gets its new owner in a second. queue.Ownership is not used. An owner that the group has lost, because
// it was not heard of for Config.Session, ends its handlers' ctx when it learns of that; until then two may hand over
// the same items. While one partition is given up, nothing new is fetched for the others here.
//
// One goroutine reads each partition, over and over:
//
//	next     wait for records; they stay in memory until they are done, and fetching pauses at 4 MiB
//	mark     say how far items are handed over, in the metadata of the committed offset, beside handle
//	handle   call the handler; on an error pause, go to next, which is the same records
//	commit   commit the offset, until it succeeds; go to next
//
// The mark makes Attempt and Pending true across owners: Kafka counts neither. It costs no commit of its own while there
// is more to do, since each commit carries the mark of what follows. A consumer that is killed within the milliseconds
// until its mark has arrived leaves items that say they come for the first time. Attempt is exact within one owner; what
// an earlier owner was given begins at 2.
//
// What the handler has done while Kafka was away is committed when it is back, if the group still knows this consumer;
// else it is handed over again. A record without a key, or with the key of another partition, is not ours: it is set
// aside in order with the rest.
//
// Items set aside are in the topic "gochat.deliveries.aside", in the partition of the same number, which keeps 128 MiB
// of each, however old.
//
// A close while it consumes leaves the group without committing, and without waiting until the session has run out.
//
// What Kafka loses (an unclean leader, deleted topics, retention) is lost here. If the topics are deleted they are made
// again, and consumers begin at their start. The outbox and the repair of conversations make up for what is gone.
//
// The order in which locks are taken: session.mu, then reader.mu; Queue.mu is taken alone.
package kafka
