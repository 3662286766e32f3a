package powercut

import (
	"bytes"
	"slices"
	"syscall"
	"testing"
)

// page is a page full of one letter.
func page(letter byte) []byte { return bytes.Repeat([]byte{letter}, pageSize) }

func must(t *testing.T, errno syscall.Errno) {
	t.Helper()
	if errno != 0 {
		t.Fatal(errno)
	}
}

// start makes a disk with one synced file of two pages "ab".
func start(t *testing.T, seed uint64) (*Disk, *file) {
	d := New(nil, seed)
	f, errno := d.create("f", 0o600)
	must(t, errno)
	must(t, d.write(f, append(page('a'), page('b')...), 0))
	must(t, d.sync(f))
	must(t, d.syncDir())
	return d, f
}

func TestOnlySyncedContentSurvives(t *testing.T) {
	d, f := start(t, 1)
	must(t, d.write(f, page('x'), 0))
	must(t, d.truncate(f, 3*pageSize))
	_, errno := d.create("g", 0o600)
	must(t, errno)
	d.Cut(DropUnsynced)
	if got := d.Image(); len(got) != 1 || !bytes.Equal(got["f"], append(page('a'), page('b')...)) {
		t.Errorf("the image holds %d files, f of %d bytes", len(got), len(got["f"]))
	}
	if d.write(f, page('y'), 0) != syscall.EIO || d.sync(f) != syscall.EIO || d.syncDir() != syscall.EIO {
		t.Error("a dead disk accepts changes")
	}
}

func TestNamesSurviveBySyncingTheDirectory(t *testing.T) {
	d, f := start(t, 1)
	must(t, d.rename("f", "h"))
	must(t, d.sync(f)) // of the file, which says nothing of its name
	d2, _ := start(t, 1)
	must(t, d2.rename("f", "h"))
	must(t, d2.syncDir())
	must(t, d2.unlink("h"))
	d.Cut(DropUnsynced)
	d2.Cut(DropUnsynced)
	if d.Image()["f"] == nil || d.Image()["h"] != nil {
		t.Error("a rename survived without a sync of the directory")
	}
	if d2.Image()["f"] != nil || d2.Image()["h"] == nil {
		t.Error("a synced rename was lost, or an unlink without a sync survived")
	}
}

// TestRandomSurvivors: over many seeds, every page is seen old, in between and new, torn sectors mix within a page, and
// nothing is ever seen that was never written.
func TestRandomSurvivors(t *testing.T) {
	for _, mode := range []Mode{RandomPages, TornSectors} {
		seen := map[byte]int{}
		torn := 0
		for seed := range uint64(200) {
			d, f := start(t, seed)
			must(t, d.write(f, page('x'), 0))
			must(t, d.write(f, page('y'), 0))
			d.Cut(mode)
			got := d.Image()["f"]
			if len(got) != 2*pageSize || !bytes.Equal(got[pageSize:], page('b')) {
				t.Fatalf("%s: an untouched page changed", mode)
			}
			for _, letter := range slices.Compact(slices.Clone(got[:pageSize])) {
				seen[letter]++
			}
			if !bytes.Equal(got[:pageSize], page(got[0])) {
				torn++
			}
		}
		if len(seen) != 3 || seen['a'] == 0 || seen['x'] == 0 || seen['y'] == 0 {
			t.Errorf("%s: saw %v, want a, x and y", mode, seen)
		}
		if (torn > 0) != (mode == TornSectors) {
			t.Errorf("%s: %d torn pages", mode, torn)
		}
	}
}

// TestFailedSyncForgets: as on Linux, the sync after a failed one succeeds and brings nothing but what is written anew.
func TestFailedSyncForgets(t *testing.T) {
	d, f := start(t, 1)
	d.FailSync(1)
	must(t, d.write(f, page('x'), 0))
	if errno := d.sync(f); errno != syscall.EIO {
		t.Fatalf("the sync that must fail: %v", errno)
	}
	must(t, d.write(f, page('y'), pageSize))
	must(t, d.sync(f))
	if !bytes.Equal(f.now[:pageSize], page('x')) {
		t.Error("programs no longer see what they wrote")
	}
	d.Cut(RandomPages)
	if got := d.Image()["f"]; !bytes.Equal(got, append(page('a'), page('y')...)) {
		t.Errorf("after the cut the file begins with %q and goes on with %q", got[0], got[pageSize])
	}
}

func TestCutAtAnOperation(t *testing.T) {
	d, f := start(t, 1)
	d.CutAt(2, DropUnsynced)
	must(t, d.write(f, page('x'), 0))
	if errno := d.sync(f); errno != syscall.EIO {
		t.Fatalf("the operation that is cut: %v", errno)
	}
	<-d.Dead()
	if got := d.Image()["f"][0]; got != 'a' {
		t.Errorf("a sync that was cut left %q", got)
	}
}
