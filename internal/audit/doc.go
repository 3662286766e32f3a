// Package audit is the language of the audit log: what an event is, how its bytes look, how events hang in a Merkle
// tree, what a signed checkpoint says, and how anybody verifies an exported log with nothing but a public key.
//
// It is pure: no I/O but the reader that [Verify] is given, no clock, no randomness. Package gate writes the log
// through the storage contract [Tx]; the stores keep it.
//
// # From an event to a proof
//
//	line := audit.AppendJSON(nil, &event)      // the bytes that are stored, hashed and exported
//	leaf := audit.LeafHash(line)               // RFC 6962 section 2.1: SHA-256(0x00 || line)
//	tree.Append(leaf)                          // right-edge compact range: 32 bytes times log2(size)
//	note, err := audit.Sign(checkpoint, signer)  // the heads of all shards, as a signed note
//
// An export is one event a line, each with its place (shard and index) added at the end, and a last line that carries
// the signed checkpoint. What is hashed is the stored line itself, so an export with a changed space or a changed
// order of fields no longer verifies.
//
// # Shards
//
// Each node appends to a shard of its own, and each shard is a Merkle tree of its own with indexes dense from 0. A
// checkpoint lists the size and the root of every shard, so that one signature covers the whole log.
//
// # What is not in an event
//
// [Event] is closed: strings, numbers, booleans and times. It has no field that could take a body, a header map or a
// byte slice by accident (ADVISORIES row 29); a test walks over the type and fails when one appears.
package audit
