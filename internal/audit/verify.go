package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxLine is the longest line in bytes that Verify reads; the gate records no event that comes near it.
const MaxLine = 1 << 18

// Verify reads an export from beginning to end and checks that it is exactly the log that was signed: every line is
// well formed, every shard's indexes are dense from 0, the recomputed roots are those of the checkpoint at the end, and
// every kept checkpoint is a prefix. It keeps neither lines nor leaves: memory is bounded by the number of shards.
//
// An export without a checkpoint of its own is held against the newest kept one. With neither there is nothing to
// verify against, which is a failure, never a success.
//
// A log that is not what was signed gives fault integrity, and Report.Bad says where; a failure of r gives another code.
func Verify(r io.Reader, key *Key, kept []Checkpoint) (Report, error) {
	e := exportReader{check: NewChecker(key, kept)}
	in := bufio.NewReaderSize(r, MaxLine)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == nil:
			e.line++
			if bad := e.read(line[:len(line)-1]); bad != nil {
				return e.check.fail(bad)
			}
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return e.check.fail(e.bad("a line longer than any that keyturn writes"))
		case !errors.Is(err, io.EOF):
			return e.check.report, fault.Wrap(api.CodeUnavailable, err, "reading the export of the audit log")
		case len(line) > 0:
			e.line++
			return e.check.fail(e.bad("the file is cut off in the middle of this line"))
		}
		return e.finish()
	}
}

// exportReader takes an export apart, line by line.
type exportReader struct {
	check    *Checker
	line     uint64
	outlines []exportedOutline
	outlined []uint64 // the lines of the outlines
	end      *Checkpoint
	leaf     []byte // 0x00 and the stored line that is being looked at
}

func (e *exportReader) bad(problem string) *Place {
	return &Place{Line: e.line, Shard: -1, Problem: problem}
}

func (e *exportReader) read(line []byte) *Place {
	switch {
	case e.end != nil:
		return e.bad("something stands behind the checkpoint")
	case bytes.HasPrefix(line, []byte(checkpointMark)):
		return e.readCheckpoint(line)
	case bytes.HasPrefix(line, []byte(outlineMark)):
		x, ok := parseOutlineLine(line)
		if !ok {
			return e.bad("an outline that keyturn didn't write so")
		}
		e.outlines, e.outlined = append(e.outlines, x), append(e.outlined, e.line)
		return nil
	case len(e.outlines) > 0:
		return e.bad("an event behind the outlines")
	}
	cut, shard, index, ok := splitPlace(line)
	if !ok {
		return e.bad("not an event with its shard and index at the end")
	}
	e.leaf = append(append(e.leaf[:0], 0), line[:cut]...)
	e.leaf = append(e.leaf, '}')
	return e.check.add(e.leaf, shard, index, e.line)
}

func (e *exportReader) readCheckpoint(line []byte) *Place {
	signed, ok := parseCheckpointLine(line)
	if !ok {
		return e.bad("a checkpoint line that keyturn didn't write so")
	}
	c, err := ParseCheckpoint(signed, e.check.key)
	if err != nil {
		return e.bad(fault.MessageOf(err))
	}
	e.end = &c
	return nil
}

// finish compares what was read with the signed heads, and names the place as well as the outlines allow.
func (e *exportReader) finish() (Report, error) {
	if e.end == nil && len(e.outlines) > 0 {
		return e.check.fail(e.bad("the export is cut off before its checkpoint"))
	}
	trusted := map[int]exportedOutline{}
	for i, x := range e.outlines {
		if i > 0 && e.outlines[i-1].Shard >= x.Shard {
			return e.check.fail(&Place{Line: e.outlined[i], Shard: -1, Problem: "outlines out of order"})
		}
		head := e.end.Head(x.Shard)
		if root, ok := foldOutline(x.Size, x.Level, x.list); ok && x.Size == head.Size && root == head.Root {
			trusted[x.Shard] = x
		}
	}
	report, err := e.check.finish(e.end, trusted)
	if err != nil || e.end == nil {
		return report, err
	}
	// The events are right. The outlines are only an index to them, but an edit there is an edit all the same.
	for i, x := range e.outlines {
		if _, ok := trusted[x.Shard]; !ok {
			return e.check.fail(&Place{Line: e.outlined[i], Shard: -1, Problem: "an outline that is not of the signed log"})
		}
	}
	if len(e.outlines) != len(e.end.Shards) {
		return e.check.fail(&Place{Line: e.line, Shard: -1, Problem: "the outline of a shard is missing before this line"})
	}
	return report, nil
}

// splitPlace finds the `,"shard":N,"index":M}` at the end of an exported event and says where it begins.
func splitPlace(line []byte) (cut, shard int, index uint64, ok bool) {
	end := len(line) - 1
	if end < 0 || line[end] != '}' {
		return 0, 0, 0, false
	}
	at, index, ok := numberBefore(line, end, indexMark, 63)
	if !ok {
		return 0, 0, 0, false
	}
	cut, n, ok := numberBefore(line, at, shardMark, 31)
	return cut, int(n), index, ok
}

// numberBefore reads the canonical decimal number that ends before end and has mark before it.
func numberBefore(line []byte, end int, mark string, bits int) (at int, n uint64, ok bool) {
	first := end
	for first > 0 && line[first-1] >= '0' && line[first-1] <= '9' {
		first--
	}
	at = first - len(mark)
	if first == end || end-first > 19 || line[first] == '0' && end-first > 1 || at < 0 || string(line[at:first]) != mark {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(string(line[first:end]), 10, bits)
	return at, n, err == nil
}
