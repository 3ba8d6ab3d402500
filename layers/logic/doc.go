// Package logic is where accounts, sessions and rooms are kept and messages are accepted.
//
// # Accepting a message
//
// Send checks who speaks, where to and how often, and hands the message to the committer. The committer takes all
// that gathered while its last commit ran and stores it in one transaction: seq numbers, messages, outbox rows.
// Only then are the senders answered, each with its receipt; a commit that fails answers each with an error, and
// nothing of it is stored. If the connection to the database breaks in a commit, the store finds out what became of it,
// or does it again, before anyone is answered. What it cannot find out in time is Unavailable too, and the error says
// so: the same clientId, sent again, is stored once. A message whose sender's time is up while it still waits is taken
// back. A committer whose queue is full answers Unavailable at once.
//
// After a commit the publisher hands the batch to the queue, in the order of the commits, and the outbox rows go
// with the next commit. If the queue is away, messages are accepted all the same: their rows stay in the outbox,
// and the publisher reads them from there, in order, until it has caught up. Rows of a process that died are
// published by the sweeper, which one process of the system runs at a time. So an item may be published more than
// once, never less: receivers know a message by conversation and seq.
//
// # Order
//
// What one process accepts in a conversation it publishes in the order of seq, whatever fails: from memory as it was
// committed, or from the outbox, whose positions ascend with seq. It does not skip what waits in the outbox, since it
// reads from there to the end before it publishes from memory again.
//
// Two processes do not wait for each other. A conversation moves when a logic node comes or goes; what the earlier node
// has committed and not published yet, an instant's worth, or all that waits if its queue is away, can be overtaken by
// what the later one commits, until the sweeper gets to it. A node that has died leaves such rows for sweepAge. To keep
// them in line each commit would have to ask the outbox for rows of others. It is not worth that: connect holds back
// what skips ahead, fetches the gap by one call for a node and conversation, and its clients see seq order.
//
// # Canaries
//
// Each connect node writes to itself, as a user of whom nobody else knows: see CanarySession. What it says is stored,
// published and counted as people's messages are. Then its conversation is trimmed, which no other ever is.
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
