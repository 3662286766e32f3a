// Package reencrypt moves the data that hangs on old keys. A dataset is one table of somebody's own database; this room
// counts what its values stand under, seals what is still plaintext, moves what stands under older versions to the
// current one, proves that everything opens, and can take it all back, while the application keeps reading and writing.
//
//	svc := reencrypt.New(reencrypt.Config{…}, postgres.Driver{}, sqlite.Driver{})
//	d, err := svc.Add(ctx, caller, api.AddDatasetRequest{Name: "patients", DB: "postgres://…", Table: "patients", …})
//	run, err := svc.Run(ctx, caller, "patients", reencrypt.KindReencrypt, api.DatasetRunRequest{})
//	census, err := svc.Census(ctx, caller, "patients")
//
// # How a row moves
//
// A reader takes pages in key order, a crypto goroutine opens and seals in memory, writers put a page back with one
// statement that is guarded, row by row, on the value that was read (compare-and-swap). A row that the application wrote
// in between doesn't match and is left alone (promise P6): a later pass reads it again. Every page is a transaction of
// its own, so no lock lives longer than one page.
//
// # What a crash leaves behind
//
// Pages that were written and a cursor that stands at or before the end of the last page up to which everything was
// acknowledged; never past a page that wasn't. Starting again repeats rows, it doesn't skip any, and a row that was moved
// already is seen by its header and left alone. The cursor is an optimisation all the same: the application can copy an
// old value to a place that was passed already. So no pass ends the work. Only a durable flush and then a count of the
// whole table that finds nothing left does ([Engine]).
//
// # Who may know what
//
// Connectors ([Driver]) speak SQL and see ciphertexts and, in encrypt and decrypt, plaintexts on their way; they never
// see a key. The engine sees handles that seal and open, never material. Reasons on the dead-letter list name rows by
// primary key and say what was wrong, never a value.
package reencrypt
