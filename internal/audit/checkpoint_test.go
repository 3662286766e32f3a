package audit

import (
	"bytes"
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// seeded is a stream of bytes that depends on the name only: tests make the same keys in every run.
func seeded(name string) io.Reader {
	sum := sha256.Sum256([]byte(name))
	return bytes.NewReader(bytes.Repeat(sum[:], 8))
}

func testKey(t testing.TB, storeID string) (Signer, *Key) {
	t.Helper()
	secret, public, err := GenerateKey(seeded(storeID), storeID)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(public + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

func sampleCheckpoint(t testing.TB, signer Signer) Checkpoint {
	t.Helper()
	c := Checkpoint{Sequence: 41, Time: time.Date(2026, 1, 15, 10, 30, 45, 123456000, time.UTC),
		Shards: []ShardHead{{0, 918, LeafHash([]byte("a"))}, {3, 12, LeafHash([]byte("b"))}}}
	if err := c.Sign(signer); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckpointRoundTrip(t *testing.T) {
	signer, key := testKey(t, "store-a")
	c := sampleCheckpoint(t, signer)
	wantText := "keyturn.audit.v1/store-a\ncheckpoint 41 2026-01-15T10:30:45.123456Z\n" +
		"shard 0 918 " + c.Shards[0].Root.String() + "\nshard 3 12 " + c.Shards[1].Root.String() + "\n"
	if !strings.HasPrefix(c.Note, wantText+"\n— keyturn.audit.v1/store-a ") {
		t.Errorf("the note is\n%s", c.Note)
	}
	if n, err := note.Open([]byte(c.Note), note.VerifierList(key.verifier)); err != nil || n.Text != wantText {
		t.Errorf("package note reads it otherwise: %v", err)
	}
	got, err := ParseCheckpoint(c.Note, key)
	if err != nil {
		t.Fatal(err)
	}
	if got.text() != c.text() || got.Note != c.Note || got.Events() != 930 || got.Head(3).Size != 12 || got.Head(1).Size != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestCheckpointRefusesEveryChangedByte(t *testing.T) {
	signer, key := testKey(t, "store-a")
	signed := sampleCheckpoint(t, signer).Note
	for i := range len(signed) {
		for bit := range 8 {
			b := []byte(signed)
			b[i] ^= 1 << bit
			if _, err := ParseCheckpoint(string(b), key); fault.CodeOf(err) != api.CodeIntegrity {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
		if _, err := ParseCheckpoint(signed[:i], key); err == nil {
			t.Fatalf("cut at %d: accepted", i)
		}
		if _, err := ParseCheckpoint(signed[:i]+"\n"+signed[i:], key); err == nil {
			t.Fatalf("a newline added at %d: accepted", i)
		}
	}
}

// TestCheckpointRefusesSignedNonsense: a signature alone is not enough, the text must be what Sign writes.
func TestCheckpointRefusesSignedNonsense(t *testing.T) {
	signer, key := testKey(t, "store-a")
	other, _ := testKey(t, "store-b")
	c := sampleCheckpoint(t, signer)
	root := c.Shards[0].Root.String()
	const log, head = "keyturn.audit.v1/store-a\n", "checkpoint 41 2026-01-15T10:30:45.123456Z\n"
	for name, text := range map[string]string{
		"nothing":             "\n",
		"another log":         "keyturn.audit.v1/store-b\n" + head + "shard 0 918 " + root + "\n",
		"no head":             log,
		"sequence 0":          log + "checkpoint 0 2026-01-15T10:30:45.123456Z\n",
		"leading zero":        log + "checkpoint 041 2026-01-15T10:30:45.123456Z\n",
		"short time":          log + "checkpoint 41 2026-01-15T10:30:45Z\n",
		"shards out of order": log + head + "shard 3 12 " + root + "\nshard 0 918 " + root + "\n",
		"shard twice":         log + head + "shard 0 12 " + root + "\nshard 0 918 " + root + "\n",
		"empty shard":         log + head + "shard 0 0 " + root + "\n",
		"negative shard":      log + head + "shard -1 5 " + root + "\n",
		"plus":                log + head + "shard +1 5 " + root + "\n",
		"short root":          log + head + "shard 0 5 " + root[4:] + "\n",
		"sloppy base64":       log + head + "shard 0 5 " + strings.TrimSuffix(root, "=")[:42] + "B=\n",
		"more fields":         log + head + "shard 0 5 " + root + " x\n",
		"two spaces":          log + head + "shard 0  5 " + root + "\n",
		"extra line":          log + head + "shard 0 5 " + root + "\nhello\n",
		"blank line":          log + head + "shard 0 5 " + root + "\n\n",
		"size beyond int64":   log + head + "shard 0 18446744073709551615 " + root + "\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := ParseCheckpoint(string(signed), key); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
	two, err := note.Sign(&note.Note{Text: c.text()}, signer, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCheckpoint(string(two), key); err == nil {
		t.Error("a second signature beside ours is accepted")
	}
}

func TestKeysAreChecked(t *testing.T) {
	secret, public, err := GenerateKey(seeded("x"), "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "x", public[1:], public + "x", strings.Replace(public, "keyturn", "another", 1), string(secret)} {
		_, err := ParseKey(text)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "key" || strings.Contains(err.Error(), string(secret)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", public, string(secret[1:])} {
		if _, err := NewSigner([]byte(text)); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("a signer from %d bytes: %v", len(text), err)
		}
	}
	if _, _, err := GenerateKey(bytes.NewReader(nil), "x"); fault.CodeOf(err) != api.CodeInternal {
		t.Errorf("a key without randomness: %v", err)
	}
}

// The counts of the store's rows are signed with the rest, in one spelling, and a checkpoint without them is still one.
func TestCheckpointWithRows(t *testing.T) {
	signer, key := testKey(t, "store-a")
	sign := func(number uint64, rows ...uint64) Checkpoint {
		t.Helper()
		c := Checkpoint{Sequence: number, Time: time.Date(2026, 1, 15, 10, 30, 45, 0, time.UTC), Rows: rows,
			Shards: []ShardHead{{0, 918, LeafHash([]byte("a"))}}}
		if err := c.Sign(signer); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := sign(41, 4, 0, 17)
	if !strings.Contains(c.Note, "=\nrows 4 0 17\n\n") {
		t.Errorf("the note is\n%s", c.Note)
	}
	got, err := ParseCheckpoint(c.Note, key)
	if err != nil || !slices.Equal(got.Rows, c.Rows) {
		t.Fatalf("it is read as %v, %v", got.Rows, err)
	}
	for name, c := range map[string]struct {
		now    []uint64
		behind bool
	}{
		"the same": {[]uint64{4, 0, 17}, false}, "grown": {[]uint64{4, 9, 18}, false}, "more sums": {[]uint64{4, 0, 17, 1}, false},
		"one less": {[]uint64{4, 100, 16}, true}, "one missing": {[]uint64{4, 0}, true}, "none": {nil, true},
	} {
		if got.RowsBehind(c.now) != c.behind {
			t.Errorf("%s: behind is %v", name, !c.behind)
		}
	}
	for _, text := range []string{"rows 4 0  17", "rows 4 0 017", "rows", "rows 4 0 -1", "rows 4 0 17\nrows 4 0 17", "rows " + strings.Repeat("1 ", maxSums) + "1"} {
		forged, err := note.Sign(&note.Note{Text: strings.Replace(c.text(), "rows 4 0 17", text, 1)}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCheckpoint(string(forged), key); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%.20q is read: %v", text, err)
		}
	}
	end, empty := sign(43, 5, 0, 17), sign(44)
	for name, c := range map[string]struct {
		kept []Checkpoint
		end  Checkpoint
		bad  bool
	}{
		"growing":      {[]Checkpoint{c, sign(42, 4, 0, 17)}, end, false},
		"from nothing": {[]Checkpoint{sign(40)}, end, false},
		"set back":     {[]Checkpoint{sign(42, 5, 1, 17), c}, end, true},
		"gone":         {[]Checkpoint{c}, empty, true},
		"between":      {[]Checkpoint{c, sign(42, 3, 0, 17)}, end, true},
	} {
		bad := NewChecker(key, c.kept).compareRows(&c.end)
		if (bad != nil) != c.bad {
			t.Errorf("%s: found %+v", name, bad)
		}
	}
}
