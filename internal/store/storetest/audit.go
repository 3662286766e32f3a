package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/store"
)

// segment makes a segment whose every field can be told from every other's.
func segment(shard int, seq uint64, epoch int64, first uint64, count int) *audit.Segment {
	s := &audit.Segment{
		Shard: shard, Seq: seq, Epoch: epoch, First: first, Count: count,
		FirstTime: at(int(first)), LastTime: at(int(first) + count - 1), Mask: first*0x9e3779b97f4a7c15>>1&0x5555 | 1<<62,
		Edge: bytes.Repeat([]byte{byte(seq)}, 32), Nonce: fmt.Sprintf("n-%d-%d", shard, seq),
	}
	s.Root[0], s.Root[31] = byte(seq), byte(first)
	for i := range count {
		if i > 0 {
			s.Lines = append(s.Lines, '\n')
		}
		s.Lines = fmt.Appendf(s.Lines, `{"shard":%d,"n":%d}`, shard, first+uint64(i))
	}
	return s
}

// headOf is what Heads says when s is the last segment.
func headOf(s *audit.Segment, node string, until time.Time) audit.Head {
	return audit.Head{Shard: s.Shard, Epoch: s.Epoch, Seq: s.Seq, Size: s.First + uint64(s.Count), Root: s.Root,
		Edge: s.Edge, Nonce: s.Nonce, Node: node, LeaseUntil: until}
}

func acquire(t *testing.T, st store.Store, node string, now time.Time, lease time.Duration) (h audit.Head) {
	t.Helper()
	change(t, st, func(tx store.Tx) (err error) { h, err = tx.AcquireShard(t.Context(), node, now, lease); return err })
	return h
}

func wantHeads(t *testing.T, st store.Store, want ...audit.Head) {
	t.Helper()
	view(t, st, func(tx store.Tx) error {
		heads, err := tx.Heads(t.Context())
		wantEqual(t, "the heads", heads, want)
		return err
	})
}

func testShards(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	wantHeads(t, st)
	empty := audit.Head{Epoch: 1, Root: new(audit.Tree).Root(), Node: "a", LeaseUntil: at(60)}
	wantEqual(t, "a new shard", acquire(t, st, "a", at(0), time.Minute), empty)
	s := segment(0, 1, 1, 0, 3)
	if err := st.Append(ctx, s); err != nil {
		t.Fatal(describe(err))
	}
	wantHeads(t, st, headOf(s, "a", at(60)))

	// While a holds shard 0, b gets another one, except where there is one process only.
	second := acquire(t, st, "b", at(59), time.Minute)
	if st.Dialect() == store.SQLite {
		wantEqual(t, "shard and epoch", [2]int64{int64(second.Shard), second.Epoch}, [2]int64{0, 2})
		return
	}
	wantEqual(t, "b's shard", second, audit.Head{Shard: 1, Epoch: 1, Root: empty.Root, Node: "b", LeaseUntil: at(119)})
	change(t, st, func(tx store.Tx) error { return tx.RenewShard(ctx, 0, 1, at(90)) })
	wantEqual(t, "c's shard", acquire(t, st, "c", at(89), time.Hour).Shard, 2)
	taken := acquire(t, st, "d", at(90), time.Minute)
	s.Epoch = 2
	wantEqual(t, "a's shard after its lease", taken, headOf(s, "d", at(150)))
	refused(t, st, api.CodeUnavailable, "renewing a lost shard", func(tx store.Tx) error { return tx.RenewShard(ctx, 0, 1, at(900)) })
	change(t, st, func(tx store.Tx) error { return tx.RenewShard(ctx, 1, 1, time.Time{}) }) // b gives its up
	wantEqual(t, "the shard given up", acquire(t, st, "e", at(91), time.Minute).Shard, 1)
}

// testFencing tries every segment that isn't the next one of its shard and epoch (P2: a stale writer writes nothing).
func testFencing(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	acquire(t, st, "a", at(0), time.Minute)
	inTx := func(s *audit.Segment) error {
		return st.Change(ctx, func(tx store.Tx) error { return tx.AppendSegment(ctx, s) })
	}
	ways := map[string]func(*audit.Segment) error{"Append": func(s *audit.Segment) error { return st.Append(ctx, s) }, "AppendSegment": inTx}
	fence := func(what string, s *audit.Segment) {
		t.Helper()
		for way, write := range ways {
			if err := write(s); !errors.Is(err, audit.ErrFenced) {
				t.Errorf("%s: %s: got %v, want ErrFenced", way, what, describe(err))
			}
		}
	}
	fence("a first segment that isn't number 1", segment(0, 2, 1, 0, 2))
	fence("a first segment that begins late", segment(0, 1, 1, 1, 2))
	one, two := segment(0, 1, 1, 0, 3), segment(0, 2, 1, 3, 2)
	if err := ways["Append"](one); err != nil {
		t.Fatal(describe(err))
	}
	if err := ways["AppendSegment"](two); err != nil {
		t.Fatal(describe(err))
	}
	three := segment(0, 3, 1, 5, 1)
	for what, bend := range map[string]func(*audit.Segment){
		"the same segment again":      func(s *audit.Segment) { *s = *two },
		"an older epoch":              func(s *audit.Segment) { s.Epoch = 0 },
		"a later epoch":               func(s *audit.Segment) { s.Epoch = 2 },
		"a sequence left out":         func(s *audit.Segment) { s.Seq = 4 },
		"a sequence again":            func(s *audit.Segment) { s.Seq = 2 },
		"an index left out":           func(s *audit.Segment) { s.First = 6 },
		"an index again":              func(s *audit.Segment) { s.First = 4 },
		"the first segment once more": func(s *audit.Segment) { s.Seq, s.First = 1, 0 },
		"a shard that nobody holds":   func(s *audit.Segment) { s.Shard = 7 },
	} {
		s := *three
		bend(&s)
		fence(what, &s)
	}
	epoch2 := acquire(t, st, "b", at(60), time.Minute)
	wantEqual(t, "the head for the next owner", epoch2, audit.Head{Shard: 0, Epoch: 2, Seq: 2, Size: 5, Root: two.Root, Edge: two.Edge,
		Nonce: two.Nonce, Node: "b", LeaseUntil: at(120)})
	fence("the segment of a former owner", three)
	three.Epoch = 2
	if err := ways["Append"](three); err != nil {
		t.Fatal(describe(err))
	}
	// What is rolled back was never there.
	four := segment(0, 4, 2, 6, 1)
	mine := errors.New("mine")
	if err := st.Change(ctx, func(tx store.Tx) error { return errors.Join(tx.AppendSegment(ctx, four), mine) }); !errors.Is(err, mine) {
		t.Error(err)
	}
	wantHeads(t, st, headOf(three, "b", at(120)))
	for what, broken := range map[string]*audit.Segment{"no lines": {Seq: 4, Epoch: 2, First: 6, Count: 1}, "no events": {Seq: 4, Epoch: 2, First: 6, Lines: []byte("x")}} {
		wantCode(t, ways["Append"](broken), api.CodeInternal, what)
	}
}

func testCheckpoints(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	refused(t, st, api.CodeNotFound, "the last of none", func(tx store.Tx) error { _, err := tx.LastCheckpoint(ctx); return err })
	put := func(n uint64) error {
		return st.Change(ctx, func(tx store.Tx) error { return tx.PutCheckpoint(ctx, checkpoint(n)) })
	}
	wantCode(t, put(2), api.CodeConflict, "a first checkpoint that isn't number 1")
	const last = 1800
	change(t, st, func(tx store.Tx) error {
		for n := uint64(1); n <= last; n++ {
			if err := tx.PutCheckpoint(ctx, checkpoint(n)); err != nil {
				return err
			}
		}
		return nil
	})
	wantCode(t, put(last), api.CodeConflict, "a checkpoint again")
	wantCode(t, put(last+2), api.CodeConflict, "a checkpoint left out")
	want := []audit.StoredCheckpoint{checkpoint(720)}
	for n := uint64(last - 1000); n <= last; n++ {
		want = append(want, checkpoint(n))
	}
	view(t, st, func(tx store.Tx) error {
		c, err := tx.LastCheckpoint(ctx)
		if err != nil {
			return err
		}
		wantEqual(t, "the last checkpoint", c, checkpoint(last))
		var all []audit.StoredCheckpoint
		err = tx.Checkpoints(ctx, func(c audit.StoredCheckpoint) error { all = append(all, c); return nil })
		wantEqual(t, "the checkpoints that are kept", all, want)
		mine := errors.New("mine")
		if got := tx.Checkpoints(ctx, func(audit.StoredCheckpoint) error { return mine }); !errors.Is(got, mine) {
			t.Errorf("the function's error came back as %v", got)
		}
		return err
	})
	auditKeys(t, st)
}

func checkpoint(n uint64) audit.StoredCheckpoint {
	return audit.StoredCheckpoint{Sequence: n, Time: at(int(n)), Events: n * 3, Note: fmt.Sprintf("note %d\n\n— signed\n", n)}
}

func auditKeys(t *testing.T, st store.Store) {
	ctx := t.Context()
	refused(t, st, api.CodeNotFound, "keys before there are any", func(tx store.Tx) error { _, err := tx.AuditKeys(ctx); return err })
	k := audit.SealedKeys{Verifier: "v+1+x", Signing: []byte{0, 1}, MAC: []byte{2, 0}, Created: epoch}
	for range 2 {
		change(t, st, func(tx store.Tx) error { return tx.PutAuditKeys(ctx, k) })
		view(t, st, func(tx store.Tx) error {
			got, err := tx.AuditKeys(ctx)
			wantEqual(t, "the audit log's keys", got, k)
			return err
		})
		k.Signing = []byte("another")
	}
}
