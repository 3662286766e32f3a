package storetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// line is an event of the usual length.
var line = bytes.Repeat([]byte("x"), 340)

// batchOf is the lines of a segment of so many events.
func batchOf(events int) []byte {
	return bytes.TrimSuffix(bytes.Repeat(append(bytes.Clone(line), '\n'), events), []byte("\n"))
}

// BenchAppend measures the hot path: one segment a commit, one writer, 1, 20 and 100 events a segment.
func BenchAppend(b *testing.B, fresh func(b *testing.B) Opener) {
	for _, events := range []int{1, 20, 100} {
		b.Run(strconv.Itoa(events)+"-events", func(b *testing.B) {
			st, s := benchLog(b, fresh(b), events)
			b.ReportAllocs()
			for b.Loop() {
				if err := st.Append(b.Context(), s); err != nil {
					b.Fatal(describe(err))
				}
				advance(s)
			}
		})
	}
}

func benchLog(b *testing.B, o Opener, events int) (store.Store, *audit.Segment) {
	b.Helper()
	st, err := o(b.Context())
	if err != nil {
		b.Fatal(describe(err))
	}
	b.Cleanup(func() { st.Close() })
	var h audit.Head
	err = st.Change(b.Context(), func(tx store.Tx) (err error) {
		h, err = tx.AcquireShard(b.Context(), "bench", epoch, time.Hour)
		return err
	})
	if err != nil {
		b.Fatal(describe(err))
	}
	return st, &audit.Segment{Shard: h.Shard, Seq: 1, Epoch: h.Epoch, Count: events, FirstTime: epoch, LastTime: epoch, Mask: 1,
		Edge: make([]byte, 320), Nonce: "0123456789abcdef", Lines: batchOf(events)}
}

// advance makes the segment the next one: a millisecond later, about some resource.
func advance(s *audit.Segment) {
	s.Seq, s.First = s.Seq+1, s.First+uint64(s.Count)
	s.FirstTime = s.FirstTime.Add(time.Millisecond)
	s.LastTime = s.FirstTime
	s.Mask = 1<<(s.Seq*7%63) | 1<<(s.Seq*11%63)
}

// BenchQuery measures the search for the newest 100 segments of one resource in a day of a long log: 20,000 segments of
// 100 events, or KEYTURN_BENCH_SEGMENTS. Filling the log isn't measured.
func BenchQuery(b *testing.B, fresh func(b *testing.B) Opener) {
	segments := 20_000
	if n, err := strconv.Atoi(os.Getenv("KEYTURN_BENCH_SEGMENTS")); err == nil {
		segments = n
	}
	st, s := benchLog(b, fresh(b), 100)
	for range segments {
		if err := st.Append(b.Context(), s); err != nil {
			b.Fatal(describe(err))
		}
		advance(s)
	}
	for name, q := range map[string]audit.SegmentQuery{
		"newest-100-of-a-resource": {Shard: audit.AnyShard, Order: audit.Newest, Mask: 1<<7 | 1<<11, Limit: 100},
		"a-resource-never-used":    {Shard: audit.AnyShard, Order: audit.Newest, Mask: 1<<1 | 1<<2 | 1<<3, Until: s.FirstTime},
		"everything-of-a-resource": {Shard: audit.AnyShard, Order: audit.Oldest, Mask: 1<<7 | 1<<11, Since: epoch},
		"from-an-index":            {FromIndex: s.First - 1000},
	} {
		b.Run(name, func(b *testing.B) {
			found := 0
			for b.Loop() {
				found = 0
				err := st.View(context.Background(), func(tx store.Tx) error {
					return tx.Segments(b.Context(), q, func(*audit.Segment) error { found++; return nil })
				})
				if err != nil {
					b.Fatal(describe(err))
				}
			}
			b.ReportMetric(float64(found), "segments")
		})
	}
}

// BenchActive measures the walk over the active versions of 100,000 keys of two versions, as a rotation check makes it.
func BenchActive(b *testing.B, fresh func(b *testing.B) Opener) {
	const count, page = 100_000, 1000
	st, err := fresh(b)(b.Context())
	if err != nil {
		b.Fatal(describe(err))
	}
	defer st.Close() //nolint:errcheck // thrown away
	for from := 0; from < count; from += page {
		err := st.Change(b.Context(), func(tx store.Tx) error {
			for i := range page {
				k := keys.Key{ID: envelope.NewKeyID(), Name: fmt.Sprintf("key-%06d", from+i), Purpose: keys.PurposeData, ByPolicy: true, MAC: strings.Repeat("m", 76), Created: epoch}
				for n, state := range []keys.State{keys.Deactivated, keys.Active} {
					k.Versions = append(k.Versions, keys.Version{
						Number: uint32(n) + 1, State: state, Created: epoch, Activated: epoch, KEK: keys.KEKID(strings.Repeat("k", 32)),
						Wrapped: make([]byte, 130), Sample: make([]byte, 130),
					})
				}
				if err := tx.CreateKey(b.Context(), k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(describe(err))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		seen := 0
		err := st.View(b.Context(), func(tx store.Tx) error {
			seen = 0
			return tx.EachActive(b.Context(), func(*keys.ActiveVersion) error { seen++; return nil })
		})
		if err != nil || seen != count {
			b.Fatal(seen, describe(err))
		}
	}
}
