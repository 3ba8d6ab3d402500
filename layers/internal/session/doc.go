// Package session keeps in Redis what changes with every connection: sessions, the routes to the connect nodes, and
// who is present in which room.
//
// # Sessions
//
// A session is two keys, since it must be found by its token's hash alone, while all sessions of one user must
// change as one; on a Cluster the two live in different slots, so no transaction covers both.
//
//	gochat:session:<hash>    string: user, name, device; its time to live is the session's life
//	gochat:sessions:<user>   sorted set: hash by the time of last use
//
// A session is usable exactly while its record exists and the user's set names it. Every change writes in an order
// that makes a crash half way harmless:
//
//   - Making one writes the record, then the set: a record alone is not usable and expires by itself.
//   - Ending one changes the set, then deletes the record: it is unusable from the first write on, and as long as
//     the set names it, its record leads to the set, so it can still be listed and ended.
//   - Extending one extends the record, then the set, so a used set outlives the records it names.
//
// What must be atomic (at most MaxSessions sessions a user; with CreateSingle exactly one) is a script on the set
// alone. The only clock that ends a session is Redis's.
//
// # Routes and presence
//
// The connect nodes are the authority; Redis holds a copy, and every entry in it is worth as much as the life of
// the node (contract.NodeRef) that it names. Nothing here expires.
//
//	gochat:nodes                    hash: life to the number of writes that it has made
//	gochat:node:<life>:users        set: the users that may have a route to the life
//	gochat:node:<life>:rooms        set: the rooms that may have a route to the life, or presence on it
//	gochat:route:user:<user>        set of lives
//	gochat:route:room:<room>        set of lives
//	gochat:presence:<life>:<room>   hash: user to name
//
// Each command touches one key, and the steps of a write that depend on each other are separate round trips, since
// the parts of one pipeline run concurrently on the nodes of a Cluster. The order is: the life in gochat:nodes,
// then its own sets, then routes and presence; removal is the reverse. A write that is cut short therefore leaves
// at most routes too many. Those cost a push that finds nobody, and Forget finds them through the life's own sets.
//
// Writes of one life are made one after the other: whether a room's route may go is known only after the presence
// was changed, and a join in between would be lost.
//
// Redis may lose what it acknowledged: it is wiped, restarts with an older snapshot, or fails over to a replica that
// lags. Every write of a life counts up its field in gochat:nodes, before and after, and the store remembers the
// count. A count that does not follow means that something is missing. On a Cluster, where the count lives on one
// of the masters, Registered also compares which server processes the masters are. After an error the outcome is
// unknown, and is taken for a loss.
//
// # Failures
//
// No command is sent twice, so an answer that says what was ended is never the answer of a repetition that found
// nothing left to do. A failure of Redis is an error that wraps contract.Unavailable and the cause.
package session
