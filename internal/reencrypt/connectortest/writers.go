package connectortest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
)

// Writers is an application that goes on writing while a run works on its table notes (id bigint, note text): several
// connections, each the only one that writes its own rows (those whose id leaves its number as the remainder), so that
// what it wrote last is what must be there in the end, whatever a run did in between.
//
// They do what applications do: write a fresh value, delete and insert rows (in front of and behind any cursor), and, as
// an object-relational mapper that saves whole objects does, put back what they read a while ago.
type Writers struct {
	Keys *KeySet

	// mu is held by every write while it runs, and by Set alone: behind Set, nothing of the old kind is on its way.
	mu sync.RWMutex
	// clear says that fresh values are written in clear, as an application does that doesn't encrypt yet. stale says that
	// values are put back that were read a while ago.
	clear, stale bool

	tb     testing.TB
	db     *sql.DB
	sql    func(statement string) string
	rows   int
	writes atomic.Int64
	stop   context.CancelFunc
	done   sync.WaitGroup
	each   []*appWriter
}

// appWriter is one connection. Its fields belong to its goroutine until that has ended.
type appWriter struct {
	*Writers
	number int
	random *rand.Rand
	last   map[int]string // what it wrote last: id -> plaintext; an absent id was deleted
	held   map[int]string // values as they stood when they were read a while ago; Set, with mu, replaces it
	count  int
}

// StartWriters makes the table with so many rows in clear and starts n writers. Wait ends them.
func StartWriters(tb testing.TB, d Database, text string, rows, n int, seed uint64) *Writers {
	tb.Helper()
	d.Exec(tb, "CREATE TABLE notes (id bigint PRIMARY KEY, note "+text+" NOT NULL)",
		fmt.Sprintf("INSERT INTO notes SELECT i, 'note ' || i FROM (%s) AS s", upTo(rows)))
	ctx, stop := context.WithCancel(context.Background())
	w := &Writers{Keys: NewKeySet(envelope.SuiteStandard), tb: tb, db: d.DB, sql: d.rewrite, rows: rows, stop: stop}
	for i := range n {
		a := &appWriter{Writers: w, number: i, random: rand.New(rand.NewPCG(seed, uint64(i))), last: map[int]string{}, held: map[int]string{}}
		for id := 1; id <= rows; id++ {
			if id%n == i {
				a.last[id] = fmt.Sprintf("note %d", id)
			}
		}
		w.each = append(w.each, a)
		w.done.Go(func() { a.run(ctx, n) })
	}
	tb.Cleanup(func() { w.Wait() })
	return w
}

// Wait ends the writers and answers how many writes there were.
func (w *Writers) Wait() int64 {
	w.stop()
	w.done.Wait()
	return w.writes.Load()
}

// Set says what is written from now on: fresh values in clear or sealed, and whether stale ones are put back. What was read
// so far isn't put back any more.
func (w *Writers) Set(clear, stale bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear, w.stale = clear, stale
	for _, a := range w.each {
		a.held = map[int]string{}
	}
}

// writerPace is the time from one write of a connection to the next, at least: without one, four connections that all but hold
// a SQLite file would measure its lock and nothing else.
const writerPace = time.Millisecond

func (w *appWriter) run(ctx context.Context, n int) {
	tick := time.NewTicker(writerPace)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		id := w.random.IntN(w.rows+w.rows/10)/n*n + w.number
		if id == 0 {
			continue
		}
		w.mu.RLock()
		var err error
		switch {
		case w.stale && w.random.IntN(3) == 0:
			err = w.putBack(id)
		case w.random.IntN(20) == 0:
			err = w.replace(id)
		default:
			err = w.write(id)
		}
		w.mu.RUnlock()
		if err != nil {
			w.tb.Errorf("writer %d, row %d: %v", w.number, id, err)
			return
		}
		w.writes.Add(1)
	}
}

// fresh is a new value for a row: its plaintext, and how it is stored.
func (w *appWriter) fresh(id int) (plain, stored string, err error) {
	w.count++
	plain = fmt.Sprintf("writer %d, row %d, write %d", w.number, id, w.count)
	if w.clear {
		return plain, plain, nil
	}
	ctx, err := envelope.NewContext(map[string]string{"table": "notes", "column": "note", "pk.id": strconv.Itoa(id)})
	if err != nil {
		return "", "", err
	}
	blob, err := w.Keys.Current().Seal(nil, []byte(plain), ctx)
	return plain, string(envelope.AppendText(nil, blob)), err
}

// write puts a fresh value into a row, which it makes if there is none.
func (w *appWriter) write(id int) error {
	plain, stored, err := w.fresh(id)
	if err != nil {
		return err
	}
	_, err = w.db.Exec(w.sql("INSERT INTO notes (id, note) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET note = excluded.note"), id, stored)
	if err == nil {
		w.last[id] = plain
		delete(w.held, id)
	}
	return err
}

// replace deletes a row and makes it again, or only deletes it.
func (w *appWriter) replace(id int) error {
	if _, err := w.db.Exec(w.sql("DELETE FROM notes WHERE id = $1"), id); err != nil {
		return err
	}
	delete(w.last, id)
	delete(w.held, id)
	if w.random.IntN(4) == 0 {
		return nil
	}
	return w.write(id)
}

// putBack reads a row now and writes what it read when it comes to the row the next time, as if it had been edited
// elsewhere: the plaintext is the row's own, the ciphertext perhaps of a version that was left behind long ago.
func (w *appWriter) putBack(id int) error {
	if stored, ok := w.held[id]; ok {
		delete(w.held, id)
		_, err := w.db.Exec(w.sql("UPDATE notes SET note = $1 WHERE id = $2"), stored, id)
		return err
	}
	var stored string
	err := w.db.QueryRow(w.sql("SELECT note FROM notes WHERE id = $1"), id).Scan(&stored)
	if err == sql.ErrNoRows {
		return nil
	}
	if err == nil {
		w.held[id] = stored
	}
	return err
}

// Check compares the table with what the writers, who have ended, wrote last, and counts the values by version, 0 being in
// clear.
func (w *Writers) Check(d Database) (versions map[uint32]int) {
	w.tb.Helper()
	want := map[int]string{}
	for _, a := range w.each {
		for id, v := range a.last {
			want[id] = v
		}
	}
	versions = map[uint32]int{}
	lost := 0
	rows := d.Rows(w.tb, "SELECT id, note FROM notes")
	for _, row := range rows {
		id, err := strconv.Atoi(string(row[0]))
		if err != nil {
			w.tb.Fatal(err)
		}
		versions[versionOf(row[1])]++
		if got := Open(w.tb, "notes", []string{"id"}, []string{string(row[0])}, "note", w.Keys, row[1]); got != want[id] && got != "clear:"+want[id] {
			if lost++; lost < 10 {
				w.tb.Errorf("row %d holds %q, the application last wrote %q", id, got, want[id])
			}
		}
		delete(want, id)
	}
	if lost > 0 || len(want) > 0 {
		w.tb.Errorf("%d of %d values are not what the application last wrote, %d rows are gone", lost, len(rows), len(want))
	}
	return versions
}

// versionOf is the version that a stored value names, 0 for plaintext.
func versionOf(stored []byte) uint32 {
	if len(stored) < envelope.PrefixLen {
		return 0
	}
	h, err := envelope.ParsePrefixText(string(stored[:envelope.PrefixLen]))
	if err != nil {
		return 0
	}
	return h.Version
}
