// Package gate is the one doorway to everything that keyturn does: it decides, lets do, and records, and answers only
// when the record is durable (promise P2). Services can do nothing to a key but inside [Gate.Use] or [Gate.Change].
//
//	err := g.Use(ctx, caller, gate.Intent{Action: access.KeyEncrypt, Type: audit.KeyUse, Verb: "encrypt", Resource: key},
//		func(ctx context.Context, ev *audit.Event) error {
//			sealed, err = seal(…)        // the work; nothing is answered yet
//			ev.KeyVersion = version      // what the record shall say beyond who, what and when
//			return err
//		})
//	if err != nil { return err }     // and sealed is thrown away: perhaps it could not be recorded
//
// # How an event becomes durable
//
// Events that wait at the same time form one segment of the node's shard and cost one commit together. The first who
// finds nobody gathering is the leader: he waits for his turn at the shard, takes whatever has gathered meanwhile, builds
// the new head of the Merkle tree, commits, and wakes the others. There is no goroutine of its own for that, and with one
// caller no wait at all. Change takes the same turn and writes its event inside its own transaction.
//
// # When recording fails
//
// Everybody in the segment gets a fault unavailable, and what they did is not answered. Whether a commit without an
// answer arrived is decided by reading the shard's head back and comparing its nonce, before anything else is appended.
// When the head shows that another node has taken the shard, or the checkpoint file can't be fsynced, the gate stops for
// good: every later call is refused with the reason (see Err), and the process must be started anew.
//
// # Checkpoints
//
// Every few seconds, at Close and on demand the heads of all shards are signed, put into the store, and appended to a
// file outside of it. A node signs only what it knows to continue what was signed before: its own shard's head, which it
// keeps in memory, and of others only what it has hashed again itself. Start does the same with what a crash left, so
// that a store that was changed or set back while keyturn was away is noticed before it is used.
package gate
