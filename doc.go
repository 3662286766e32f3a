// Package keyturn is the Go SDK of keyturn, which keeps an organisation's keys, turns them over and moves the data that
// still hangs on the old ones. A program that only talks to a server imports this package and links no server:
//
//	c, err := keyturn.Dial("https://keys.example.org:8420", keyturn.WithTokenFile("/run/secrets/keyturn"))
//	sealed, err := c.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: ssn, Context: map[string]string{"patient": "17"}})
//
// Package embedded beside it opens a store in process and gives the same [Client].
//
// # Three ways to protect a value
//
//   - [Client.Encrypt] and [Client.Decrypt] send the value to the server, which records every call. The key never
//     leaves. This is the default choice, and the only one for values that few programs may see.
//   - [Envelope] seals in this process under data keys that the server hands out and that are cached for minutes: for
//     large or very many values. One audit record then stands for all that one data key protected.
//   - [Column] puts either of them behind database/sql, so that a column is ciphertext in the database and plaintext
//     in the program.
//
// What the caller binds into a ciphertext as context (tenant, table, row) must be presented again to open it: a
// ciphertext that was moved to another row doesn't open. Contexts are written to the audit log in clear, so they must
// hold no secrets.
//
// # Errors
//
// Every failure that the server reports is an [*Error] with a code of the closed list in package api. Act on the code,
// never on the text:
//
//	if keyturn.CodeOf(err) == api.CodeNotFound { … }
//
// No error of this package carries a value of a request: promise P3.
package keyturn
