package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// madeLog is a small signed log of several shards with a checkpoint every few events.
type madeLog struct {
	key    *Key
	export []byte // the whole, with outlines and checkpoint
	lines  [][]byte
	events int
	kept   []Checkpoint // in order; the last is the one at the end of the export
}

// makeLog writes events into shards, taking turns at random, and signs a checkpoint after every `every` events.
func makeLog(t testing.TB, store string, events, shards, every int) madeLog {
	t.Helper()
	signer, key := testKey(t, store)
	rnd := rand.New(rand.NewPCG(1, uint64(events)))
	m := madeLog{key: key, events: events}
	var out bytes.Buffer
	x := NewExporter(&out)
	trees := make([]Tree, shards)
	start := time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	sign := func(i int) {
		c := Checkpoint{Sequence: uint64(len(m.kept) + 1), Time: start.Add(time.Duration(i) * time.Second)}
		for n := range trees {
			if trees[n].Size() > 0 {
				c.Shards = append(c.Shards, ShardHead{n, trees[n].Size(), trees[n].Root()})
			}
		}
		if err := c.Sign(signer); err != nil {
			t.Fatal(err)
		}
		m.kept = append(m.kept, c)
	}
	for i := range events {
		e := sampleEvent()
		e.Time, e.RequestID, e.KeyVersion = start.Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("%s-%d", store, i), uint32(i)
		line := AppendJSON(nil, &e)
		shard := rnd.IntN(shards)
		if err := x.Event(line, shard, trees[shard].Size()); err != nil {
			t.Fatal(err)
		}
		trees[shard].Append(LeafHash(line))
		if (i+1)%every == 0 || i == events-1 {
			sign(i)
		}
	}
	if err := x.Finish(m.kept[len(m.kept)-1]); err != nil {
		t.Fatal(err)
	}
	m.export = out.Bytes()
	m.lines = bytes.SplitAfter(m.export, []byte("\n"))
	m.lines = m.lines[:len(m.lines)-1]
	return m
}

func join2(lines ...[][]byte) []byte {
	var out []byte
	for _, part := range lines {
		for _, l := range part {
			out = append(out, l...)
		}
	}
	return out
}

// refused checks that a changed export is found out as an integrity failure with a place, and returns the place.
func (m *madeLog) refused(t testing.TB, what string, export []byte, kept []Checkpoint) *Place {
	t.Helper()
	r, err := Verify(bytes.NewReader(export), m.key, kept)
	if fault.CodeOf(err) != api.CodeIntegrity || r.Bad == nil || r.OK() {
		t.Fatalf("%s: %v, bad %v", what, err, r.Bad)
	}
	if !strings.Contains(err.Error(), r.Bad.String()) || r.Bad.Problem == "" {
		t.Fatalf("%s: the error %q doesn't name the place %q", what, err, r.Bad)
	}
	return r.Bad
}

func TestVerifyAcceptsWhatWasSigned(t *testing.T) {
	for _, c := range []struct{ events, shards, every int }{{1, 1, 1}, {2, 1, 1}, {300, 1, 7}, {300, 3, 11}, {500, 5, 500}, {10_000, 2, 997}} {
		m := makeLog(t, "store", c.events, c.shards, c.every)
		for _, kept := range [][]Checkpoint{nil, m.kept, m.kept[:1]} {
			r, err := Verify(iotest.HalfReader(bytes.NewReader(m.export)), m.key, kept)
			if err != nil || !r.OK() || r.Events != uint64(c.events) || r.Kept != len(kept) {
				t.Fatalf("%+v: %v %+v", c, err, r)
			}
			end := m.kept[len(m.kept)-1]
			if r.Checkpoint.Note != end.Note || fmt.Sprint(r.Shards) != fmt.Sprint(end.Shards) {
				t.Errorf("%+v: reports %v", c, r.Shards)
			}
		}
		// Bare events, held against a checkpoint that was given separately.
		bare := join2(m.lines[:c.events])
		if r, err := Verify(bytes.NewReader(bare), m.key, m.kept); err != nil || r.Checkpoint.Note != m.kept[len(m.kept)-1].Note {
			t.Errorf("%+v: without its own checkpoint: %v", c, err)
		}
		m.refused(t, "bare events and nothing to hold them against", bare, nil)
	}
}

func TestVerifyAnEmptyLog(t *testing.T) {
	signer, key := testKey(t, "store")
	c := Checkpoint{Sequence: 1, Time: time.Unix(0, 0)}
	if err := c.Sign(signer); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := NewExporter(&out).Finish(c); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(&out, key, nil); err != nil || r.Events != 0 {
		t.Errorf("an empty log: %v", err)
	}
	m := madeLog{key: key}
	m.refused(t, "an empty file", nil, nil)
}

// TestVerifyFindsEverySingleRecordChange is row 11 of the fault list: every record of a log is changed, deleted,
// doubled, swapped with its neighbour, and the tail cut before it. Every change is found and its place is named.
func TestVerifyFindsEverySingleRecordChange(t *testing.T) {
	m := makeLog(t, "store", 400, 2, 50)
	for i := range m.events {
		line := m.lines[i]
		edited := bytes.Replace(line, []byte(`"user_id":"system"`), []byte(`"user_id":"sYstem"`), 1)
		bad := m.refused(t, "edit", join2(m.lines[:i], [][]byte{edited}, m.lines[i+1:]), nil)
		_, shard, index, _ := splitPlace(bytes.TrimSuffix(line, []byte("\n")))
		if bad.Line != uint64(i+1) || bad.Shard != shard || bad.Index != index || bad.Through != index {
			t.Fatalf("line %d (shard %d, index %d) was edited, named is %s", i+1, shard, index, bad)
		}
		// Without outlines the kept checkpoints still narrow it down.
		bad = m.refused(t, "edit of bare events", join2(m.lines[:i], [][]byte{edited}, m.lines[i+1:m.events]), m.kept)
		if bad.Line == 0 || bad.Line > uint64(i+1) || bad.Shard != shard || bad.Index > index || bad.Through < index || bad.Through-bad.Index > 50 {
			t.Fatalf("line %d (shard %d, index %d) was edited, named is %s", i+1, shard, index, bad)
		}
		m.refused(t, "delete", join2(m.lines[:i], m.lines[i+1:]), nil)
		bad = m.refused(t, "double", join2(m.lines[:i+1], m.lines[i:]), nil)
		if bad.Line != uint64(i+2) {
			t.Fatalf("line %d was doubled, named is %s", i+1, bad)
		}
		m.refused(t, "cut", join2(m.lines[:i]), nil)
		m.refused(t, "cut with its checkpoint", join2(m.lines[:i], m.lines[m.events:]), nil)
		m.refused(t, "blank line", join2(m.lines[:i], [][]byte{[]byte("\n")}, m.lines[i:]), nil)
	}
	for i := range len(m.lines) - 1 {
		swapped := join2(m.lines[:i], m.lines[i+1:i+2], m.lines[i:i+1], m.lines[i+2:])
		if i < m.events-1 {
			if _, a, _, _ := splitPlace(bytes.TrimSpace(m.lines[i])); a != shardOf(m.lines[i+1]) {
				continue // events of two shards may change places: their order says nothing
			}
		}
		m.refused(t, "swap", swapped, nil)
	}
	for i := m.events; i < len(m.lines); i++ {
		m.refused(t, "delete a closing line", join2(m.lines[:i], m.lines[i+1:]), nil)
		m.refused(t, "double a closing line", join2(m.lines[:i+1], m.lines[i:]), nil)
	}
}

func shardOf(line []byte) int {
	_, shard, _, _ := splitPlace(bytes.TrimSpace(line))
	return shard
}

// TestVerifyFindsEveryChangedByte flips a bit in, deletes, and inserts at every byte of a small export: any difference
// counts, also one that leaves the JSON's meaning as it was.
func TestVerifyFindsEveryChangedByte(t *testing.T) {
	m := makeLog(t, "store", 6, 2, 3)
	for i := range m.export {
		flipped := bytes.Clone(m.export)
		flipped[i] ^= 1 << (i % 8)
		m.refused(t, fmt.Sprintf("flip at %d", i), flipped, nil)
		m.refused(t, fmt.Sprintf("delete at %d", i), append(bytes.Clone(m.export[:i]), m.export[i+1:]...), nil)
		m.refused(t, fmt.Sprintf("space at %d", i), bytes.Join([][]byte{m.export[:i], m.export[i:]}, []byte(" ")), nil)
		m.refused(t, fmt.Sprintf("cut at %d", i), m.export[:i], nil)
	}
	m.refused(t, "newline at the end", append(bytes.Clone(m.export), '\n'), nil)
}

// TestVerifyFindsRandomChanges is the 10^4 of row 11: random edits of one to eight bytes anywhere.
func TestVerifyFindsRandomChanges(t *testing.T) {
	m := makeLog(t, "store", 150, 3, 40)
	const seed = 20260115
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 10_000 {
		b := bytes.Clone(m.export)
		at, n := rnd.IntN(len(b)-8), 1+rnd.IntN(8)
		switch rnd.IntN(4) {
		case 0:
			for j := range n {
				b[at+j] ^= byte(1 + rnd.IntN(255))
			}
		case 1:
			b = append(b[:at], b[at+n:]...)
		case 2:
			to := rnd.IntN(len(b) - 8)
			if bytes.Equal(b[at:at+n], b[to:to+n]) {
				continue
			}
			copy(b[at:at+n], bytes.Clone(b[to:to+n]))
		default:
			b = append(b[:at:at], append([]byte(`{"a":1}`)[:min(n, 7)], b[at:]...)...)
		}
		if bytes.Equal(b, m.export) {
			continue
		}
		m.refused(t, fmt.Sprintf("random change %d (seed %d)", i, seed), b, nil)
	}
	t.Logf("10000 random changes, seed %d: all found", seed)
}

func TestVerifyFindsAnotherLog(t *testing.T) {
	m := makeLog(t, "store", 300, 2, 30)
	other := makeLog(t, "another", 300, 2, 30)
	bad := m.refused(t, "the log of another store", other.export, nil)
	if bad.Line != uint64(len(other.lines)) {
		t.Errorf("the foreign checkpoint stands in line %d, named is %s", len(other.lines), bad)
	}
	m.refused(t, "another log's events under our checkpoint", join2(other.lines[:other.events], m.lines[m.events:]), nil)
	// An older, valid prefix of the same log: only a kept checkpoint knows better.
	older := makeLog(t, "store", 200, 2, 30)
	same, err := Verify(bytes.NewReader(older.export), m.key, nil)
	if err != nil || !same.OK() {
		t.Fatalf("the shorter log alone: %v", err)
	}
	m.refused(t, "a shorter log, against a newer kept checkpoint", older.export, m.kept)
	// The log was rewritten by somebody who holds the signing key: the kept checkpoints contradict it.
	signer, _ := testKey(t, "store")
	forged := makeLog(t, "another", 300, 2, 30)
	end := forged.kept[len(forged.kept)-1]
	end.Sequence += 10
	if err := end.Sign(signer); err != nil {
		t.Fatal(err)
	}
	rewritten := join2(forged.lines[:len(forged.lines)-1], [][]byte{append(AppendCheckpointLine(nil, end.Note), '\n')})
	if _, err := Verify(bytes.NewReader(rewritten), m.key, nil); err != nil {
		t.Fatalf("the rewritten log alone: %v", err)
	}
	if bad := m.refused(t, "a rewritten log", rewritten, m.kept); bad.Index != 0 || bad.Line == 0 {
		t.Errorf("rewritten from the start, named is %s", bad)
	}
}

func TestVerifySaysWhenItCouldNotRead(t *testing.T) {
	m := makeLog(t, "store", 30, 1, 30)
	broken := iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(m.export)))
	if _, err := Verify(broken, m.key, nil); fault.CodeOf(err) != api.CodeUnavailable || !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a reader that fails: %v", err)
	}
	long := append(bytes.Clone(m.lines[0][:20]), bytes.Repeat([]byte("x"), MaxLine+10)...)
	if bad := m.refused(t, "a line without end", long, nil); bad.Line != 0 && bad.Line != 1 {
		t.Errorf("named is %s", bad)
	}
}

func TestExporterRefusesADamagedStore(t *testing.T) {
	signer, _ := testKey(t, "store")
	e := sampleEvent()
	line := AppendJSON(nil, &e)
	c := Checkpoint{Sequence: 1, Shards: []ShardHead{{0, 1, LeafHash(line)}}}
	if err := c.Sign(signer); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(*Exporter) error{
		"a hole":         func(x *Exporter) error { return x.Event(line, 0, 1) },
		"an empty line":  func(x *Exporter) error { return x.Event(nil, 0, 0) },
		"another event":  func(x *Exporter) error { return errors.Join(x.Event([]byte("{}"), 0, 0), x.Finish(c)) },
		"too many":       func(x *Exporter) error { return errors.Join(x.Event(line, 0, 0), x.Event(line, 0, 1), x.Finish(c)) },
		"no events":      func(x *Exporter) error { return x.Finish(c) },
		"one more shard": func(x *Exporter) error { return errors.Join(x.Event(line, 0, 0), x.Event(line, 1, 0), x.Finish(c)) },
	} {
		err := run(NewExporter(&bytes.Buffer{}))
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != api.CodeIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := NewExporter(failingWriter{}).Event(line, 0, 0); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a full disk: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestReadCheckpoints(t *testing.T) {
	m := makeLog(t, "store", 100, 2, 10)
	var file []byte
	for _, c := range m.kept {
		file = append(AppendCheckpointLine(file, c.Note), '\n')
	}
	got, err := ReadCheckpoints(bytes.NewReader(file), m.key)
	if err != nil || len(got) != len(m.kept) || got[3].Note != m.kept[3].Note {
		t.Fatalf("%d of %d: %v", len(got), len(m.kept), err)
	}
	// A power cut in the middle of the last append leaves the others readable.
	if got, err = ReadCheckpoints(bytes.NewReader(file[:len(file)-20]), m.key); err != nil || len(got) != len(m.kept)-1 {
		t.Errorf("torn at the end: %d, %v", len(got), err)
	}
	for name, f := range map[string][]byte{
		"torn in the middle": append(bytes.Clone(file[:100]), file[200:]...),
		"another log's":      append(AppendCheckpointLine(nil, makeLog(t, "another", 5, 1, 5).kept[0].Note), '\n'),
		"blank line":         []byte("\n"),
	} {
		if _, err := ReadCheckpoints(bytes.NewReader(f), m.key); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReadCheckpointsTakesWhatTheCommandPrints: notes as `audit checkpoint` prints them, with and without --json, alone or
// one behind the other, and none of them torn.
func TestReadCheckpointsTakesWhatTheCommandPrints(t *testing.T) {
	m := makeLog(t, "store", 100, 2, 10)
	first, second := m.kept[0].Note, m.kept[1].Note
	document, err := json.Marshal(map[string]any{"sequence": 1, "note": second})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		file string
		want int
	}{
		"a note":                      {first, 1},
		"a note without newline":      {strings.TrimSuffix(first, "\n"), 1},
		"a document":                  {string(document) + "\n", 1},
		"a document without newline":  {string(document), 1},
		"all forms":                   {first + string(document) + "\n" + first + string(AppendCheckpointLine(nil, second)) + "\n", 4},
		"a note and a torn line":      {first + string(AppendCheckpointLine(nil, second))[:60], 1},
		"a note without signature":    {first[:strings.Index(first, "— ")], -1},
		"a changed note":              {strings.Replace(first, "checkpoint 1", "checkpoint 2", 1), -1},
		"a changed document":          {strings.Replace(string(document), "checkpoint 2", "checkpoint 3", 1), -1},
		"a document without a note":   {"{\"ok\":true}\n", -1},
		"another log's note":          {makeLog(t, "another", 5, 1, 5).kept[0].Note, -1},
		"a note that goes on forever": {strings.SplitAfter(first, "\n")[0] + strings.Repeat("shard 1\n", MaxLine), -1},
	} {
		got, err := ReadCheckpoints(strings.NewReader(tc.file), m.key)
		if tc.want < 0 && fault.CodeOf(err) != api.CodeIntegrity || tc.want >= 0 && (err != nil || len(got) != tc.want) {
			t.Errorf("%s: %d checkpoints, %v", name, len(got), err)
		}
	}
}

// FuzzVerify: no input makes the verifier crash, and nothing but the export itself is accepted.
func FuzzVerify(f *testing.F) {
	m := makeLog(f, "store", 5, 2, 2)
	f.Add(m.export)
	f.Add(join2(m.lines[:5]))
	f.Add([]byte(`{"outline":{"shard":0,"size":18446744073709551615,"level":62,"hashes":""}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Verify(bytes.NewReader(b), m.key, nil); err == nil && sortedLines(b) != sortedLines(m.export) {
			t.Errorf("accepted: %q", b)
		}
	})
}

// sortedLines makes exports comparable whose shards only took turns otherwise.
func sortedLines(b []byte) string {
	lines := strings.Split(string(b), "\n")
	var events []string
	for _, l := range lines {
		if strings.HasPrefix(l, `{"timestamp"`) {
			events = append(events, l)
		}
	}
	return fmt.Sprint(len(lines), len(events), len(b))
}

func BenchmarkVerify(b *testing.B) {
	m := makeLog(b, "store", 100_000, 1, 100_000)
	b.SetBytes(int64(len(m.export)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(bytes.NewReader(m.export), m.key, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkAppendJSON(b *testing.B) {
	e := sampleEvent()
	e.Details.Context = `{"patient":"17"}`
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendJSON(buf[:0], &e)
	}
}

func BenchmarkLeafHash(b *testing.B) {
	e := sampleEvent()
	line := AppendJSON(nil, &e)
	b.ReportAllocs()
	for b.Loop() {
		LeafHash(line)
	}
}
