package powercut_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// worker is the program whose power is cut. It tells its parent over stdout, a line each: "state N" after it has found
// everything in order with N operations done, "ack N" once operation N has succeeded, "stopped …" at the first failure.
type worker struct {
	ctx  context.Context
	st   store.Store
	out  *os.File
	tree *audit.Tree
	head audit.Head
	key  keys.Key
}

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// runStore is the whole life of a worker on a directory.
func runStore(dir string, out *os.File) error {
	w := &worker{ctx: context.Background(), out: out, tree: new(audit.Tree)}
	var err error
	if w.st, err = sqlite.Open(w.ctx, filepath.Join(dir, "keyturn.db"), sqlite.Config{}); err != nil {
		return err
	}
	if err := w.st.Change(w.ctx, w.start); err != nil {
		return err
	}
	if err := w.verify(); err != nil {
		fmt.Fprintln(out, "broken", err)
		return err
	}
	if err := tellState(out, w.head.Seq); err != nil {
		return err
	}
	for {
		s := w.segment()
		if err := w.do(s); err != nil {
			fmt.Fprintf(out, "stopped %d unknown=%v refuses=%v\n", s.Seq, errors.Is(err, store.ErrCommitUnknown), w.refuses())
			return err
		}
		w.head.Seq, w.head.Size = s.Seq, w.tree.Size()
		fmt.Fprintln(out, "ack", s.Seq)
	}
}

// start takes the shard, and makes the key when there is none.
func (w *worker) start(tx store.Tx) (err error) {
	if w.head, err = tx.AcquireShard(w.ctx, "worker", began, time.Hour); err != nil {
		return err
	}
	w.key, err = tx.KeyByName(w.ctx, "phi")
	if fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	if w.key, err = keys.NewKey(envelope.KeyID{1}, keys.Spec{Name: "phi"}, began); err != nil {
		return err
	}
	if err := tx.CreateKey(w.ctx, w.key); err != nil {
		return err
	}
	w.key.Revision = 1
	return nil
}

// What operation n does. Each writes segment n of the log; some change other tables in the same transaction.
func rotates(n uint64) bool { return n%5 == 0 && n%20 != 0 }
func rewraps(n uint64) bool { return n%20 == 0 }

// segment is what operation n writes: events of a size that differs from one to the next.
func (w *worker) segment() *audit.Segment {
	n := w.head.Seq + 1
	s := &audit.Segment{Shard: 0, Seq: n, Epoch: w.head.Epoch, First: w.head.Size, Count: int(n%7) + 1, FirstTime: began, LastTime: began,
		Nonce: fmt.Sprint(n), Lines: lines(n, w.head.Size)}
	for line := range bytes.SplitSeq(s.Lines, []byte("\n")) {
		w.tree.Append(audit.LeafHash(line))
	}
	s.Root, s.Edge = w.tree.Root(), w.tree.AppendEdge(nil)
	return s
}

// lines are the events of operation n, of which the first has the index first.
func lines(n, first uint64) []byte {
	var list []string
	for i := range n%7 + 1 {
		list = append(list, fmt.Sprintf(`{"n":%d,"index":%d,"pad":%q}`, n, first+i, strings.Repeat("x", int(n*n%1500))))
	}
	return []byte(strings.Join(list, "\n"))
}

func (w *worker) do(s *audit.Segment) error {
	if !rotates(s.Seq) && !rewraps(s.Seq) {
		return w.st.Append(w.ctx, s)
	}
	next := w.key.Clone()
	err := w.st.Change(w.ctx, func(tx store.Tx) error {
		if rewraps(s.Seq) { // takes wrappings away, so the store folds its log into the file
			return errors.Join(tx.PutKEKs(w.ctx, kek(s.Seq)), tx.AppendSegment(w.ctx, s))
		}
		next = w.key.Clone()
		moves, err := next.Rotate(began, "worker", "r", 0)
		if err != nil {
			return err
		}
		next.Versions[len(next.Versions)-1].Wrapped = fmt.Append(nil, s.Seq)
		return errors.Join(tx.UpdateKey(w.ctx, next), tx.AddTransitions(w.ctx, next.ID, moves), tx.AppendSegment(w.ctx, s))
	})
	if err == nil && rotates(s.Seq) {
		next.Revision++
		w.key = next
	}
	return err
}

func kek(n uint64) keys.KEK {
	return keys.KEK{ID: "k", Purpose: keys.KEKData, Version: uint32(n), Active: true, Created: began,
		Wrappings: []keys.Wrapping{{MasterID: "m", URL: "env://M", Blob: fmt.Append(nil, n)}}}
}

// refuses says whether the store stays closed to writing after a failure of its disk.
func (w *worker) refuses() bool {
	err := w.st.Change(w.ctx, func(tx store.Tx) error { return tx.SetMeta(w.ctx, "after", "the failure") })
	return err != nil && w.st.Durable(w.ctx) != nil
}

// verify compares everything in the store with what the first head.Seq operations must have left: every event, the tree
// over them, the key, the KEK, and SQLite's own idea of its file.
func (w *worker) verify() error {
	var sound string
	if err := w.st.DB().QueryRow(`PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		return fmt.Errorf("integrity_check says %s, %w", sound, err)
	}
	var rotations, rewrapped uint64
	err := w.st.View(w.ctx, func(tx store.Tx) error {
		n := uint64(0)
		err := tx.Segments(w.ctx, audit.SegmentQuery{}, func(s *audit.Segment) error {
			if n++; s.Seq != n || s.First != w.tree.Size() || !bytes.Equal(s.Lines, lines(n, s.First)) {
				return fmt.Errorf("segment %d isn't what was written", n)
			}
			for line := range bytes.SplitSeq(s.Lines, []byte("\n")) {
				w.tree.Append(audit.LeafHash(line))
			}
			if s.Root != w.tree.Root() {
				return fmt.Errorf("segment %d has another root than its events", n)
			}
			if rotates(n) {
				rotations++
			}
			if rewraps(n) {
				rewrapped = n
			}
			return nil
		})
		if err != nil {
			return err
		}
		keks, err := tx.KEKs(w.ctx)
		if rewrapped > 0 && (len(keks) != 1 || uint64(keks[0].Version) != rewrapped || string(keks[0].Wrappings[0].Blob) != fmt.Sprint(rewrapped)) {
			return fmt.Errorf("the KEK isn't that of operation %d: %+v, %w", rewrapped, keks, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	if w.head.Size != w.tree.Size() || uint64(len(w.key.Versions)) != rotations {
		return fmt.Errorf("%d events under a head of %d, %d versions after %d rotations", w.tree.Size(), w.head.Size, len(w.key.Versions), rotations)
	}
	return nil
}
