// Package record keeps what a process has done with its latest messages, for those who ask where a message is: an
// account of the last minutes in memory, not a log.
//
// Promises: a record costs some hundred nanoseconds of a message's way, and nothing that the garbage collector has to
// look at: records have no pointers, lie in blocks and are used again. There are Config.Messages of them at most, and
// none is answered that is older than Config.Keep. A block is made when it is needed, so that a process with little to do
// holds little. No text, name or token is in a record.
//
// Whichever bound comes first decides how far back an answer goes: the default of 200000 messages is the default hour at
// 55 messages a second of one process, and 50 s at 4000 a second. The gauge gochat_record_oldest_age_seconds tells.
//
// A ring knows from when on it surely has everything that was recorded: Since. What is older may be forgotten, or was
// never seen, since the process did not yet live.
package record
