package reencrypt_test

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// TestSweepFindsWhatAppearedBehind: an old value that is copied behind the cursor is found by the count of the whole table,
// and done by another pass (the first of SPEED.md's traps).
func TestSweepFindsWhatAppearedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 500, reencrypt.KindEncrypt)
		connectortest.MustFinish(t, w)
		keys.Rotate()
		old := m.Get(7)
		m.BeforeCensus = func() error { m.Put(7, old); m.BeforeCensus = nil; return nil }
		c := connectortest.MustFinish(t, kinded(w, reencrypt.KindReencrypt))
		if m.Get(7) == old || c.Changed != 501 || c.Rows != 500 {
			t.Errorf("counted %+v", c)
		}
		if opened(t, m, keys, 7) != plain(7) {
			t.Error("the row doesn't open")
		}
	})
}

// TestRotatedMeanwhile: what is current is asked anew for every chunk by whoever makes the Work; within one, values of a
// newer version than it knows are left alone.
func TestRotatedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 50, reencrypt.KindEncrypt)
		connectortest.MustFinish(t, w)
		keys.Rotate()
		second := fixed{keys, keys.Current()}
		w = kinded(w, reencrypt.KindReencrypt)
		keys.Rotate()
		connectortest.MustFinish(t, w) // all to version 3
		before := m.Get(1)
		w.Columns[0].Keys = second // a node that hasn't heard of it yet
		var r connectortest.Run
		s := r.State
		if _, err := w.Advance(t.Context(), &s, time.Now().Add(time.Second), r.Save); err != nil {
			t.Fatal(err)
		}
		if m.Get(1) != before || s.Counts.Changed != 0 || len(r.Failed) != 0 {
			t.Errorf("a value went back to an older version, or was called unreadable: %+v", r.Failed)
		}
	})
}

// TestMovedByVersion: a run says from which versions it moved rows. Where the application keeps a row of a part in which several
// stood, each may be short by it, and none is too high.
func TestMovedByVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 25, reencrypt.KindEncrypt) // pages of ten: 1 to 10, 11 to 20, 21 to 25
		connectortest.MustFinish(t, w)
		keys.Rotate()
		for id := 16; id <= 25; id++ {
			m.Put(int64(id), plain(id))
		}
		connectortest.MustFinish(t, w)
		keys.Rotate()
		var once sync.Once
		m.BeforeSwap = func(int) error {
			once.Do(func() { m.Put(3, "theirs"); m.Put(12, "theirs") })
			return nil
		}
		var r connectortest.Run
		if err := r.Finish(t.Context(), kinded(w, reencrypt.KindReencrypt)); err != nil {
			t.Fatal(err)
		}
		want := map[reencrypt.VersionOf]int64{{Key: keys.ID(), Version: 1}: 9 + 4, {Key: keys.ID(), Version: 2}: 4 + 5}
		if c := r.State.Counts; !maps.Equal(r.Moved, want) || c.Changed != 23 || c.Conflicts != 2 {
			t.Errorf("moved %v, want %v; %+v", r.Moved, want, c)
		}
	})
}

// TestApplicationKeepsWritingOldValues: passes are repeated, further and further apart, for an hour; then the run says what
// to do.
func TestApplicationKeepsWritingOldValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 50, reencrypt.KindEncrypt)
		connectortest.MustFinish(t, w)
		keys.Rotate()
		old := m.Get(9)
		m.BeforeCensus = func() error { m.Put(9, old); return nil }
		begun := time.Now()
		var r connectortest.Run
		err := r.Finish(t.Context(), kinded(w, reencrypt.KindReencrypt))
		if fault.CodeOf(err) != api.CodeConflict || fault.NextOf(err) == "" || r.State.Left != 1 {
			t.Errorf("%+v, %v", r.State, err)
		}
		if took := time.Since(begun); took < time.Hour || took > time.Hour+time.Minute {
			t.Errorf("it gave up after %v", took)
		}
		if r.State.Pass < 100 || r.State.Pass > 200 {
			t.Errorf("it made %d passes", r.State.Pass)
		}
	})
}

// TestRowsHeldForLong: a row that somebody holds doesn't hold up the others, and is done once it is free.
func TestRowsHeldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 500, reencrypt.KindEncrypt)
		m.Held = map[int64]bool{250: true}
		time.AfterFunc(5*time.Minute, func() { m.Release(250) })
		c := connectortest.MustFinish(t, w)
		if c.Changed != 500 || c.Conflicts < 3 || opened(t, m, keys, 250) != plain(250) {
			t.Errorf("counted %+v", c)
		}
	})
}

// TestRefusedRowsAndRetry: refused rows end on the list; the run fails, saying how many, and a retry does them without
// another walk through the table.
func TestRefusedRowsAndRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 500, reencrypt.KindEncrypt)
		m.Refused = map[int64]bool{30: true, 400: true}
		var r connectortest.Run
		err := r.Finish(t.Context(), w)
		if fault.CodeOf(err) != api.CodeIntegrity || len(r.Failed) != 2 || r.State.Counts.Changed != 498 || r.State.Left != 2 {
			t.Fatalf("%+v, %+v, %v", r.State, r.Failed, err)
		}
		list := []reencrypt.Key{r.Failed[0].Key, r.Failed[1].Key}
		delete(m.Refused, 30)
		var reads atomic.Int64
		m.BeforeRead = func() error { reads.Add(1); return nil }

		again := connectortest.Run{}
		if err := w.Retry(t.Context(), &again.State, list, again.Save); err != nil {
			t.Fatal(err)
		}
		err = again.Finish(t.Context(), w)
		if fault.CodeOf(err) != api.CodeIntegrity || len(again.Failed) != 1 || again.Failed[0].Item != "400" || again.State.Counts.Changed != 1 {
			t.Fatalf("the first retry: %+v, %+v, %v", again.State, again.Failed, err)
		}
		delete(m.Refused, 400)
		again = connectortest.Run{}
		if err := w.Retry(t.Context(), &again.State, list, again.Save); err != nil {
			t.Fatal(err)
		}
		if err := again.Finish(t.Context(), w); err != nil || again.State.Counts.Changed != 1 || opened(t, m, keys, 400) != plain(400) {
			t.Errorf("the second retry: %+v, %v", again.State, err)
		}
		if reads.Load() != 0 {
			t.Error("a retry walked through the table")
		}
	})
}

// TestStuckIsNotConflicted: as many values are left as got stuck in the pass, but they are others: one that was held, not the
// one that was refused and that the application has mended since.
func TestStuckIsNotConflicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 100, reencrypt.KindEncrypt)
		m.Refused, m.Held = map[int64]bool{20: true}, map[int64]bool{40: true}
		m.BeforeFlush = func() error {
			connectortest.MustFinish(t, oneRow(t, m, w, 20))
			m.Release(40)
			m.BeforeFlush = nil
			return nil
		}
		if c := connectortest.MustFinish(t, w); c.Failed != 1 || opened(t, m, keys, 40) != plain(40) {
			t.Errorf("counted %+v", c)
		}
	})
}

// oneRow encrypts a row of m as an application would, and answers a run with nothing left to do.
func oneRow(tb testing.TB, m *connectortest.Memory, w reencrypt.Work, id int64) reencrypt.Work {
	tb.Helper()
	other := &connectortest.Memory{}
	other.Put(id, m.Get(id))
	w.Target = other
	connectortest.MustFinish(tb, w)
	m.Put(id, other.Get(id))
	return w
}

// TestRetryOfManyRefusedRows: a list says nothing about the table, however many of its rows are refused again.
func TestRetryOfManyRefusedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, w := memory(t, 1000, reencrypt.KindEncrypt)
		m.Refused = map[int64]bool{}
		for id := int64(301); id <= 600; id++ {
			m.Refused[id] = true
		}
		var r, again connectortest.Run
		if err := r.Finish(t.Context(), w); fault.CodeOf(err) != api.CodeIntegrity || len(r.Failed) != 300 {
			t.Fatalf("%d failures, %v", len(r.Failed), err)
		}
		var list []reencrypt.Key
		for _, f := range r.Failed {
			list = append(list, f.Key)
		}
		if err := w.Retry(t.Context(), &again.State, list, again.Save); err != nil {
			t.Fatal(err)
		}
		if err := again.Finish(t.Context(), w); fault.CodeOf(err) != api.CodeIntegrity || len(again.Failed) != 300 {
			t.Errorf("the retry: %d failures, %v", len(again.Failed), err)
		}
	})
}

// TestTooManyFailures: a list of ten thousand failures isn't about single rows any more.
func TestTooManyFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, reencrypt.MaxFailed+500, reencrypt.KindEncrypt)
		w.Batch = 100
		connectortest.MustFinish(t, w)
		keys.Rotate()
		keys.Destroy(1)
		var r connectortest.Run
		err := r.Finish(t.Context(), kinded(w, reencrypt.KindReencrypt))
		if fault.CodeOf(err) != api.CodeLimit || len(r.Failed) <= reencrypt.MaxFailed {
			t.Errorf("%d failures, %v", len(r.Failed), err)
		}
		if m.Written(1) != 1 {
			t.Error("a row was written that doesn't open")
		}
	})
}

// TestLimitOfKey: when the key's own limit is reached, what was sealed beyond it is not written.
func TestLimitOfKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 500, reencrypt.KindEncrypt)
		l := &limited{KeySet: keys, left: 205}
		w.Columns[0].Keys = l
		var r connectortest.Run
		if err := r.Finish(t.Context(), w); fault.CodeOf(err) != api.CodeLimit {
			t.Fatalf("beyond the limit: %v", err)
		}
		written := 0
		for id := int64(1); id <= 500; id++ {
			written += m.Written(id)
		}
		if written > 205 {
			t.Errorf("%d rows were written under a version that may protect 205", written)
		}
	})
}

// TestStateSurvivesJSON: a state is stored with the job between two chunks.
func TestStateSurvivesJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, w := memory(t, 3000, reencrypt.KindEncrypt)
		m.BeforeSwap = func(int) error { <-time.After(time.Second); return nil }
		var s reencrypt.State
		keep := func(context.Context, *reencrypt.State, *reencrypt.Progress) error { return nil }
		chunks := 0
		for done := false; !done; chunks++ {
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			s = reencrypt.State{}
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(err)
			}
			if done, err = w.Advance(t.Context(), &s, time.Now().Add(20*time.Second), keep); err != nil {
				t.Fatal(err)
			}
		}
		if s.Counts.Changed != 3000 || chunks < 5 {
			t.Errorf("after %d chunks: %+v", chunks, s)
		}
	})
}

// fixed are keys of which one version is current, whatever was rotated since.
type fixed struct {
	*connectortest.KeySet
	current *envelope.Key
}

func (f fixed) Current() *envelope.Key { return f.current }

// limited are keys that may seal so many values.
type limited struct {
	*connectortest.KeySet
	left uint64
}

func (l *limited) Spend(_ context.Context, operations, _ uint64) error {
	if operations > l.left {
		return fault.New(api.CodeLimit, "the version's limit is reached")
	}
	l.left -= operations
	return nil
}
