// Package where answers "where is my message?": it asks every logic and every task node what it has on record, puts
// that together with what is stored, and says it as JSON on the admin server, and in lines for people.
//
// What is permanent comes from the database: who sent it, its conversation and seq, and whether its row is still in the
// outbox. What happened on the way comes from the nodes' records, which are bounded in number and age. A node that does
// not answer is named: an answer never passes for whole when it is not. Times are by the clocks of the nodes that
// noted them.
//
// A message that is stored, but that the nodes may have forgotten, is expired: it is older than their records are kept, or
// a node that lived when it was made has had more messages since than it has room for. Nodes that have died took their
// records with them. A message that is older than a task node, and not too old, is therefore unrecorded if no other task
// node has it: it may still be in the queue, or the node's predecessor had it.
package where
