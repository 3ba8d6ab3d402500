// Package canary finds out whether messages come through, by sending some: a connect node whose every dependency answers may
// still deliver nothing.
//
// # A round
//
// The canary of a node holds connections to it, a websocket and one to each tcp address, as people do, and is one user on
// all. Each round it writes to itself by the websocket, which comes by every tcp, and by each tcp, which comes by the
// websocket. So every message goes the whole way: connect, logic, database, queue, task and back to this node; and each transport is seen to take and
// to give. A message is good if it is acknowledged and there within Config.Timeout.
//
// # When it is well
//
// Each of the ways, the websocket and every tcp address, is judged by itself. It is not well until a message has come through once, and no more when two in a
// row have not, or when none has come for three intervals. It is well again with the first good message that was sent after
// the last one that was late: connect's repair brings what was never pushed, and what was sent a moment ago with it. While
// a way is not well rounds follow each other faster, so that it is known soon.
//
// The check is in the readiness of processes with connect alone: they are what people are sent to, and can be kept from.
// Were logic or task not ready as well because a message is lost somewhere, nobody could be sent anywhere, and the fault
// would be no nearer.
//
// # Traces
//
// Its messages have a trace that is not recorded, so that /debug/traces shows those of people, unless the last one failed:
// the next one is recorded, and the line in the log that tells of the failure names it and its trace.
//
// # What it leaves
//
// One user for each node id, one session, those connections, one conversation that logic keeps short. What becomes of the
// session or the connections, or another node id after a lost lease, has them made anew, with a growing pause.
//
// # Goroutines
//
// Everything belongs to the goroutine of Run, which alone writes to the connections. Each connection has a reader, which
// hands over what it reads. Run waits for all of them. Canary.mu guards what readiness and metrics are told.
package canary
