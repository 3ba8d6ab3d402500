// Package bench is a load generator for gochat: it makes users by REST, connects them, sends at a rate, and accounts
// for every delivery.
//
// # Load
//
// The load is open: messages are due at moments fixed by the rate, however slowly the system answers. Latency runs from
// the moment at which a message was due, so that a generator or a system that falls behind is not flattered. How late
// messages left is reported beside it.
//
// # Accounting
//
// A message belongs to a group, a room or one direction of a pair, and has a number in it. Each receiver has one bit for
// each message of its group. At the end a bit that is not set, of a message that was sent and not refused, is lost; one
// that was set twice is duplicated; a message of another group, or one that was refused, is unexpected. A private message
// that comes back to the connection that sent it is an echo, and no fault: a node that repairs a gap brings all of a
// conversation to both sides.
//
// # Client
//
// One goroutine does all I/O of the connections, over epoll: it connects, sends what is due, reads, answers pings. It
// owns everything that it touches, so there is no lock, and it allocates nothing for a message. Of a frame it looks at
// the op and at its own marker in the text:
//
//	bench-RUN-GROUP-NUMBER-DUE     fixed width, hex; DUE in ns since the start of the process's clock
//
// The same marker is the client id, so that acknowledgements are known by it.
//
// It needs Linux.
package bench
