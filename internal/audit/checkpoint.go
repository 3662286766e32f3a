package audit

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Checkpoint says, at one moment, how long every shard is and what its root is. Signed it is a note (C2SP signed-note)
// with this text, every line ended by a newline:
//
//	keyturn.audit.v1/5f0c…                                   the log: Origin of the store
//	checkpoint 41 2026-01-15T10:30:45.123456Z                its number and time
//	shard 0 918 rXxC1kQz…=                                   shard, size, root in standard base64
//	shard 1 12 …                                             in ascending order, empty shards left out
//	rows 4 0 17 …                                            how often each sum of the store's rows was written; left out before there are any
//
// Whoever holds one can tell later whether the log still begins with what it covered.
type Checkpoint struct {
	Log      string // the Origin
	Sequence uint64 // 1 for a log's first
	Time     time.Time
	Shards   []ShardHead // ascending by Shard, each with Size > 0
	// Rows is how often each sum of the store's signed rows had been written: each number only grows. Nil where a store doesn't
	// keep sums yet.
	Rows []uint64
	Note string // the signed text; empty before Sign
}

// RowsBehind says whether now, a later reading of what Rows is, has fallen behind the checkpoint.
func (c *Checkpoint) RowsBehind(now []uint64) bool {
	for i, n := range c.Rows {
		if i >= len(now) || now[i] < n {
			return true
		}
	}
	return false
}

// ShardHead is the size and the root of one shard.
type ShardHead struct {
	Shard int
	Size  uint64
	Root  Hash
}

// Events is the number of events in all shards.
func (c *Checkpoint) Events() (n uint64) {
	for _, s := range c.Shards {
		n += s.Size
	}
	return n
}

// Head is the head that the checkpoint gives a shard: size 0 for one that it doesn't list.
func (c *Checkpoint) Head(shard int) ShardHead {
	for _, s := range c.Shards {
		if s.Shard == shard {
			return s
		}
	}
	return ShardHead{Shard: shard, Root: new(Tree).Root()}
}

// Sign signs the checkpoint and fills its Log and Note.
func (c *Checkpoint) Sign(s Signer) error {
	c.Log = s.Name()
	signed, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "signing an audit checkpoint")
	}
	c.Note = string(signed)
	return nil
}

func (c *Checkpoint) text() string {
	b := append([]byte(c.Log), "\ncheckpoint "...)
	b = strconv.AppendUint(b, c.Sequence, 10)
	b = AppendTime(append(b, ' '), c.Time)
	for _, s := range c.Shards {
		b = strconv.AppendInt(append(b, "\nshard "...), int64(s.Shard), 10)
		b = strconv.AppendUint(append(b, ' '), s.Size, 10)
		b = append(append(b, ' '), s.Root.String()...)
	}
	for i, n := range c.Rows {
		if i == 0 {
			b = append(b, "\nrows"...)
		}
		b = strconv.AppendUint(append(b, ' '), n, 10)
	}
	return string(append(b, '\n'))
}

// ParseCheckpoint opens a signed checkpoint: the signature is checked before anything is read, and only the one
// spelling that Sign produces is accepted. Every failure is a fault integrity that says what is wrong.
func ParseCheckpoint(signed string, key *Key) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(key.verifier))
	if err != nil {
		return Checkpoint{}, badCheckpoint("its signature is not by this log's key")
	}
	c, ok := parseText(n.Text)
	if !ok || c.Log != key.Origin() || c.text() != n.Text {
		return Checkpoint{}, badCheckpoint("its text is not that of a checkpoint of this log")
	}
	c.Note = signed
	if canonicalNote(n) != signed {
		return Checkpoint{}, badCheckpoint("its signature has another spelling than the signer's")
	}
	return c, nil
}

func badCheckpoint(why string) error {
	return fault.New(api.CodeIntegrity, "reading an audit checkpoint: "+why)
}

// canonicalNote writes an opened note anew with its one verified signature. Package note tolerates other signatures
// beside it and sloppy base64; here every byte counts.
func canonicalNote(n *note.Note) string {
	if len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return ""
	}
	sig := n.Sigs[0]
	raw, err := base64.StdEncoding.Strict().DecodeString(sig.Base64)
	if err != nil || len(raw) < 4 || binary.BigEndian.Uint32(raw) != sig.Hash {
		return ""
	}
	return n.Text + "\n— " + sig.Name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// parseText reads the lines. It may be lenient about spelling: the caller compares with what text would write.
func parseText(text string) (c Checkpoint, ok bool) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 {
		return c, false
	}
	c.Log = lines[0]
	head := strings.Split(lines[1], " ")
	if len(head) != 3 || head[0] != "checkpoint" {
		return c, false
	}
	var err error
	if c.Sequence, err = strconv.ParseUint(head[1], 10, 63); err != nil || c.Sequence == 0 {
		return c, false
	}
	if c.Time, err = time.Parse("2006-01-02T15:04:05.000000Z", head[2]); err != nil {
		return c, false
	}
	last := -1
	for i, line := range lines[2:] {
		if counts, ok := strings.CutPrefix(line, "rows "); ok && i == len(lines)-3 {
			return c, parseCounts(counts, &c)
		}
		s, ok := parseShard(line)
		if !ok || s.Shard <= last {
			return c, false
		}
		last = s.Shard
		c.Shards = append(c.Shards, s)
	}
	return c, true
}

// maxSums is how many sums of rows a checkpoint may have.
const maxSums = 1024

func parseCounts(text string, c *Checkpoint) bool {
	fields := strings.Split(text, " ")
	if len(fields) > maxSums {
		return false
	}
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 10, 63)
		if err != nil {
			return false
		}
		c.Rows = append(c.Rows, n)
	}
	return true
}

func parseShard(line string) (s ShardHead, ok bool) {
	f := strings.Split(line, " ")
	if len(f) != 4 || f[0] != "shard" {
		return s, false
	}
	shard, err := strconv.ParseUint(f[1], 10, 31)
	if err != nil || shard > math.MaxInt32 {
		return s, false
	}
	s.Shard = int(shard)
	if s.Size, err = strconv.ParseUint(f[2], 10, 63); err != nil || s.Size == 0 {
		return s, false
	}
	root, err := base64.StdEncoding.DecodeString(f[3])
	if err != nil || len(root) != HashSize {
		return s, false
	}
	return ShardHead{s.Shard, s.Size, Hash(root)}, true
}
