// Package discovery is how the processes of a cluster know of one another: who is alive, under which number, and
// who owns what. It is the only package that speaks to etcd.
//
// # States of a process
//
//	joining → living → over → joining → …
//	             └ leaving
//
// A process lives under one lease. Its node number, its registrations and the keys of what it owns are under that
// lease and vanish together. Life is judged by the process's own monotonic clock, counted from the moment before
// the last renewal that etcd confirmed was sent, and is over a fifth of the lease before etcd could let the lease
// expire. So a process whose etcd hangs, answers late or is cut off has stopped issuing ids and has told its
// owners to stop before anybody else can be given its number or its partitions. Over is final; what follows is
// another life with another number and other epochs.
//
// # Promises
//
//   - A registration, and its end, is in every other view within a second; a crash within the lease.
//   - Two living processes never have the same number.
//   - A partition, or a job, is never owned twice at a time: a key is created only if it is absent, and deleted
//     only after the owner has returned. The owner has the fifth of the lease to stop in when the lease is lost;
//     one that overruns it is what the fencing token is for.
//   - Whatever happens to etcd, all is registered again by itself once it answers, with its data or without.
//   - A view answers at all times; while etcd is away it is the last known picture.
//
// # What may be lost
//
// An etcd that forgets what it has confirmed (its data wiped) forgets who owns what. Every process that had a
// lease then waits for the length of one lease before it claims anything, so that owners have noticed; a process
// that is started in just that time does not know and may own a partition twice for at most a third of the lease.
// Fencing tokens do not order across a wipe, and an epoch may come again; numbers are picked at random so that a
// node reference hardly ever does.
//
// # Names in etcd
//
//	/gochat/numbers/17              the lease that holds the number
//	/gochat/nodes/connect/connect-17   where its rpc answers, of a layer without rpc where people find it; the epoch
//	                                   is the revision of the registration
//	/gochat/partitions/deliveries/3    number, lease and instance of the owner
//	/gochat/jobs/outbox/0              the same for a job that one process does at a time
//
// # Locks
//
// Membership.mu, then life.mu; View.mu and mirror.mu alone. None is held while etcd is asked. Membership.turn, a
// channel, is: it makes registering and beginning a life exclude each other.
package discovery
