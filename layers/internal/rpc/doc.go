// Package rpc carries the contract between processes over rpcx: both ends of contract.Logic, contract.Connect and
// contract.Task.
//
// What crosses with a call, in rpcx metadata: the shared secret (a peer without it is answered nothing and cut
// off), the time left until the caller's deadline, and the W3C trace context. What does not cross: cancellation.
// A caller that gives up gets its error at once, while the callee works on until the deadline.
//
// Errors cross as values inside the reply, so that a code survives; a call that failed on its way is Unavailable.
// A call is repeated, on another node, only if its peer surely has not seen it, or if repeating it has the effect of
// one.
//
// Sends to one logic node travel together while more than 500 a second come, for up to 16 ms or 64 of them, each with its
// own deadline, trace and answer: what follows, a commit, a round of the queue and a push, costs much the same for a few
// messages as for one. Below that nobody waits.
//
// One connection a peer, made by rpcx's Client. Its XClient is passed over: it dials while it holds the lock that
// every call takes, so that one dead node stalls the calls to all, and it changes its clients outside of that lock
// when a connection breaks, which the race detector rightly reports. What XClient adds, the deadline and the secret
// in the metadata, is set here.
package rpc
