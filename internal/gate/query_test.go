package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

var queryStart = time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)

// seed writes n events with different users, resources, types and times, several to a segment.
func seed(t testing.TB, g *Gate, n int) {
	t.Helper()
	types := []audit.EventType{audit.KeyUse, audit.KeyRotation, audit.System}
	for at := 0; at < n; {
		c := &contents{}
		for range min(1+at%7, n-at) {
			e := audit.Event{Time: queryStart.Add(time.Duration(at) * time.Second), Type: types[at%3], Action: "x", Success: at%5 != 0,
				UserID: fmt.Sprint("user", at%4), Resource: fmt.Sprint("key/k", at%11), RequestID: fmt.Sprint(at)}
			line := audit.AppendJSON(nil, &e)
			c.add(line, audit.LeafHash(line), audit.ResourceMask(e.Resource), e.Time)
			at++
		}
		if err := g.place(c, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQueryIsWhatALookAtEveryEventWouldFind compares with the plain definition, in both orders, page by page.
func TestQueryIsWhatALookAtEveryEventWouldFind(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		g := start(t, open(), Config{})
		const n = 300
		seed(t, g, n)
		all := query(t, g, Filter{})
		if len(all) != n {
			t.Fatalf("%d events", len(all))
		}
		rapid.Check(t, func(t *rapid.T) {
			f := Filter{
				Type:     rapid.SampledFrom([]audit.EventType{"", audit.KeyUse, audit.System, audit.Incident}).Draw(t, "type"),
				Resource: rapid.SampledFrom([]string{"", "key/k3", "key/k10", "key/nobody", "key/k"}).Draw(t, "resource"),
				User:     rapid.SampledFrom([]string{"", "user1", "user"}).Draw(t, "user"),
				Failed:   rapid.Bool().Draw(t, "failed"),
				Newest:   rapid.Bool().Draw(t, "newest"),
				Limit:    rapid.SampledFrom([]int{0, 1, 5, 1000}).Draw(t, "limit"),
			}
			if rapid.Bool().Draw(t, "bounded") {
				a, b := rapid.IntRange(0, n).Draw(t, "since"), rapid.IntRange(0, n).Draw(t, "until")
				f.Since, f.Until = queryStart.Add(time.Duration(a)*time.Second), queryStart.Add(time.Duration(b)*time.Second)
			}
			var want []string
			for _, l := range all {
				if at, err := time.Parse(time.RFC3339, l.Time); err != nil || !f.Since.IsZero() && (at.Before(f.Since) || !at.Before(f.Until)) {
					continue
				}
				if (f.Type == "" || l.Type == string(f.Type)) && (f.Resource == "" || l.Resource == f.Resource) &&
					(f.User == "" || l.User == f.User) && !(f.Failed && l.Success) {
					want = append(want, l.raw)
				}
			}
			if f.Newest {
				slices.Reverse(want)
			}
			var got []string
			for {
				before := len(got)
				var last line
				err := g.Query(context.Background(), f, func(raw []byte) error {
					got = append(got, string(raw))
					return json.Unmarshal(raw, &last)
				})
				if err != nil {
					t.Fatal(err)
				}
				if f.Limit > 0 && len(got)-before > f.Limit {
					t.Fatalf("%d events for a limit of %d", len(got)-before, f.Limit)
				}
				if f.Limit == 0 || len(got)-before < f.Limit {
					break
				}
				f.After = Cursor(last.Shard, last.Index)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%+v finds %d events instead of %d", f, len(got), len(want))
			}
		})
	})
}

func TestQueryRefusesOtherCursors(t *testing.T) {
	g := start(t, sqliteStore(t)(), Config{})
	seed(t, g, 5)
	for _, after := range []string{"x", "0", "0.", ".0", "0.-1", "-1.0", "0.00", "0.1 ", "0.1.2", "99999999999.0", "0,1"} {
		err := g.Query(t.Context(), Filter{After: after}, func([]byte) error { return nil })
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "after" {
			t.Errorf("%q: %v", after, err)
		}
	}
	for _, after := range []string{"0.5", "7.0"} {
		if err := g.Query(t.Context(), Filter{After: after}, func([]byte) error { return nil }); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%q: %v", after, err)
		}
	}
	stop := errors.New("enough")
	if err := g.Query(t.Context(), Filter{}, func([]byte) error { return stop }); err != stop {
		t.Errorf("an error of the receiver comes back as %v", err)
	}
}

func TestFollowSeesEveryEventOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		g := start(t, open(), Config{})
		if err := use(g, "before"); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var mu sync.Mutex
		seen := map[string]int{}
		done := make(chan error)
		go func() {
			done <- g.Follow(ctx, Filter{User: "alice"}, func(raw []byte) error {
				var l line
				err := json.Unmarshal(raw, &l)
				mu.Lock()
				defer mu.Unlock()
				seen[l.RequestID]++
				return err
			})
		}()
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
		eventually(t, "the follower is there", func() bool {
			if err := use(g, "knock"); err != nil {
				t.Fatal(err)
			}
			return count() > 0
		})
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if err := use(g, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		if err := g.Record(t.Context(), &audit.Event{Type: audit.System, Action: "x", UserID: "system", Resource: "system", RequestID: "other"}); err != nil {
			t.Error(err)
		}
		all.Wait()
		eventually(t, "all are seen", func() bool { return count() == 51 })
		stop()
		if err := <-done; err != nil {
			t.Errorf("Follow ends with %v", err)
		}
		for id, n := range seen {
			if n != 1 && id != "knock" || id == "before" || id == "other" {
				t.Errorf("%s was seen %d times", id, n)
			}
		}
	})
}

// TestFollowFromASize: a follower that says what it has seen gets exactly the rest, also what was written before it came.
func TestFollowFromASize(t *testing.T) {
	g := start(t, sqliteStore(t)(), Config{})
	seed(t, g, 40)
	sizes, err := g.Sizes(t.Context())
	if err != nil || sizes[0] != 40 {
		t.Fatalf("%v %v", sizes, err)
	}
	for i := range 3 {
		if err := use(g, fmt.Sprint("later", i)); err != nil {
			t.Fatal(err)
		}
	}
	stop := errors.New("enough")
	var got []string
	err = g.Follow(t.Context(), Filter{From: sizes}, func(raw []byte) error {
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			return err
		}
		if got = append(got, l.RequestID); len(got) == 3 {
			return stop
		}
		return nil
	})
	if err != stop || !slices.Equal(got, []string{"later0", "later1", "later2"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestExportWhileOthersWrite: an export is whole and verifies although the log grows all the while.
func TestExportWhileOthersWrite(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		g := start(t, open(), Config{CheckpointEvery: time.Millisecond})
		seed(t, g, 2000)
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if err := use(g, fmt.Sprint(i, ".", n)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 5 {
			var out bytes.Buffer
			if err := g.Export(t.Context(), &out); err != nil {
				t.Fatal(err)
			}
			kept, err := g.keptCheckpoints(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if r, err := audit.Verify(&out, g.cfg.Key, kept[:0]); err != nil || r.Events < 2000 {
				t.Fatalf("%d events: %v", r.Events, err)
			}
			if r, err := g.Verify(t.Context()); err != nil || r.Events < 2000 {
				t.Fatalf("live, %d events: %v", r.Events, err)
			}
		}
		stop()
		all.Wait()
	})
}
