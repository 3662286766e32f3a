package storetest

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/store"
)

// testSegmentQueries asks random questions and compares the answers with those of a plain filter over everything.
func testSegmentQueries(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	all := fillLog(t, st, rnd)
	asked, found := 0, 0
	view(t, st, func(tx store.Tx) error {
		for range 400 {
			q := randomQuery(rnd, all)
			var got []audit.Segment
			err := tx.Segments(ctx, q, func(s *audit.Segment) error {
				c := *s
				c.Lines, c.Edge = slices.Clone(s.Lines), slices.Clone(s.Edge)
				got = append(got, c)
				return nil
			})
			if err != nil {
				return err
			}
			wantEqual(t, "segments", got, naive(all, q))
			if t.Failed() {
				t.Fatalf("the query was %+v", q)
			}
			asked, found = asked+1, found+len(got)
		}
		mine := errors.New("mine")
		n := 0
		err := tx.Segments(ctx, audit.SegmentQuery{Shard: audit.AnyShard, Order: audit.Newest}, func(*audit.Segment) error { n++; return mine })
		if !errors.Is(err, mine) || n != 1 {
			t.Errorf("the function's error came back as %v after %d calls", err, n)
		}
		return nil
	})
	t.Logf("%d queries, %d segments found", asked, found)
	if found == 0 {
		t.Error("no query found anything")
	}
}

// fillLog writes segments into as many shards as the store gives, some with equal times, in no order of time.
func fillLog(t *testing.T, st store.Store, rnd *rand.Rand) (all []audit.Segment) {
	ctx := t.Context()
	shards := 3
	if st.Dialect() == store.SQLite {
		shards = 1
	}
	for shard := range shards {
		h := acquire(t, st, "n", at(0), time.Hour)
		if h.Shard != shard {
			t.Fatalf("got shard %d, want %d", h.Shard, shard)
		}
		first := uint64(0)
		for seq := uint64(1); seq <= 60; seq++ {
			s := segment(shard, seq, h.Epoch, first, 1+rnd.IntN(4))
			s.FirstTime = at(rnd.IntN(50))
			s.LastTime = s.FirstTime.Add(time.Duration(rnd.IntN(3)) * time.Second)
			s.Mask = uint64(rnd.IntN(16)) | 1<<62
			if err := st.Append(ctx, s); err != nil {
				t.Fatal(describe(err))
			}
			all, first = append(all, *s), first+uint64(s.Count)
		}
	}
	return all
}

func randomQuery(rnd *rand.Rand, all []audit.Segment) audit.SegmentQuery {
	q := audit.SegmentQuery{Shard: rnd.IntN(3) - 1, Order: audit.Order(rnd.IntN(3)), NoLines: rnd.IntN(4) == 0}
	maybe := func(set func()) {
		if rnd.IntN(3) == 0 {
			set()
		}
	}
	maybe(func() { q.FromIndex = rnd.Uint64N(200) })
	maybe(func() { q.ToIndex = rnd.Uint64N(200) })
	maybe(func() { q.Since = at(rnd.IntN(60)) })
	maybe(func() { q.Until = at(rnd.IntN(60)) })
	maybe(func() { q.Mask = uint64(rnd.IntN(16)) })
	maybe(func() { q.Limit = 1 + rnd.IntN(20) })
	if q.Order != audit.ByShard {
		maybe(func() {
			s := all[rnd.IntN(len(all))]
			q.After = audit.Position{FirstTime: s.FirstTime, Shard: s.Shard, Seq: s.Seq}
		})
	}
	return q
}

// naive answers a query by the words of its contract.
func naive(all []audit.Segment, q audit.SegmentQuery) (out []audit.Segment) {
	compare := func(a, b audit.Segment) int {
		byTime := a.FirstTime.Compare(b.FirstTime)
		if q.Order == audit.ByShard {
			byTime = 0
		}
		c := cmp.Or(byTime, cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Seq, b.Seq))
		if q.Order == audit.Newest {
			return -c
		}
		return c
	}
	after := audit.Segment{FirstTime: q.After.FirstTime, Shard: q.After.Shard, Seq: q.After.Seq}
	for _, s := range all {
		switch {
		case q.Shard != audit.AnyShard && s.Shard != q.Shard,
			s.First+uint64(s.Count) <= q.FromIndex,
			q.ToIndex != 0 && s.First >= q.ToIndex,
			!q.Since.IsZero() && s.LastTime.Before(q.Since),
			!q.Until.IsZero() && !s.FirstTime.Before(q.Until),
			s.Mask&q.Mask != q.Mask,
			q.After != (audit.Position{}) && compare(s, after) <= 0:
			continue
		}
		if q.NoLines {
			s.Lines = nil
		}
		out = append(out, s)
	}
	slices.SortFunc(out, compare)
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[:q.Limit]
	}
	return out
}
