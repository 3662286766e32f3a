// Package server joins the rooms: it reads the configuration, chooses the drivers, opens store and master keys, builds the
// services, and serves them over TLS, a unix socket or in process. It is the only place that knows all of them, and what
// can be chosen is a line in a table: drivers.go (stores, master keys, databases of datasets), transports.go (kinds of
// addresses), jobs.go (kinds of jobs).
//
//	done, err := server.Init(ctx, dir, server.InitOptions{})          // once: makes the store
//	s, err := server.Open(ctx, dir, server.Options{Command: "keyturn serve"})
//	defer s.Close(ctx)
//	err = s.Serve(ctx)                                                // until ctx ends; or, without serving:
//	client := keyturn.NewClient(s.InProcess())                        // the same handlers, in this process
//
// # The data directory
//
//	keyturn.yaml      the configuration; its presence says that init was finished
//	keyturn.db        the SQLite store (and -wal, -shm beside it)
//	lock              who holds the directory: flock(2), with the holder's pid and command as its text
//	keyturn.sock      the socket of the server that runs on the directory, for the command line
//	master.key        the master key that init makes when none is named
//	checkpoints.log   signed checkpoints of the audit log, appended, outside the store
//	audit.pub         the public key that they verify with
//	tombstones.log    versions that were destroyed, so that an old backup doesn't bring them back
//	tls/              the private CA and the server certificate, when none is configured
//
// The directory is 0700 and every file 0600, whatever the umask; what is found more open is closed, and what belongs to
// somebody else is refused.
//
// # Starting and stopping
//
// Open takes the lock, opens what requests need and nothing else: version keys are unwrapped when they are first used, so
// it doesn't get slower with the number of keys. Due destructions and the job runner start when serving, or when a
// command in process enqueues a job. Close stops in the reverse order: listeners, running requests (10 s), jobs (their
// current chunk), the audit log's final checkpoint, store, lock. Whatever is cut short by kill -9 instead is taken up by
// the next Open: see docs/life-of-a-job.md and docs/life-of-an-audit-event.md.
package server
