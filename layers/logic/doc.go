// Package logic is where accounts, sessions and rooms are kept and messages are accepted.
//
// # Accepting a message
//
// Send checks who speaks, where to and how often, and hands the message to the committer. The committer takes all
// that gathered while its last commit ran and stores it in one transaction: seq numbers, messages, outbox rows.
// Only then are the senders answered, each with its receipt; a commit that fails answers each with an error, and
// nothing of it is stored. A committer whose queue is full answers Unavailable at once.
//
// After a commit the publisher hands the batch to the queue, in the order of the commits, and the outbox rows go
// with the next commit. If the queue is away, messages are accepted all the same: their rows stay in the outbox,
// and the publisher reads them from there, in order, until it has caught up. Rows of a process that died are
// published by the sweeper, which one process of the system runs at a time. So an item may be published more than
// once, never less: receivers know a message by conversation and seq.
//
// # What may be stale
//
// A session is remembered for Config.SessionCache, a room and a membership likewise. Ending a session tells every
// logic node to forget it at once; a node that cannot be told forgets it when that time is over.
//
// # Locks
//
// No lock is held over I/O, and none is taken while another is held.
package logic
