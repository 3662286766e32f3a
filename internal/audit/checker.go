package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// Checker holds a stream of events against signed checkpoints. Verify drives it over an export, the gate over the
// segments of a live store. Not safe for concurrent use.
type Checker struct {
	key    *Key
	kept   []Checkpoint // by sequence
	shards map[int]*shardCheck
	last   *shardCheck // of the event before: most logs have one shard
	report Report
	fields fields
	leaf   []byte // scratch of Segment
}

// shardCheck is one shard on its way.
type shardCheck struct {
	outline
	shard  int
	marks  []mark // what kept checkpoints say, ascending by size; those that were passed are cut off
	good   uint64 // events up to which a kept checkpoint matched
	goodAt uint64 // the line of event number good
	bad    *Place // the first kept checkpoint that didn't match
}

// mark is what a kept checkpoint says about a shard.
type mark struct {
	size     uint64
	root     Hash
	sequence uint64
}

// NewChecker starts at the beginning of a log. Kept checkpoints must be of the key's log; ParseCheckpoint sees to that.
func NewChecker(key *Key, kept []Checkpoint) *Checker {
	c := &Checker{key: key, kept: slices.Clone(kept), shards: map[int]*shardCheck{}}
	slices.SortFunc(c.kept, func(a, b Checkpoint) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, k := range c.kept {
		for _, h := range k.Shards {
			s := c.shard(h.Shard)
			s.marks = append(s.marks, mark{h.Size, h.Root, k.Sequence})
		}
	}
	for _, s := range c.shards {
		slices.SortStableFunc(s.marks, func(a, b mark) int { return cmp.Compare(a.size, b.size) })
	}
	return c
}

func (c *Checker) shard(n int) *shardCheck {
	if c.last != nil && c.last.shard == n {
		return c.last
	}
	s := c.shards[n]
	if s == nil {
		s = &shardCheck{shard: n}
		c.shards[n] = s
	}
	c.last = s
	return s
}

// add takes the next event: leaf is 0x00 and the stored line.
func (c *Checker) add(leaf []byte, shard int, index, line uint64) *Place {
	s := c.shard(shard)
	if index != s.tree.size {
		return &Place{line, shard, index, index, fmt.Sprintf("index %d was expected here: events are missing, added or out of order", s.tree.size)}
	}
	if bad := scanLine(leaf[1:], &c.fields); bad != "" {
		return &Place{line, shard, index, index, bad}
	}
	if index == s.good {
		s.goodAt = line
	}
	s.append(hashLeaf(leaf), line)
	c.report.Events++
	for len(s.marks) > 0 && s.marks[0].size == s.tree.size {
		s.pass(s.marks[0])
		s.marks = s.marks[1:]
	}
	return nil
}

// pass compares the tree with a kept checkpoint that was made at this very size. The first that doesn't match is
// remembered; reading goes on, because the end of the export may tell the place better.
func (s *shardCheck) pass(m mark) {
	switch {
	case s.bad != nil:
	case s.tree.Root() == m.root:
		s.good, s.goodAt = m.size, 0 // the next event brings its line
	default:
		s.bad = &Place{s.goodAt, s.shard, s.good, m.size - 1, fmt.Sprintf("the events are not those that the kept checkpoint %d signed", m.sequence)}
	}
}

// Segment takes the next segment of a live store, whose own root names a bad place to within a few events.
func (c *Checker) Segment(g *Segment) *Place {
	s := c.shard(g.Shard)
	first := s.tree.size
	through := max(first, first+uint64(max(g.Count, 1))-1)
	if g.First != first || bytes.Count(g.Lines, []byte{'\n'})+1 != g.Count {
		return &Place{0, g.Shard, first, through, fmt.Sprintf("segment %d doesn't hold the events that it counts", g.Seq)}
	}
	index := first
	var found columns
	for line := range bytes.SplitSeq(g.Lines, []byte{'\n'}) {
		c.leaf = append(append(c.leaf[:0], 0), line...)
		if bad := c.add(c.leaf, g.Shard, index, 0); bad != nil {
			return bad
		}
		found.add(&c.fields)
		index++
	}
	if s.tree.Root() != g.Root || !bytes.Equal(s.tree.AppendEdge(nil), g.Edge) {
		return &Place{0, g.Shard, first, through, fmt.Sprintf("the events of segment %d are not those that its root was made of", g.Seq)}
	}
	if !found.describe(g) {
		return &Place{0, g.Shard, first, through, fmt.Sprintf("the times or the resources that segment %d is found by are not those of its events: queries pass them over", g.Seq)}
	}
	return nil
}

// Finish compares the whole with the log's newest checkpoint, nil for the newest of the kept ones, and with the kept
// ones that are left.
func (c *Checker) Finish(end *Checkpoint) (Report, error) { return c.finish(end, nil) }

// Fail ends the check at a bad place that Segment found.
func (c *Checker) Fail(bad *Place) (Report, error) { return c.fail(bad) }

func (c *Checker) finish(end *Checkpoint, outlines map[int]exportedOutline) (Report, error) {
	if end == nil {
		if len(c.kept) == 0 {
			return c.fail(&Place{Shard: -1, Problem: "there is no checkpoint to verify against: the export is cut off, or was not made by keyturn audit export"})
		}
		end = &c.kept[len(c.kept)-1]
	}
	c.report.Checkpoint = *end
	if bad := c.compareRows(end); bad != nil {
		return c.fail(bad)
	}
	for _, n := range c.numbers(end) {
		s := c.shard(n)
		if bad := s.compareEnd(end.Head(n), outlines); bad != nil {
			return c.fail(bad)
		}
	}
	c.summarise()
	return c.report, nil
}

// compareRows holds the checkpoints against one another: what they say of the store's rows only grows.
func (c *Checker) compareRows(end *Checkpoint) *Place {
	all := append(slices.Clone(c.kept), *end)
	slices.SortStableFunc(all, func(a, b Checkpoint) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for i := range all[1:] {
		if before, after := all[i], all[i+1]; before.RowsBehind(after.Rows) {
			return &Place{Shard: -1, Problem: fmt.Sprintf("the rows of the store were older at checkpoint %d than at checkpoint %d: they were put back to an earlier state", after.Sequence, before.Sequence)}
		}
	}
	return nil
}

// numbers lists the shards that were read, that the checkpoint has, or that a kept checkpoint has.
func (c *Checker) numbers(end *Checkpoint) []int {
	for _, h := range end.Shards {
		c.shard(h.Shard)
	}
	var out []int
	for n := range c.shards {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// compareEnd holds a shard that was read to its end against its signed head and the kept checkpoints beyond.
func (s *shardCheck) compareEnd(head ShardHead, outlines map[int]exportedOutline) *Place {
	size := s.tree.size
	if size == head.Size && s.tree.Root() == head.Root && s.bad == nil {
		if len(s.marks) > 0 {
			m := s.marks[len(s.marks)-1]
			return &Place{0, s.shard, size, m.size - 1, fmt.Sprintf("the tail is cut off, or this is an older export: the kept checkpoint %d signed %d events", m.sequence, m.size)}
		}
		return nil
	}
	if x, ok := outlines[s.shard]; ok && (size != head.Size || s.tree.Root() != head.Root) {
		from, to, line := s.compare(x.Size, x.Level, x.list)
		return &Place{line, s.shard, from, to - 1, differs(size, head.Size)}
	}
	if s.bad != nil {
		return s.bad
	}
	at := min(s.good, size, head.Size)
	return &Place{s.goodAt, s.shard, at, max(at+1, size, head.Size) - 1, differs(size, head.Size)}
}

func differs(size, signed uint64) string {
	switch {
	case size < signed:
		return fmt.Sprintf("%d events where the checkpoint signed %d: from here on some are missing", size, signed)
	case size > signed:
		return fmt.Sprintf("%d events where the checkpoint signed only %d: from here on some were added", size, signed)
	}
	return "the events are not those that the checkpoint signed"
}

func (c *Checker) summarise() {
	c.report.Kept = len(c.kept)
	c.report.Shards = c.report.Shards[:0]
	for _, h := range c.report.Checkpoint.Shards {
		c.report.Shards = append(c.report.Shards, ShardHead{h.Shard, h.Size, h.Root})
	}
}

func (c *Checker) fail(bad *Place) (Report, error) {
	c.report.Bad = bad
	c.report.Shards = nil
	for n, s := range c.shards {
		if s.tree.size > 0 {
			c.report.Shards = append(c.report.Shards, ShardHead{n, s.tree.size, s.tree.Root()})
		}
	}
	slices.SortFunc(c.report.Shards, func(a, b ShardHead) int { return cmp.Compare(a.Shard, b.Shard) })
	return c.report, bad.fault()
}
