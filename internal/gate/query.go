package gate

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Filter selects events. A zero field doesn't restrict.
type Filter struct {
	Since, Until time.Time // Since <= time < Until
	Type         audit.EventType
	Resource     string // exactly, e.g. "key/phi"
	User         string // exactly
	Failed       bool   // only those without success
	Newest       bool   // from the newest backwards instead of from the oldest on
	After        string // a cursor that Cursor made from the last event seen
	Limit        int    // at most so many; 0 = all

	// From is for Follow: sizes of shards, as Sizes gave them earlier, from which on to follow, so that nothing falls between
	// a query and following; nil = from now on.
	From map[int]uint64
}

// Cursor names an event as the place after which a later query goes on.
func Cursor(shard int, index uint64) string {
	return strconv.Itoa(shard) + "." + strconv.FormatUint(index, 10)
}

func parseCursor(text string) (shard int, index uint64, err error) {
	a, b, ok := strings.Cut(text, ".")
	n, err1 := strconv.ParseUint(a, 10, 31)
	index, err2 := strconv.ParseUint(b, 10, 63)
	if !ok || err1 != nil || err2 != nil || Cursor(int(n), index) != text {
		return 0, 0, fault.New(api.CodeInvalid, "the cursor is not one of this log").WithField("after").
			WithNext("write SHARD.INDEX of the last event seen")
	}
	return int(n), index, nil
}

// Query calls fn with each selected event, one line in the form of an export without newline, valid during the call. The
// order is that of time as far as segments go: events of one shard stand in their order, those of different nodes that
// were written at about the same time may stand either way. An error of fn ends the query and is returned.
func (g *Gate) Query(ctx context.Context, f Filter, fn func(line []byte) error) error {
	q := audit.SegmentQuery{Shard: audit.AnyShard, Since: f.Since, Until: f.Until, Order: audit.Oldest, Limit: firstPage}
	if f.Newest {
		q.Order = audit.Newest
	}
	if f.Resource != "" {
		q.Mask = audit.ResourceMask(f.Resource)
	}
	m := newMatcher(f)
	s := sieve{matcher: m, filter: f, fn: fn}
	if f.After != "" {
		if err := g.resume(ctx, f.After, &q, &s); err != nil {
			return err
		}
	}
	for !s.full() {
		read, err := g.readPage(ctx, q, m)
		if err != nil {
			return err
		}
		for i := range read.hits {
			if err := s.segment(&read.hits[i], 0, false); err != nil {
				return err
			}
		}
		if read.segments < q.Limit {
			return nil
		}
		q.After, q.Limit = read.last, min(2*q.Limit, lastPage)
	}
	return nil
}

// A query reads few segments in its first snapshot, since it is often satisfied by them, and more in each that follows.
const (
	firstPage = 32
	lastPage  = 1024
)

// readPage reads the segments of one page; those whose bytes can't hold a match are not kept.
func (g *Gate) readPage(ctx context.Context, q audit.SegmentQuery, m *audit.Matcher) (read queryRead, err error) {
	err = g.st.View(ctx, func(tx store.Tx) error {
		read = queryRead{}
		return tx.Segments(ctx, q, func(s *audit.Segment) error {
			read.segments++
			read.last = position(s)
			if m.MayMatch(s.Lines) {
				read.hits = append(read.hits, copied(s))
			}
			return nil
		})
	})
	return read, err
}

type queryRead struct {
	hits     []audit.Segment
	segments int
	last     audit.Position
}

func position(s *audit.Segment) audit.Position {
	return audit.Position{FirstTime: s.FirstTime, Shard: s.Shard, Seq: s.Seq}
}

// resume finds the segment of the cursor's event, passes the rest of it, and sets the query behind it.
func (g *Gate) resume(ctx context.Context, after string, q *audit.SegmentQuery, s *sieve) error {
	shard, index, err := parseCursor(after)
	if err != nil {
		return err
	}
	var at *audit.Segment
	err = g.segments(ctx, audit.SegmentQuery{Shard: shard, FromIndex: index, ToIndex: index + 1, Limit: 1}, func(found *audit.Segment) error {
		c := copied(found)
		at = &c
		return nil
	})
	if err != nil {
		return err
	}
	if at == nil {
		return fault.New(api.CodeNotFound, "the cursor names an event that this log doesn't have").WithField("after")
	}
	q.After = position(at)
	return s.segment(at, index, true)
}

// sieve passes the events that match, until there are enough.
type sieve struct {
	matcher *audit.Matcher
	filter  Filter
	fn      func([]byte) error
	passed  int
	line    []byte
}

func (s *sieve) full() bool { return s.filter.Limit > 0 && s.passed >= s.filter.Limit }

// segment goes through a segment's events in the filter's order; with a cursor only through those behind it.
func (s *sieve) segment(g *audit.Segment, cursor uint64, from bool) error {
	lines := bytes.Split(g.Lines, []byte{'\n'})
	for n := range lines {
		i := n
		if s.filter.Newest {
			i = len(lines) - 1 - n
		}
		index := g.First + uint64(i)
		if from && (!s.filter.Newest && index <= cursor || s.filter.Newest && index >= cursor) {
			continue
		}
		if s.full() {
			return nil
		}
		if !s.matcher.Match(lines[i]) {
			continue
		}
		s.line = audit.AppendExport(s.line[:0], lines[i], g.Shard, index)
		s.passed++
		if err := s.fn(s.line); err != nil {
			return err
		}
	}
	return nil
}

func newMatcher(f Filter) *audit.Matcher {
	return audit.NewMatcher(audit.Match{Since: f.Since, Until: f.Until, Type: f.Type, Resource: f.Resource, User: f.User, Failed: f.Failed})
}
