package audit

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// reference is a log kept by golang.org/x/mod/sumdb/tlog: the oracle for everything about trees.
type reference struct {
	stored []tlog.Hash
	size   int64
}

func (r *reference) append(t fataler, line []byte) {
	hs, err := tlog.StoredHashesForRecordHash(r.size, tlog.RecordHash(line), r)
	if err != nil {
		t.Fatalf("tlog: %v", err)
	}
	r.stored = append(r.stored, hs...)
	r.size++
}

func (r *reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		out[i] = r.stored[n]
	}
	return out, nil
}

func (r *reference) root(t fataler, size int64) Hash {
	h, err := tlog.TreeHash(size, r)
	if err != nil {
		t.Fatalf("tlog: %v", err)
	}
	return Hash(h)
}

func leafLine(i int) []byte { return fmt.Appendf(nil, `{"event":%d}`, i) }

func TestTreeIsThatOfTlog(t *testing.T) {
	var ref reference
	var tree Tree
	if got := tree.Root(); got != ref.root(t, 0) {
		t.Errorf("the empty tree has root %s", got)
	}
	for i := range 600 {
		ref.append(t, leafLine(i))
		tree.Append(LeafHash(leafLine(i)))
		if got, want := tree.Root(), ref.root(t, int64(i+1)); got != want {
			t.Fatalf("size %d: root %s, tlog says %s", i+1, got, want)
		}
		again, err := TreeFrom(tree.Size(), tree.AppendEdge(nil))
		if err != nil || again.Root() != tree.Root() || again.Size() != tree.Size() {
			t.Fatalf("size %d: the edge doesn't bring the tree back: %v", i+1, err)
		}
		tree = *again // so that every later size grows out of a restored tree
	}
}

func TestTreeFromRefusesOtherEdges(t *testing.T) {
	for _, c := range []struct {
		size uint64
		edge int
	}{{0, 32}, {1, 0}, {1, 31}, {1, 33}, {3, 32}, {7, 4 * 32}, {1<<64 - 1, 32}} {
		if _, err := TreeFrom(c.size, make([]byte, c.edge)); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("size %d with %d bytes: %v", c.size, c.edge, err)
		}
	}
}

func TestLeafHashOfLongLines(t *testing.T) {
	for _, n := range []int{0, 1, leafStack - 2, leafStack - 1, leafStack, 100_000} {
		line := make([]byte, n)
		if LeafHash(line) != Hash(tlog.RecordHash(line)) {
			t.Errorf("a line of %d bytes hashes to something else than tlog's", n)
		}
	}
}

func TestLeafHashNeedsNoHeap(t *testing.T) {
	e := sampleEvent()
	line := AppendJSON(nil, &e)
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { _ = LeafHash(line) }); n != 0 {
		t.Errorf("LeafHash allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { buf = AppendJSON(buf[:0], &e) }); n != 0 {
		t.Errorf("AppendJSON allocates %v times", n)
	}
}

func TestProofsAreThoseOfTlog(t *testing.T) {
	var ref reference
	const most = 130
	leaves := make([]Hash, most)
	for i := range most {
		ref.append(t, leafLine(i))
		leaves[i] = LeafHash(leafLine(i))
	}
	run := func(p *Prover, err error, size int) []Hash {
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range leaves[:size] {
			p.Leaf(h)
		}
		proof, err := p.Proof()
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	for size := 1; size <= most; size++ {
		for i := range size {
			p, err := ProveInclusion(uint64(i), uint64(size))
			want, werr := tlog.ProveRecord(int64(size), int64(i), &ref)
			if got := run(p, err, size); werr != nil || fmt.Sprint(hashes(got)) != fmt.Sprint([]tlog.Hash(want)) {
				t.Fatalf("inclusion of %d in %d differs from tlog's (%v)", i, size, werr)
			}
			p, err = ProveConsistency(uint64(i+1), uint64(size))
			got := run(p, err, size)
			wantTree, werr := tlog.ProveTree(int64(size), int64(i+1), &ref)
			if werr != nil || fmt.Sprint(hashes(got)) != fmt.Sprint([]tlog.Hash(wantTree)) {
				t.Fatalf("consistency of %d with %d differs from tlog's (%v)", i+1, size, werr)
			}
			older, newer := ShardHead{0, uint64(i + 1), ref.root(t, int64(i+1))}, ShardHead{0, uint64(size), ref.root(t, int64(size))}
			if err := CheckConsistency(got, older, newer); err != nil {
				t.Fatalf("%d in %d: %v", i+1, size, err)
			}
			older.Root[3] ^= 1
			if CheckConsistency(got, older, newer) == nil {
				t.Fatalf("%d in %d: another root is accepted", i+1, size)
			}
		}
	}
	for _, c := range []struct{ a, b uint64 }{{0, 0}, {5, 5}, {6, 5}} {
		if _, err := ProveInclusion(c.a, c.b); c.a >= c.b && err == nil {
			t.Errorf("inclusion of %d in %d can be proven", c.a, c.b)
		}
	}
}

func TestOutlineFoldsToTheRoot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 3*outlineMax).Draw(t, "size")
		var o outline
		for i := range size {
			o.append(LeafHash(leafLine(i)), uint64(i+1))
		}
		list := o.list()
		if root, ok := foldOutline(uint64(size), o.level, list); !ok || root != o.tree.Root() {
			t.Fatalf("size %d, level %d: the outline doesn't fold to the root", size, o.level)
		}
		if len(o.hashes) > outlineMax {
			t.Fatalf("%d hashes", len(o.hashes))
		}
		for i := range o.hashes {
			if o.lines[i] != uint64(i)<<o.level+1 {
				t.Fatalf("subtree %d is said to begin at line %d", i, o.lines[i])
			}
		}
		// Another tree, changed at one place, of another size and so perhaps of another level: the place is found.
		other, at := rapid.IntRange(1, 3*outlineMax).Draw(t, "other"), rapid.IntRange(0, size-1).Draw(t, "at")
		var p outline
		for i := range other {
			line := leafLine(i)
			if i == at {
				line = []byte("changed")
			}
			p.append(LeafHash(line), uint64(i+1))
		}
		from, to, line := p.compare(uint64(size), o.level, list)
		first := uint64(min(at, other)) // where they differ: the change, or where the shorter one ends
		width := uint64(1) << max(o.level, p.level)
		if size == other || at < other {
			if from > first || to <= first || to-from > width {
				t.Fatalf("sizes %d and %d, changed at %d: found [%d,%d)", size, other, at, from, to)
			}
			if line != from+1 {
				t.Fatalf("range from %d is said to begin at line %d", from, line)
			}
		}
		for _, wrong := range [][]Hash{list[:len(list)-1], append(list, Hash{})} {
			if _, ok := foldOutline(uint64(size), o.level, wrong); ok {
				t.Fatalf("a list of %d folds for size %d", len(wrong), size)
			}
		}
	})
}
