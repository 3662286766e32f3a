// Package rotation turns keys over by itself: it knows the policies, finds what is due, has it rotated, checks that old
// data keeps opening, and starts moving it.
//
//	svc := rotation.New(rotation.Config{Keys: kms, Datasets: reencrypt, …})
//	status, err := svc.Status(ctx, caller)                           // who is overdue, who comes next
//	run, err := svc.Run(ctx, caller, api.RotationRunRequest{Max: 10}) // what is due, now
//	handlers := svc.Handlers()                                        // for the job runner
//	err = svc.Keep(ctx)                                               // makes the schedules what the configuration says
//
// # The jobs
//
//	rotation-check     looks at every active version; warns of those that are due soon, and has those rotated that are due
//	rotation-run       rotates what is due, one transaction a key
//	rotation-followup  after each: the self-check, and then the key's datasets, if its policy says so
//	rotation-health    looks at all of this from outside, every few hours
//
// The check runs at its schedule (every day at 02:00 UTC) and whenever a key falls due before that: every rotation and
// every new key brings it forward, so that a key whose policy says "every minute" is rotated every minute.
//
// # Promises
//
// A rotation is one transaction: the new version, the old one's end, the audit event, the history, and the job that follows
// it. Whoever comes second, on whichever node, finds that the version which he saw as due isn't the active one any more,
// and does nothing. A crash leaves keys that are rotated and keys that are still due; the next chunk takes up the rest.
// The self-check stands before anything else that follows (promise P4): when an older version doesn't open its sample, no
// row is moved and nothing is destroyed, and an alert is recorded.
package rotation
