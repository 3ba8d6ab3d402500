// Package store keeps users, rooms, members, conversations, messages, the outbox and read marks in PostgreSQL or
// SQLite. The two behave alike: the same statements run on both but for the few places that dialect.go names, and
// the same tests.
//
// # Promises
//
//   - The messages of a conversation are numbered from 1 without a hole, in the order in which they were committed.
//   - A message and its outbox row are stored together or not at all.
//   - Of all messages of one sender with the same client id, one is stored.
//   - What a call stored is there for every call that begins after it has returned.
//   - What was stored survives the SIGKILL of this process. It survives a loss of power as far as PostgreSQL is so
//     configured; SQLite may then lose the last commits (synchronous is NORMAL), never its consistency.
//   - After the database was away, calls succeed again by themselves.
//   - A commit whose answer got lost is asked for again, by the ids of its messages: it is done once, and answered as
//     what it is. Only what cannot be found out in time is contract.ErrUncertain.
//
// # Lock order
//
// A commit takes the outbox rows it deletes, then the rows of its conversations by ascending id, then the index
// entries of its messages. Two commits can still meet crosswise in the first and the last of these; PostgreSQL then
// ends one of them and it is tried again.
//
// # Plans
//
// PostgreSQL plans a statement that is used often once, for whatever its parameters are. None of those of a message's
// way may then read a table from end to end: they look up by index for each row of a batch.
//
// # Errors
//
// NotFound, Conflict and BadRequest where a method names them. Unavailable while the database is away, which is counted
// as a failure. Every other error is wrapped with the attempt and carries no code. After an Unavailable a write may have
// been done, if the connection was lost when the server had it: a room that is created again is there twice, and a name
// is taken by the user whose creation was not answered. Commit alone finds out.
//
// # Outbox
//
// A row is deleted by its position, which is never used again as long as no commit that was answered is lost. Where
// PostgreSQL is configured to lose some, as with a failover to a replica that lags, a publisher may delete a row of
// another message that it never saw; connect's comparison of heads finds that message.
//
// # Text
//
// PostgreSQL holds valid UTF-8 without NUL. In a message anything else becomes U+FFFD before it is encoded or
// stored, on both databases: one message must not fail the batch of all the others. In a name it is BadRequest, and
// a name that is looked up so is not found.
//
// Times are kept in whole milliseconds and returned in UTC.
package store
