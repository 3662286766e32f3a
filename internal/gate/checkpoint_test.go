package gate

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

func fileCheckpoints(t testing.TB, g *Gate) []audit.Checkpoint {
	t.Helper()
	found, err := (&anchorFile{path: g.cfg.CheckpointFile}).all(g.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCheckpointsAreMade(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		st := open()
		path := filepath.Join(t.TempDir(), "checkpoints.log")
		g := start(t, st, Config{CheckpointFile: path, CheckpointEvery: time.Millisecond})
		for i := range 3 {
			if err := use(g, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a checkpoint covers it", func() bool {
				s, err := g.Status(t.Context())
				return err == nil && s.Events == uint64(i+1) && s.Checkpoint.Events() == uint64(i+1) && len(fileCheckpoints(t, g)) > 0
			})
		}
		on, err := g.Checkpoint(t.Context())
		if err != nil || on.Events() != 3 {
			t.Fatalf("%+v %v", on, err)
		}
		again, err := g.Checkpoint(t.Context())
		if err != nil || again.Note != on.Note {
			t.Errorf("a checkpoint without anything new: %+v %v", again, err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		kept := fileCheckpoints(t, g)
		if last := kept[len(kept)-1]; last.Note != on.Note || last.Sequence != uint64(len(kept)) {
			t.Errorf("the file ends with %+v", last)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file's mode: %v %v", info.Mode(), err)
		}

		// Close signs what nobody had signed yet.
		g = start(t, st, Config{CheckpointFile: path})
		if err := use(g, "last"); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if kept := fileCheckpoints(t, g); kept[len(kept)-1].Events() != 4 {
			t.Errorf("after Close the file covers %d events", kept[len(kept)-1].Events())
		}
	})
}

// brokenFile is a checkpoint file on a failing disk.
type brokenFile struct {
	handle
	write, sync error
}

func (f *brokenFile) WriteAt(b []byte, at int64) (int, error) {
	if f.write != nil {
		n, _ := f.handle.WriteAt(b[:len(b)/2], at)
		return n, f.write
	}
	return f.handle.WriteAt(b, at)
}

func (f *brokenFile) Sync() error { return errors.Join(f.handle.Sync(), f.sync) }

// TestCheckpointFileOnAFailingDisk: no room for a checkpoint is made up for later; a failed fsync stops all answering.
func TestCheckpointFileOnAFailingDisk(t *testing.T) {
	g := start(t, sqliteStore(t)(), Config{CheckpointFile: filepath.Join(t.TempDir(), "checkpoints.log")})
	disk := &brokenFile{handle: g.checkpoints.file.f}
	g.checkpoints.file.f = disk
	checkpoint := func() error { _, err := g.Checkpoint(t.Context()); return err }

	if err := errors.Join(use(g, "1"), checkpoint()); err != nil {
		t.Fatal(err)
	}
	disk.write = errors.New("no space left")
	if err := errors.Join(use(g, "2"), checkpoint()); fault.CodeOf(err) != api.CodeUnavailable || contains(err.Error(), "no space left") {
		t.Errorf("on a full disk: %v", err)
	}
	if err := use(g, "3"); err != nil || g.Err() != nil || !g.grown() {
		t.Errorf("a checkpoint file without room stops answering, or is forgotten: %v", err)
	}
	disk.write = nil
	if err := checkpoint(); err != nil {
		t.Fatal(err)
	}
	if kept := fileCheckpoints(t, g); kept[len(kept)-1].Events() != 3 {
		t.Errorf("the file covers %d events", kept[len(kept)-1].Events())
	}
	mustVerify(t, g)

	disk.sync = errors.New("input/output error")
	if err := errors.Join(use(g, "4"), checkpoint()); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a failed fsync: %v", err)
	}
	disk.sync = nil
	for _, do := range []func(*Gate, string) error{use, setMeta} {
		if err := do(g, "5"); fault.CodeOf(err) != api.CodeUnavailable || !contains(fault.NextOf(err), "start keyturn anew") {
			t.Errorf("after a failed fsync: %v (%s)", err, fault.NextOf(err))
		}
	}
	if checkpoint() == nil || g.Err() == nil {
		t.Error("after a failed fsync there are still checkpoints")
	}
}

func TestCheckpointFileAfterACrash(t *testing.T) {
	st := sqliteStore(t)()
	path := filepath.Join(t.TempDir(), "checkpoints.log")
	g := start(t, st, Config{CheckpointFile: path})
	for i := range 3 {
		if err := use(g, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, content := range map[string]string{
		"torn at the end":        string(whole) + lines[0][:40],
		"the last was not there": lines[0] + lines[1],
		"the last was torn":      lines[0] + lines[1] + lines[2][:100],
		"nothing":                "",
		"the first was torn":     lines[0][:100],
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		again := build(t, st, Config{CheckpointFile: path})
		if err := again.Start(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if kept := fileCheckpoints(t, again); kept[len(kept)-1].Sequence != 3 {
			t.Errorf("%s: the file ends with number %d", name, kept[len(kept)-1].Sequence)
		}
	}
	other, _ := keyOf(t, "another")
	foreign := audit.Checkpoint{Sequence: 1}
	if err := foreign.Sign(other); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"another store's":       string(audit.AppendCheckpointLine(nil, foreign.Note)) + "\n",
		"something else":        "hello\n",
		"without an end":        "hello\nprecious, and not yet saved with a newline",
		"one line without end":  "precious",
		"with something behind": string(whole) + "x\n",
		"a newer one than ours": string(whole) + newer(t, st, 4),
		"another one instead":   lines[0] + lines[1] + newer(t, st, 3),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		again := build(t, st, Config{CheckpointFile: path})
		if err := again.Start(t.Context()); fault.CodeOf(err) != api.CodeIntegrity || fault.NextOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := use(again, "x"); fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("%s: a gate that did not start answers: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != content {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
}

// A symbolic link, a directory and a pipe are no checkpoint files, whatever they lead to.
func TestCheckpointFileMustBePlain(t *testing.T) {
	st := sqliteStore(t)()
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	for name, make := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(target, path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if err := build(t, st, Config{CheckpointFile: path}).Start(t.Context()); err == nil || fault.NextOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("a link was followed")
	}
}

// newer is a checkpoint of our key over no events.
func newer(t *testing.T, st store.Store, sequence uint64) string {
	signer, _ := keyOf(t, st.ID())
	c := audit.Checkpoint{Sequence: sequence}
	if err := c.Sign(signer); err != nil {
		t.Fatal(err)
	}
	return string(audit.AppendCheckpointLine(nil, c.Note)) + "\n"
}

func TestCheckpointFileIsThinned(t *testing.T) {
	st := sqliteStore(t)()
	signer, key := keyOf(t, st.ID())
	path := filepath.Join(t.TempDir(), "checkpoints.log")
	var content []byte
	var last audit.Checkpoint
	for i := uint64(1); len(content) <= thinAbove; i++ {
		last = audit.Checkpoint{Sequence: i, Shards: make([]audit.ShardHead, 0)}
		for n := range 40 { // long ones, to get there with few signatures
			last.Shards = append(last.Shards, audit.ShardHead{Shard: n, Size: i})
		}
		if err := last.Sign(signer); err != nil {
			t.Fatal(err)
		}
		content = append(audit.AppendCheckpointLine(content, last.Note), '\n')
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f := anchorFile{path: path}
	newest, err := f.newest(key)
	if err != nil || newest.Note != last.Note {
		t.Fatalf("the newest is %d: %v", newest.Sequence, err)
	}
	defer f.close() //nolint:errcheck // a test
	kept, err := f.all(key)
	want := thinKeep + (int(last.Sequence)-thinKeep)/thinEvery
	if err != nil || len(kept) < want-1 || len(kept) > want+1 || kept[0].Sequence != 1 {
		t.Errorf("%d of %d checkpoints are left, wanted %d: %v", len(kept), last.Sequence, want, err)
	}
}

// rewrite changes the store behind the gate's back, as somebody with access to the database can.
func rewrite(t *testing.T, st store.Store, statement string, args ...any) {
	t.Helper()
	err := st.Change(context.Background(), func(tx store.Tx) error {
		r, err := tx.SQL().ExecContext(context.Background(), statement, args...)
		if err != nil {
			return err
		}
		if n, _ := r.RowsAffected(); n == 0 {
			return sql.ErrNoRows
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// forge replaces the lines of a segment and makes every later root fit, which is all that can be done without the key.
func forge(t *testing.T, g *Gate, from uint64, edit func([]byte) []byte) {
	t.Helper()
	var tree audit.Tree
	var segments []audit.Segment
	err := g.walk(context.Background(), g.ownHead(), func(s *audit.Segment) error {
		segments = append(segments, *s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		if s.Seq == from {
			s.Lines = edit(s.Lines)
		}
		for l := range bytes.SplitSeq(s.Lines, []byte("\n")) {
			tree.Append(audit.LeafHash(l))
		}
		root := tree.Root()
		rewrite(t, g.st, `UPDATE audit_segments SET lines = $1, root = $2, edge = $3 WHERE seq = $4`, s.Lines, root[:], tree.AppendEdge(nil), int64(s.Seq))
	}
}

// What queries find a segment by is covered by no signature: Verify makes it anew from the events, so that nobody hides
// events from queries while the log is said to be whole.
func TestVerifyFindsHiddenSegments(t *testing.T) {
	for _, change := range []string{"mask = 0", "mask = mask & (mask - 1)", "first_time = 1", "first_time = first_time + 1", "last_time = 1", "last_time = last_time + 1"} {
		st := sqliteStore(t)()
		g := start(t, st, Config{})
		for i := range 3 {
			if err := use(g, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := g.Verify(t.Context()); err != nil || r.Bad != nil {
			t.Fatalf("an untouched log: %+v, %v", r.Bad, err)
		}
		rewrite(t, st, `UPDATE audit_segments SET `+change+` WHERE seq = 2`)
		r, err := g.Verify(t.Context())
		if fault.CodeOf(err) != api.CodeIntegrity || r.Bad == nil || r.Bad.Index != 1 {
			t.Errorf("%s: %+v, %v", change, r.Bad, err)
		}
	}
}

// A store that lost the end of a running node's log, in a failover, gets no checkpoint that signs what it lost: neither when one
// is asked for nor by the node's last one when it closes. No start would believe the store again.
func TestLostEndIsNotSigned(t *testing.T) {
	for _, last := range []bool{false, true} {
		st := sqliteStore(t)()
		g := start(t, st, Config{})
		for i := range 3 {
			if err := use(g, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		rewrite(t, st, `DELETE FROM audit_segments WHERE seq > 2`)
		if last {
			_ = g.Close(t.Context()) // it may say so or not: what it leaves behind counts
		} else if _, err := g.Checkpoint(t.Context()); fault.CodeOf(err) != api.CodeIntegrity || !contains(err.Error(), "did not write") {
			t.Errorf("a checkpoint: %v", err)
		} else if err := use(g, "after"); err == nil {
			t.Error("the node goes on")
		}
		// Another node, without the file, which somebody moved away who accepts the loss.
		if err := build(t, st, Config{}).Start(t.Context()); err != nil {
			t.Errorf("closed by itself %v: the next start: %v", last, err)
		}
	}
}

// TestStartFindsWhatHappenedWhileAway: the store is changed while no gate runs. What concerns the part that is not signed
// yet, or the end of the log, is found at the start; every change is found by Verify, with its place.
func TestStartFindsWhatHappenedWhileAway(t *testing.T) {
	edit := func(b []byte) []byte { return bytes.Replace(b, []byte("alice"), []byte("mallo"), 1) }
	for name, c := range map[string]struct {
		tamper  func(t *testing.T, g *Gate)
		atStart bool // the start fails
		index   uint64
	}{
		"the tail is deleted": {func(t *testing.T, g *Gate) { rewrite(t, g.st, `DELETE FROM audit_segments WHERE seq > 7`) }, true, 7},
		"the tail, with checkpoints": {func(t *testing.T, g *Gate) {
			rewrite(t, g.st, `DELETE FROM audit_segments WHERE seq > 4`)
			rewrite(t, g.st, `DELETE FROM audit_checkpoints WHERE sequence > 1`)
		}, true, 4},
		"everything is deleted": {func(t *testing.T, g *Gate) { rewrite(t, g.st, `DELETE FROM audit_segments`) }, true, 0},
		"the whole log and its past": {func(t *testing.T, g *Gate) {
			rewrite(t, g.st, `DELETE FROM audit_segments`)
			rewrite(t, g.st, `DELETE FROM audit_checkpoints`)
		}, true, 0},
		"an unsigned event, forged": {func(t *testing.T, g *Gate) { forge(t, g, 9, edit) }, false, 8},
		"an unsigned event, sloppily": {func(t *testing.T, g *Gate) {
			rewrite(t, g.st, `UPDATE audit_segments SET lines = $1 WHERE seq = 9`, []byte("{}"))
		}, true, 8},
		"a signed event, sloppily": {func(t *testing.T, g *Gate) {
			rewrite(t, g.st, `UPDATE audit_segments SET lines = $1 WHERE seq = 3`, []byte("{}"))
		}, false, 2},
		"a signed event, forged": {func(t *testing.T, g *Gate) { forge(t, g, 3, edit) }, true, 2},
		"the head's root": {func(t *testing.T, g *Gate) {
			rewrite(t, g.st, `UPDATE audit_segments SET root = $1 WHERE seq = 10`, make([]byte, 32))
		}, true, 9},
		"an event in the middle gone": {func(t *testing.T, g *Gate) { rewrite(t, g.st, `DELETE FROM audit_segments WHERE seq = 5`) }, false, 4},
		"the newest checkpoint": {func(t *testing.T, g *Gate) {
			rewrite(t, g.st, `UPDATE audit_checkpoints SET note = $1 WHERE sequence = 2`, "x")
		}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			st := sqliteStore(t)()
			path := filepath.Join(t.TempDir(), "checkpoints.log")
			g := start(t, st, Config{CheckpointFile: path})
			for i := range 10 { // a segment each: checkpoint 1 covers 4, checkpoint 2 covers 8, two are not signed yet
				if err := use(g, fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
				if i == 3 || i == 7 {
					if _, err := g.Checkpoint(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			// The gate is not closed, as after kill -9.
			c.tamper(t, g)
			again := build(t, st, Config{CheckpointFile: path})
			err := again.Start(t.Context())
			if name == "an unsigned event, forged" {
				// Nobody had signed it: the limit of what can be known, at most CheckpointEvery of events.
				if err != nil {
					t.Errorf("the start fails: %v", err)
				}
				return
			}
			if c.atStart != (fault.CodeOf(err) == api.CodeIntegrity) {
				t.Errorf("the start: %v", err)
			}
			report, err := again.Verify(t.Context())
			if fault.CodeOf(err) != api.CodeIntegrity {
				t.Fatalf("Verify says %v: %+v", err, report)
			}
			if report.Bad != nil && (report.Bad.Index > c.index || report.Bad.Through < c.index) {
				t.Errorf("named is %s, changed was index %d", report.Bad, c.index)
			}
			if c.index >= 8 {
				return // an export ends with the checkpoint, before the changed event
			}
			var out bytes.Buffer
			exported := again.Export(t.Context(), &out)
			if exported == nil {
				_, exported = audit.Verify(&out, again.cfg.Key, fileCheckpoints(t, again))
			}
			if exported == nil {
				t.Error("a changed log is exported and verifies")
			}
		})
	}
}

// TestStoreSetBackIsFound: yesterday's copy of the database is put back.
func TestStoreSetBackIsFound(t *testing.T) {
	dir := t.TempDir()
	open := sqliteStore(t)
	st := open()
	path := filepath.Join(dir, "checkpoints.log")
	g := start(t, st, Config{CheckpointFile: path})
	if err := use(g, "1"); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	yesterday := filepath.Join(dir, "yesterday.db")
	if _, err := st.DB().ExecContext(t.Context(), `VACUUM INTO '`+yesterday+`'`); err != nil {
		t.Fatal(err)
	}
	g = start(t, st, Config{CheckpointFile: path})
	if err := use(g, "2"); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := sqliteAt(t, yesterday)
	back := build(t, old, Config{CheckpointFile: path})
	err := back.Start(t.Context())
	if fault.CodeOf(err) != api.CodeIntegrity || !contains(err.Error(), "set back") || !contains(fault.NextOf(err), "move it away") {
		t.Errorf("yesterday's store: %v; %s", err, fault.NextOf(err))
	}
	if _, err := back.Verify(t.Context()); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("Verify of yesterday's store: %v", err)
	}
}
