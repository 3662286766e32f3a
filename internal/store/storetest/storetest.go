// Package storetest holds every store to the same contract. Each driver runs the one suite:
//
//	func TestStore(t *testing.T) {
//		storetest.Exercise(t, func(t *testing.T) storetest.Opener {
//			path := filepath.Join(t.TempDir(), "keyturn.db")
//			return func(ctx context.Context) (store.Store, error) { return sqlite.Open(ctx, path, sqlite.Config{}) }
//		})
//	}
//
// Four tests more guard rows of ADVISORIES, and are called from a test of that name: [Names], [Limits], [CancelledReads]
// and [Writes].
//
// It also injects failures into a store, for everybody's tests of row 2 of the fault campaigns, "the n-th operation
// fails": see [Sweep] and [Faulty].
package storetest

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Opener opens one and the same database each time that it is called: an empty one at first, then with what is in it.
type Opener func(ctx context.Context) (store.Store, error)

// Exercise runs the suite. fresh gives each test an empty database of its own.
func Exercise(t *testing.T, fresh func(t *testing.T) Opener) {
	for _, s := range []struct {
		name string
		run  func(*testing.T, Opener)
	}{
		{"Transactions", testTransactions},
		{"ViewsAreReadOnlySnapshots", testViews},
		{"Cancelling", testCancelling},
		{"Reopening", testReopening},
		{"Keys", testKeys},
		{"KeyVersions", testKeyVersions},
		{"Usage", testUsage},
		{"KEKs", testKEKs},
		{"Principals", testPrincipals},
		{"Shards", testShards},
		{"Fencing", testFencing},
		{"SegmentQueries", testSegmentQueries},
		{"Checkpoints", testCheckpoints},
		{"Jobs", testJobs},
		{"JobRace", testJobRace},
		{"JobSecrets", testJobSecrets},
		{"JobLists", testJobLists},
		{"Failures", testFailures},
		{"Datasets", testDatasets},
		{"Schedules", testSchedules},
		{"Policies", testPolicies},
		{"RowSums", testRowSums},
		{"Rotations", testRotations},
		{"Incidents", testIncidents},
		{"IncidentEntries", testIncidentEntries},
		{"Concurrency", testConcurrency},
		{"EveryOperationFails", testEveryOperationFails},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, fresh(t))
		})
	}
}

// epoch is the time of all tests: with microseconds, so that a store that drops them is found out.
var epoch = time.Date(2026, 3, 29, 1, 30, 0, 123456000, time.UTC)

// at is some seconds after epoch.
func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

func open(t *testing.T, o Opener) store.Store {
	t.Helper()
	st, err := o(t.Context())
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return st
}

// change runs fn in a transaction that must succeed.
func change(t *testing.T, st store.Store, fn func(tx store.Tx) error) {
	t.Helper()
	if err := st.Change(t.Context(), fn); err != nil {
		t.Fatalf("changing the store: %v", describe(err))
	}
}

// view is change for reading.
func view(t *testing.T, st store.Store, fn func(tx store.Tx) error) {
	t.Helper()
	if err := st.View(t.Context(), fn); err != nil {
		t.Fatalf("reading the store: %v", describe(err))
	}
}

// refused wants fn to end with a code, in a transaction of its own.
func refused(t *testing.T, st store.Store, code api.Code, what string, fn func(tx store.Tx) error) {
	t.Helper()
	wantCode(t, st.Change(t.Context(), fn), code, what)
}

func wantCode(t *testing.T, err error, code api.Code, what string) {
	t.Helper()
	if got := fault.CodeOf(err); err == nil || got != code {
		t.Errorf("%s: got %q (%v), want the code %q", what, got, describe(err), code)
	}
}

// describe adds the database's own words, which a fault doesn't print.
func describe(err error) string {
	if err == nil {
		return "nil"
	}
	text := err.Error()
	for e := err; e != nil; e = errors.Unwrap(e) {
		if _, ours := e.(*fault.Error); !ours {
			return text + " [" + e.Error() + "]"
		}
	}
	return text
}

// newKey makes a key with n versions, the last of them active.
func newKey(t *testing.T, name string, n int) keys.Key {
	t.Helper()
	k, err := keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: name, Purpose: keys.PurposePHI}, epoch)
	if err != nil {
		// The store takes names that the language refuses: that is what some tests are about.
		if k, err = keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: "placeholder", Purpose: keys.PurposePHI}, epoch); err != nil {
			t.Fatal(err)
		}
		k.Name = name
	}
	for i := range n {
		rotate(t, &k, i)
	}
	return k
}

// rotate adds a version with material.
func rotate(t *testing.T, k *keys.Key, i int) []keys.Transition {
	t.Helper()
	moves, err := k.Rotate(at(i), "tester", "rotation "+strconv.Itoa(i), 0)
	if err != nil {
		t.Fatal(err)
	}
	v := &k.Versions[len(k.Versions)-1]
	v.KEK, v.Wrapped = "0123456789abcdef0123456789abcdef", []byte("wrapped "+k.Name+" "+strconv.Itoa(i))
	return moves
}
