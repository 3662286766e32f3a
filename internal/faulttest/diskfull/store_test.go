package diskfull_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/faulttest"
	"github.com/keyturn/keyturn/internal/faulttest/diskfull"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

func TestMain(m *testing.M) { faulttest.Main(m) }

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// log is a store with a log that knows how long it must be.
type log struct {
	t    *testing.T
	disk *diskfull.Disk
	st   store.Store
	head audit.Head
}

func openStore(disk *diskfull.Disk) (store.Store, error) {
	return sqlite.Open(context.Background(), filepath.Join(disk.Dir, "keyturn.db"), sqlite.Config{})
}

func newLog(t *testing.T, size int64) *log {
	t.Helper()
	l := &log{t: t, disk: diskfull.New(t, size, 0)}
	l.open()
	t.Cleanup(func() { l.st.Close() })
	for range 20 {
		if err := l.append(3000); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *log) open() {
	l.t.Helper()
	var err error
	if l.st, err = openStore(l.disk); err == nil {
		err = l.st.Change(l.t.Context(), func(tx store.Tx) (err error) {
			l.head, err = tx.AcquireShard(l.t.Context(), "n", now, time.Hour)
			return err
		})
	}
	if err != nil {
		l.t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
}

func (l *log) append(size int) error {
	s := &audit.Segment{Seq: l.head.Seq + 1, Epoch: l.head.Epoch, First: l.head.Size, Count: 1, FirstTime: now, LastTime: now,
		Nonce: "n", Lines: bytes.Repeat([]byte{'x'}, size)}
	err := l.st.Append(l.t.Context(), s)
	if err == nil {
		l.head.Seq, l.head.Size = l.head.Seq+1, l.head.Size+1
	}
	return err
}

// intact wants everything that was acknowledged and nothing else, in a sound file.
func (l *log) intact() {
	l.t.Helper()
	ctx, n := l.t.Context(), uint64(0)
	err := l.st.View(ctx, func(tx store.Tx) error {
		return tx.Segments(ctx, audit.SegmentQuery{}, func(s *audit.Segment) error { n++; return nil })
	})
	if err != nil || n != l.head.Seq {
		l.t.Errorf("%d segments were acknowledged and %d are there (%v)", l.head.Seq, n, err)
	}
	var sound string
	if err := l.st.DB().QueryRow(`PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		l.t.Errorf("integrity_check: %s, %v", sound, err)
	}
}

func wantFull(t *testing.T, what string, err error) {
	t.Helper()
	if fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "space") || fault.NextOf(err) == "" {
		t.Errorf("%s on a full disk: %v (%s; %v), want it to say that no space is left", what, err, fault.CodeOf(err), errors.Unwrap(err))
	}
}

// TestStoreOnAFullDisk is row 7 of the fault campaigns for the store: what writes fails and says why, what reads goes on,
// and when space returns everything goes on by itself, on the same handle, with nothing lost and nothing half done.
func TestStoreOnAFullDisk(t *testing.T) {
	for name, write := range map[string]func(l *log) error{
		"append":       func(l *log) error { return l.append(3000) },
		"large append": func(l *log) error { return l.append(200_000) },
		"change": func(l *log) error {
			return l.st.Change(l.t.Context(), func(tx store.Tx) error {
				return tx.SetMeta(l.t.Context(), "m", strings.Repeat("v", 9000))
			})
		},
		"scrub": func(l *log) error {
			k := keys.KEK{ID: "k", Purpose: keys.KEKData, Version: 1, Active: true, Wrappings: []keys.Wrapping{{Blob: bytes.Repeat([]byte{'w'}, 9000)}}}
			return l.st.Change(l.t.Context(), func(tx store.Tx) error {
				return errors.Join(tx.PutKEKs(l.t.Context(), k), tx.PutKEKs(l.t.Context(), k))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t, 4<<20)
			l.disk.Fill()
			failed := false
			for range 400 { // what is allocated already may take some writes
				if err := write(l); err != nil {
					wantFull(t, name, err)
					failed = true
					break
				}
			}
			if !failed {
				t.Fatal("nothing failed on a full disk")
			}
			if err := l.st.Durable(t.Context()); err != nil {
				t.Errorf("a full disk counts as a broken one: %v", err)
			}
			l.intactWhileFull()
			l.disk.Free()
			if err := write(l); err != nil {
				t.Fatalf("after space returned: %v: %v", err, errors.Unwrap(err))
			}
			if err := l.append(10); err != nil {
				t.Errorf("the log after space returned: %v", err)
			}
			l.intact()
		})
	}
}

// intactWhileFull reads without writing.
func (l *log) intactWhileFull() {
	l.t.Helper()
	err := l.st.View(l.t.Context(), func(tx store.Tx) error {
		heads, err := tx.Heads(l.t.Context())
		if err == nil && heads[0].Seq != l.head.Seq {
			l.t.Errorf("while the disk is full the log shows %d segments of %d", heads[0].Seq, l.head.Seq)
		}
		return err
	})
	if err != nil {
		l.t.Errorf("reading on a full disk: %v", err)
	}
}

// TestUntilTheDiskIsFull fills the disk with nothing but the log, twice, and opens the store again in between.
func TestUntilTheDiskIsFull(t *testing.T) {
	l := newLog(t, 4<<20)
	if err := os.WriteFile(filepath.Join(l.disk.Dir, "filler"), make([]byte, 1_000_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		n := 0
		for l.append(5000) == nil {
			n++
		}
		wantFull(t, "appending", l.append(5000))
		l.intactWhileFull()
		if err := l.st.Close(); err != nil {
			t.Logf("closing on a full disk: %v", err) // the log is folded into the file next time
		}
		if round == 0 {
			l.disk.Free()
			before := l.head.Seq
			l.open()
			if l.head.Seq != before {
				t.Fatalf("%d segments were acknowledged and %d are there", before, l.head.Seq)
			}
			l.intact()
		}
		if round == 0 && n == 0 {
			t.Error("the log could not grow at all")
		}
	}
}

// TestMakingAStoreOnAFullDisk: a first start that fails halfway leaves nothing that a second one stumbles over.
func TestMakingAStoreOnAFullDisk(t *testing.T) {
	made := 0
	for size := int64(16 << 10); made < 3; size += 48 << 10 {
		if size > 4<<20 {
			t.Fatal("no size was large enough")
		}
		disk := diskfull.New(t, 4<<20, 0)
		if err := os.WriteFile(filepath.Join(disk.Dir, "room"), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		disk.Fill()
		if err := os.Remove(filepath.Join(disk.Dir, "room")); err != nil {
			t.Fatal(err)
		}
		st, err := openStore(disk)
		if err == nil {
			made++
		} else {
			wantUnavailable(t, err)
			disk.Free()
			if st, err = openStore(disk); err != nil {
				t.Fatalf("with %d bytes free at first, and space later: %v: %v", size, err, errors.Unwrap(err))
			}
		}
		if err := st.Close(); err != nil {
			t.Log(err)
		}
	}
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	if fault.CodeOf(err) != api.CodeUnavailable || fault.NextOf(err) == "" {
		t.Errorf("opening on a full disk: %v (%s)", err, fault.CodeOf(err))
	}
}

// TestNoInodeIsLeft: the log and its index can't be made; afterwards they can.
func TestNoInodeIsLeft(t *testing.T) {
	disk := diskfull.New(t, 4<<20, 4) // the directory, the file, its log and the log's index, or the filler
	if err := os.WriteFile(filepath.Join(disk.Dir, "filler"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openStore(disk)
	wantUnavailable(t, err)
	disk.Free()
	st, err := openStore(disk)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}
