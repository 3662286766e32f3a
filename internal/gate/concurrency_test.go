package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// TestP2_GroupCommit: thousands of concurrent uses and changes, with failures in between. Everything that was answered is
// in the log exactly once, in fewer segments than events, and the log verifies.
func TestP2_GroupCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := &tampered{Store: open()}
		g := start(t, st, Config{CheckpointEvery: 20 * time.Millisecond})
		var appends atomic.Int64
		st.hooks(func(s *audit.Segment) error {
			if s != nil && appends.Add(1)%17 == 0 {
				return errDisk
			}
			return nil
		}, func(s *audit.Segment) error {
			if s != nil && appends.Load()%13 == 0 {
				return errUnknown
			}
			return nil
		})
		const callers, each = 64, 40
		var answered, refused sync.Map
		var all sync.WaitGroup
		for c := range callers {
			all.Go(func() {
				for i := range each {
					id, do := fmt.Sprintf("u%d.%d", c, i), use
					if i%20 == 0 {
						id, do = fmt.Sprintf("c%d.%d", c, i), setMeta
					}
					switch err := do(g, id); {
					case err == nil:
						answered.Store(id, true)
					case fault.CodeOf(err) == api.CodeUnavailable:
						refused.Store(id, true)
					default:
						t.Errorf("%s: %v", id, err)
					}
				}
			})
		}
		all.Wait()
		st.hooks(nil, nil)
		if err := g.Close(context.Background()); err != nil {
			t.Fatal(err)
		}

		again := start(t, st, Config{})
		seen := map[string]int{}
		lines := query(t, again, Filter{})
		for _, l := range lines {
			seen[l.RequestID]++
		}
		good, bad := 0, 0
		answered.Range(func(id, _ any) bool {
			good++
			if seen[id.(string)] != 1 {
				t.Errorf("%s was answered and is recorded %d times", id, seen[id.(string)])
			}
			return true
		})
		refused.Range(func(id, _ any) bool {
			bad++
			if seen[id.(string)] > 1 {
				t.Errorf("%s is recorded %d times", id, seen[id.(string)])
			}
			return true
		})
		if good == 0 || bad == 0 || good+bad != callers*each {
			t.Errorf("%d answered, %d refused", good, bad)
		}
		segments := 0
		err := again.segments(context.Background(), audit.SegmentQuery{Shard: audit.AnyShard, NoLines: true}, func(*audit.Segment) error {
			segments++
			return nil
		})
		if err != nil || segments*2 > len(lines) {
			t.Errorf("%d segments for %d events: %v", segments, len(lines), err)
		}
		mustVerify(t, again)
		t.Logf("%d answered, %d refused, %d events in %d segments", good, bad, len(lines), segments)
	})
}

// TestOneCallerNeverWaits: with one caller at a time the leader never gathers, and each event is a segment.
func TestOneCallerNeverWaits(t *testing.T) {
	st := sqliteStore(t)()
	g := start(t, st, Config{Gather: time.Hour}) // a wait would end only with the test's deadline
	for i := range 20 {
		if err := use(g, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	heads, err := g.sizes(t.Context())
	if err != nil || heads[0].Size != 20 {
		t.Fatalf("%v %v", heads, err)
	}
	if g.shard.seq != 20 {
		t.Errorf("%d segments for 20 events", g.shard.seq)
	}
}

// TestGatherEndsWhenAllAreBack: with as many waiting as took part before, the leader goes on at once, however long he may.
func TestGatherEndsWhenAllAreBack(t *testing.T) {
	st := &tampered{Store: sqliteStore(t)()}
	g := start(t, st, Config{Gather: time.Hour})
	under, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	st.hooks(func(*audit.Segment) error {
		once.Do(func() { close(under); <-release })
		return nil
	}, nil)
	var all sync.WaitGroup
	all.Go(func() { _ = use(g, "first") })
	<-under
	for i := range 8 {
		all.Go(func() { _ = use(g, fmt.Sprint("second", i)) })
	}
	eventually(t, "eight wait", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.open != nil && len(g.open.leaves) == 8
	})
	close(release)
	eventually(t, "their leader, who expects nine, waits for one more", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.open != nil && g.open.want == 9
	})
	all.Go(func() { _ = use(g, "ninth") })
	all.Wait()
	if g.shard.seq != 2 {
		t.Errorf("%d segments", g.shard.seq)
	}
}

// TestFencedGateStops: another node takes the shard while this one is away. Nothing that it does afterwards is answered.
func TestFencedGateStops(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := open()
		var now atomic.Int64
		now.Store(time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC).UnixMicro())
		clock := func() time.Time { return time.UnixMicro(now.Load()) }
		old := start(t, st, Config{Clock: clock, Lease: time.Hour, Node: "old"})
		if err := use(old, "before"); err != nil {
			t.Fatal(err)
		}
		now.Add((2 * time.Hour).Microseconds())
		if st.Dialect() == store.Postgres { // whose own clock counts there
			if _, err := st.DB().ExecContext(t.Context(), `UPDATE audit_shards SET lease_until = 1`); err != nil {
				t.Fatal(err)
			}
		}
		young := start(t, st, Config{Clock: clock, Lease: time.Hour, Node: "young"})
		if young.shard.number != old.shard.number || young.shard.epoch != old.shard.epoch+1 {
			t.Fatalf("the young node has shard %d, epoch %d", young.shard.number, young.shard.epoch)
		}
		if err := use(young, "young"); err != nil {
			t.Fatal(err)
		}
		for _, do := range []func(*Gate, string) error{use, setMeta, use} {
			err := do(old, "stale")
			if fault.CodeOf(err) != api.CodeUnavailable || !contains(err.Error(), "another node has taken") || !errors.Is(err, audit.ErrFenced) {
				t.Errorf("the old node: %v", err)
			}
		}
		if old.Err() == nil {
			t.Error("the old node is ready")
		}
		if hasMeta(t, st, "stale") || len(byRequest(query(t, young, Filter{}), "stale")) != 0 {
			t.Error("a stale node wrote something")
		}
		if err := use(young, "after"); err != nil {
			t.Error(err)
		}
		mustVerify(t, young)
		if err := old.Close(t.Context()); err != nil {
			t.Errorf("closing the old node: %v", err)
		}
	})
}

// TestLeaseIsKept: a running node renews its lease, and notices by that alone when it lost the shard.
func TestLeaseIsKept(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := open()
		if st.Dialect() == store.SQLite {
			return // its lock on the file is the lease
		}
		g := start(t, st, Config{Lease: 30 * time.Millisecond, Node: "a"})
		head := func() audit.Head {
			h, err := g.readHead(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		first := head().LeaseUntil
		eventually(t, "the lease is renewed", func() bool { return head().LeaseUntil.After(first) })
		// Somebody takes it over as if it had run out: by a clock that is far ahead. While it is being renewed it is skipped.
		eventually(t, "the shard is taken", func() bool {
			var taken audit.Head
			err := st.Change(context.Background(), func(tx store.Tx) (err error) {
				taken, err = tx.AcquireShard(context.Background(), "b", time.Now().Add(time.Hour), time.Hour)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return taken.Shard == head().Shard
		})
		eventually(t, "the loss is noticed", func() bool { return g.Err() != nil })
		if !contains(g.Err().Error(), "another node has taken") {
			t.Error(g.Err())
		}
	})
}

// TestNodesShareALog: several nodes on one database write shards of their own; one log verifies as a whole.
func TestNodesShareALog(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		first := open()
		if first.Dialect() == store.SQLite {
			return // one process at a time
		}
		nodes := []*Gate{start(t, first, Config{Node: "a"}), start(t, open(), Config{Node: "b"}), start(t, open(), Config{Node: "c"})}
		var all sync.WaitGroup
		for n, g := range nodes {
			for c := range 8 {
				all.Go(func() {
					for i := range 10 {
						if err := use(g, fmt.Sprintf("%d.%d.%d", n, c, i)); err != nil {
							t.Errorf("node %d: %v", n, err)
						}
					}
				})
			}
			all.Go(func() {
				for range 5 {
					if _, err := g.Checkpoint(context.Background()); err != nil {
						t.Errorf("checkpoint of node %d: %v", n, err)
					}
				}
			})
		}
		all.Wait()
		r := mustVerify(t, nodes[1])
		if len(r.Shards) != 3 || r.Events != 240 {
			t.Errorf("%d events in %d shards", r.Events, len(r.Shards))
		}
		if got := query(t, nodes[2], Filter{}); len(got) != 240 {
			t.Errorf("node c sees %d events", len(got))
		}
		// A node that is gone leaves its shard to the next.
		if err := nodes[0].Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := start(t, open(), Config{Node: "d"})
		if next.shard.number != nodes[0].shard.number {
			t.Errorf("the new node has shard %d", next.shard.number)
		}
		if err := use(next, "d"); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := next.Export(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
	})
}
