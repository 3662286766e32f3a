package connectortest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Torture is row 13 of the faults that keyturn is held against: a table is encrypted, its key rotated, and the table
// re-encrypted, while an application writes as fast as it can, puts stale values back, inserts and deletes; and every run is
// abandoned over and over at random moments, its connections cut, and taken up again from what was saved. In the end no
// value stands under an old version, none is in clear, and each is what the application last wrote (promises P5 and P6).
func Torture(t *testing.T, h Harness, rows int) {
	app := h.Fresh(t)
	db, err := h.Driver.Open(t.Context(), reencrypt.NewDSN(app.URL), reencrypt.Session{})
	if err != nil {
		t.Fatalf("opening the database: %v", err)
	}
	defer db.Close()
	const seed = 4711
	o := &ordeal{T: t, app: app, db: db, random: rand.New(rand.NewPCG(seed, 0)), w: StartWriters(t, app, h.Text, rows, 4, seed)}

	o.w.Set(true, true)
	encrypted := o.endure(reencrypt.KindEncrypt, func() { o.w.Set(false, false) })
	o.w.Keys.Rotate()
	o.w.Set(false, true)
	moved := o.endure(reencrypt.KindReencrypt, func() { o.w.Set(false, false) })

	writes := o.w.Wait()
	if versions := o.w.Check(app); len(versions) != 1 || versions[2] == 0 {
		t.Errorf("in the end the values stand under the versions %v, where all should be under 2", versions)
	}
	verify := MustFinish(t, Work(t, db, "notes", map[string]*KeySet{"note": o.w.Keys}, reencrypt.KindVerify))
	if verify.Opened != verify.Rows {
		t.Errorf("of %d values, %d open", verify.Rows, verify.Opened)
	}
	t.Logf("seed %d: %d rows, %d writes of the application, %d abandoned runs, %d cuts; encrypt %+v; re-encrypt %+v; 0 lost, 0 left",
		seed, rows, writes, o.abandoned, o.cuts, encrypted, moved)
	if o.abandoned < maxAbandoned {
		t.Errorf("only %d runs were abandoned in the middle of their work", o.abandoned)
	}
	if encrypted.Conflicts+moved.Conflicts == 0 {
		t.Error("there was no conflict at all: the test has not tested what it is for")
	}
}

// maxAbandoned is how often a run is abandoned in the middle of its work before it may end.
const maxAbandoned = 8

// ordeal is one torture.
type ordeal struct {
	*testing.T
	app             Database
	db              reencrypt.Database
	random          *rand.Rand
	w               *Writers
	abandoned, cuts int
}

// quitter is a target whose writers say so when they are about to write a page.
type quitter struct {
	reencrypt.Target
	writes func()
}

type quittersWriter struct {
	reencrypt.Writer
	writes func()
}

func (q quitter) Writer(ctx context.Context) (reencrypt.Writer, error) {
	w, err := q.Target.Writer(ctx)
	return quittersWriter{w, q.writes}, err
}

func (w quittersWriter) Swap(ctx context.Context, b *reencrypt.Batch, from, to int) (int, error) {
	w.writes()
	return w.Writer.Swap(ctx, b, from, to)
}

// abandon makes w a run that is given up when it is about to write one of its first pages, or a moment later: what it is
// doing then is anybody's guess.
func (o *ordeal) abandon(w *reencrypt.Work, giveUp func()) {
	var pages atomic.Int64
	last, moment := 1+o.random.Int64N(2), time.Duration(o.random.IntN(3))*time.Millisecond
	w.Target = quitter{w.Target, func() {
		switch {
		case pages.Add(1) != last:
		case moment == 0:
			giveUp()
		default:
			time.AfterFunc(moment, giveUp)
		}
	}}
}

// endure finishes a run that is abandoned over and over. calm is called once the first walk through the table is over: from
// then on nothing appears any more that this run would have to do, and it must end.
func (o *ordeal) endure(kind reencrypt.Kind, calm func()) reencrypt.Counts {
	o.Helper()
	var r Run
	calmed, before := false, int64(0) // before: conflicts of a run that ended too early
	for attempt, abandoned := 0, 0; ; attempt++ {
		if !calmed && r.State.Pass > 1 {
			calm()
			calmed = true
		}
		w := Work(o, o.db, "notes", map[string]*KeySet{"note": o.w.Keys}, kind)
		w.Batch, w.Workers = 50+o.random.IntN(200), 1+o.random.IntN(4)
		ctx, cancel := context.WithCancel(o.Context())
		if abandoned < maxAbandoned {
			o.abandon(&w, cancel)
		}
		uncut := o.cutSoon()
		s := r.State
		done, err := w.Advance(ctx, &s, time.Now().Add(3*time.Second), r.Save) // not done by then: the next attempt goes on
		gaveUp := ctx.Err() != nil
		cancel()
		uncut()
		switch {
		case done && err == nil && !calmed:
			// It ended in its first walk, with a count that found nothing; what the application puts back after that count is
			// for another run.
			calm()
			calmed, before, r.State = true, before+r.State.Counts.Conflicts, reencrypt.State{}
		case done && err == nil:
			r.State.Counts.Conflicts += before
			return r.State.Counts
		case errors.Is(err, context.Canceled), fault.CodeOf(err) == api.CodeUnavailable, fault.CodeOf(err) == api.CodeBusy:
			if gaveUp { // otherwise a cut ended it
				abandoned++
				o.abandoned++
			}
		case err != nil:
			o.Fatalf("%s, attempt %d: %v (failed: %+v)", kind, attempt, err, r.Failed)
		}
	}
}

// cutSoon cuts the run's connections in a moment, every second time. The answer takes that back, or waits for it.
func (o *ordeal) cutSoon() (uncut func()) {
	if o.app.Cut == nil || o.random.IntN(2) == 0 {
		return func() {}
	}
	over := make(chan struct{})
	timer := time.AfterFunc(time.Duration(o.random.IntN(60))*time.Millisecond, func() { o.app.Cut(o); close(over) })
	return func() {
		if !timer.Stop() {
			<-over
			o.cuts++
		}
	}
}
