// Package where answers "where is my message?": it asks every logic and every task node what it has on record, puts
// that together with what is stored, and says it as JSON on the admin server, and in lines for people.
//
// What is permanent comes from the database: who sent it, its conversation and seq, and whether its row is still in the
// outbox. What happened on the way comes from the nodes' records, which are bounded in number and age. A node that does
// not answer is named: an answer never passes for whole when it is not. Times are by the clocks of the nodes that
// noted them.
//
// A message that is stored, but that the nodes may have forgotten, is expired. Nodes that have died took their records
// with them; what they did to a message is then not known, although it is not too old.
package where
