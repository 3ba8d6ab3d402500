// Package rpc carries the contract between processes over rpcx: both ends of contract.Logic and contract.Connect.
//
// What crosses with a call, in rpcx metadata: the shared secret (a peer without it is answered nothing and cut
// off), the time left until the caller's deadline, and the W3C trace context. What does not cross: cancellation.
// A caller that gives up gets its error at once, while the callee works on until the deadline.
//
// Errors cross as values inside the reply, so that a code survives; a call that failed on its way is Unavailable.
// A call is repeated, on another node, only if its peer surely has not seen it, or if repeating it has the effect of
// one.
//
// The server and the form of the messages are rpcx's; the client, one connection a peer, is our own. rpcx's XClient
// dials while it holds the lock that every call takes, so that one dead node stalls the calls to all. Its Client
// starts a goroutine for each call, which a peer that hangs holds for good, keeps the calls whose callers have given
// up, and writes the error of a call that its caller already reads when a connection breaks: the race detector
// rightly reports it.
package rpc
