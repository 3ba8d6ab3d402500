// Package connect holds the long connections: websocket and tcp, one vocabulary (package wire).
//
// # Structure
//
// A Channel is one connection. A Bucket owns the channels of the users that hash to it, and its part of each Room:
// the members among its channels. Each bucket has one worker, which alone pushes deliveries to the bucket's
// channels: what is handed to a bucket in an order reaches each of its connections in that order.
//
// # Writing
//
// What one push has for the same receivers, one after the other, goes to each of them by one write. A push never waits
// for a socket. If nothing waits for the socket already, the frame is offered to the kernel
// without blocking; what the kernel does not take is queued on the channel, and a writer goroutine lives as long as
// that queue is not empty. The queue is bounded in bytes: a channel that exceeds it is closed as a slow consumer,
// told so, and finds what it missed when it resumes.
//
// # Compression
//
// If Config says so, a websocket that offers permessage-deflate (RFC 7692) may send messages compressed, and is sent them so.
// Each is compressed by itself, so that one compression serves every connection of the node, and no connection
// holds a window: a push compresses what is long enough before it goes to the buckets, if anybody here agreed to
// that. Where it would not be shorter, and in what answers a single connection, plain frames go out.
//
// # Reading
//
// A connection from which nothing comes holds no goroutine and no buffer: the poller, an epoll of this node's own, tells once
// when it can be read. Then one goroutine holds it: it reads what has come, acts on each frame before it reads the next,
// and parks the connection again, with what there is of a frame that is not whole; that grows with what has come, not with
// what was announced. At the end it takes the connection out of its bucket and rooms and closes the socket; nobody else
// closes it, so that a descriptor is its own for as long as it is used. Whoever else wants a connection gone calls
// Channel.end: the last frames go out, the socket is shut for writing, and the peer's end, or the shutting of both sides a
// little later, has it read once more. gorilla shakes hands; the frames of a websocket are read by package wire.
//
// Who does not authenticate in time, does not finish what has begun, or does not go when it was ended, is found by three
// queues, each of waits of one length with one timer. Pings go to a sixteenth of the connections at a time.
//
// # Where people are
//
// The registrar counts, for each user and each room, the connections of this node, and keeps the routes in step:
// written before an enter is done, so that no message is missed from then on, and written again in full when the
// node begins a new life or the routes were lost. Which rooms a channel is in, its bucket alone says: who joins there
// has arrived at the registrar before, and who has left departs after.
//
// The sequencer counts a user's connections too, those alone that are in their bucket: it hears of one after the bucket
// has it, and of its end before the bucket lets go. Who is on the way in or out, or has gone while a push waited for the
// bucket, is answered as absent, and nothing is left of what was pushed: it may be pushed again.
//
// # Replays
//
// A conversation that is to be replayed to a channel is withheld from before its first live message could come until
// the replay has reached what was withheld. So a client that names its last seq gets what followed, once and in
// order. What is pushed later than a minute after it was replayed may come twice; the client drops it by its seq.
//
// # Order and repair
//
// The sequencer knows how far each conversation has come on this node: of a room from before its route is written. Of a
// direct conversation it finds out when something first happens in it, by a push or by a comparison: what was accepted
// since the user came is due here, and fetched from there on. A new one begins at 1 and needs no question. What comes
// late, accepted before the user came, goes out if nothing has that follows it; else it is not for who is here.
//
// A message that was pushed here before is dropped. One that skips ahead, as after a push that was missed, waits:
// everything from the hole on is fetched from logic and pushed in order. Every few seconds the heads of the conversations
// are compared with logic's: of those in which something has happened lately, and in turns of all rooms, and of all direct
// conversations in which something has happened since their user came; of these all at once when the routes had to be
// written anew. What logic had at an earlier comparison is fetched, if nothing of the conversation has come since. A queue
// that is behind brings it all the same: so that is not before longer has passed than what comes at present was under way,
// but for a minute at most. So each connection sees each conversation in the order of seq, without a hole, from where its
// replay, its entering, or its coming left off, whatever task pushes in whatever order.
//
// What logic refuses, or has not got, is given up, and the conversation goes on after it.
//
// # What is counted
//
// What became of a message on a connection is counted once, by the bucket that pushed it, as written, queued, slow or
// gone. A direct message that was deferred for somebody whose last connection has left meanwhile is gone; what a repair gives
// up is lost, for each connection that it was for. What a repair brings before task pushes it, task brings and has counted once
// more if its receiver is on another node by then: it was due to a connection on each. A message that was pushed before, and a
// notice, count nowhere. Nor does one that was accepted before who is here came, and is not for them: of a direct one the
// user is answered as absent, so that task counts it; one to a room is due to nobody here. Package task says how these counts
// and its own make up the ledger.
//
// Of what came late in a conversation, 32 runs of seqs are kept, to tell what went out from what did not. Where there are
// more, what lies between the two lowest is taken for what went out, and is in no count.
//
// # What may be lost
//
// Of a user with more than 256 direct conversations since coming, those silent longest are forgotten, and taken up again
// from the time that the last forgotten one had come to: what was missed before that is found by a resume alone, and what
// task brings twice may go out twice.
//
// When a user has come is compared by clocks, in the whole milliseconds that logic keeps: a direct message that is accepted
// in the same one, or, where logic's clock is behind connect's, that soon after, and whose push is missed, is found by who
// resumes, or names what it has with a ping.
//
// # Lock order
//
// Connect.mu, bucket.mu, registrar.mu and the mu of an expiry each stand alone: whoever holds one takes no other. Whoever holds
// channel.mu takes that of an expiry at most, and does no I/O but the non-blocking write and the shutting of the socket, which
// wait for nobody. sequencer.mu is held while deliveries are handed to the buckets' queues, whose workers never take it.
package connect
