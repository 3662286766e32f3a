package reencrypt

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// State is where a run stands: all that is kept between two chunks of it, or across a crash. The zero State is a run that
// hasn't begun.
type State struct {
	Pass   int    `json:"pass"`             // walks through the table so far, this one included
	Cursor Key    `json:"cursor,omitempty"` // everything up to it is done in this pass
	Sweep  bool   `json:"sweep,omitempty"`  // the pass has seen the last row; what follows is flush and count
	Counts Counts `json:"counts"`           // of the whole run
	This   Counts `json:"this"`             // of this pass
	Left   int64  `json:"left"`             // values that the last count of the whole table found still to be done

	NotBefore time.Time `json:"notBefore,omitzero"` // of the next pass
	GiveUp    time.Time `json:"giveUp,omitzero"`    // when to stop hoping that the application stops writing old values
}

// Save keeps a state, with the failures of p and what it moved (nil between two passes). Its error ends the chunk.
type Save func(ctx context.Context, s *State, p *Progress) error

// How a run ends that doesn't find the table done.
const (
	// MaxFailed is how many values may fail in one pass before the run stops: by then it isn't about single rows.
	MaxFailed = 10000
	// patience is how long passes are repeated because values of the wrong kind keep appearing. An application that has a
	// data key cached goes on writing under the old version until it expires.
	patience = time.Hour
	// eagerPasses follow one another at once; later ones wait, up to maxWait.
	eagerPasses = 3
	maxWait     = 30 * time.Second
	// maxStalls is how many times in a row the database may break off without any progress in between.
	maxStalls = 3
	stallWait = 250 * time.Millisecond
)

// Advance works on a run until it is done, until about the given time, or until it fails; s is always where it stands, as
// it was saved last. done means: the whole table was flushed and counted, and nothing is left to do (for verify and for a
// dry run: every row was looked at). Errors: limit when rows fail in numbers; integrity when values don't open that were
// to be opened; conflict when the application keeps writing old values; unavailable when the database is gone.
func (w Work) Advance(ctx context.Context, s *State, until time.Time, save Save) (done bool, err error) {
	if s.Pass == 0 {
		s.Pass = 1
	}
	for stalls := 0; ; {
		before := *s
		done, err := w.step(ctx, s, until, save)
		switch {
		case done:
			return true, err
		case err == nil && !time.Now().Before(until):
			return false, nil
		case err == nil:
			stalls = 0
		case ctx.Err() != nil || fault.CodeOf(err) != api.CodeUnavailable && fault.CodeOf(err) != api.CodeBusy:
			return false, err
		default:
			if stalls++; before.This != s.This || before.Sweep != s.Sweep {
				stalls = 1 // it broke off, but something was done first
			}
			if stalls > maxStalls || !time.Now().Before(until) {
				return false, err
			}
			if err := waitFor(ctx, time.Duration(stalls)*stallWait); err != nil {
				return false, err
			}
		}
	}
}

// step does one pass, or what is left of it by until, or what follows one.
func (w Work) step(ctx context.Context, s *State, until time.Time, save Save) (done bool, err error) {
	if !s.Sweep {
		return false, w.walk(ctx, s, until, save)
	}
	if w.DryRun || w.Kind == KindVerify {
		return true, w.verdictOf(s)
	}
	if err := w.Target.Flush(ctx); err != nil {
		return false, err
	}
	left, err := w.countLeft(ctx)
	if err != nil {
		return false, err
	}
	if s.Left = left; left == 0 {
		return true, save(ctx, s, nil)
	}
	err = s.again(time.Now(), w)
	return false, errors.Join(err, save(ctx, s, nil))
}

// walk is a pass, or the part of it that there is time for.
func (w Work) walk(ctx context.Context, s *State, until time.Time, save Save) error {
	if wait := time.Until(s.NotBefore); wait > 0 {
		return waitFor(ctx, min(wait, max(0, time.Until(until))))
	}
	stop := make(chan struct{})
	timer := time.AfterFunc(time.Until(until), func() { close(stop) })
	defer timer.Stop()

	base := *s
	last, err := runPass(ctx, w, s.Cursor, stop, func(ctx context.Context, p *Progress) error {
		s.Counts, s.This = base.Counts, base.This
		s.Counts.add(p.Counts, s.Pass > 1)
		s.This.add(p.Counts, false)
		s.Counts.Failed, s.Counts.Stuck = max(s.Counts.Failed, s.This.Failed), max(s.Counts.Stuck, s.This.Stuck)
		s.Cursor, s.Sweep = p.Cursor, p.End
		if err := save(ctx, s, p); err != nil {
			return err
		}
		if s.This.Failed > MaxFailed {
			return fault.Newf(api.CodeLimit, "working on the dataset: more than %d values failed", MaxFailed).
				WithNext(w.hintForStuck())
		}
		return nil
	})
	if fault.CodeOf(err) == api.CodeInvalid && fault.FieldOf(err) == "cursor" && last.Cursor != nil {
		// The table's key was changed since the cursor was saved. Rows that are done are recognised anyway.
		s.Cursor = nil
		return nil
	}
	return err
}

// countLeft counts the whole table.
func (w Work) countLeft(ctx context.Context) (left int64, err error) {
	err = w.Target.Census(ctx, func(g Group) error {
		if w.Kind.remains(g, w.Columns[g.Column].Keys) {
			left += g.Rows
		}
		return nil
	})
	return left, err
}

// again prepares the next pass, or says why there is no point in one.
func (s *State) again(now time.Time, w Work) error {
	if s.GiveUp.IsZero() {
		s.GiveUp = now.Add(patience)
	}
	// Values that got stuck in this pass are still there, of course. Only what is left beyond them is work.
	if s.This.Conflicts == 0 && s.Left <= s.This.Stuck {
		return fault.Newf(api.CodeIntegrity, "working on the dataset: %d values are left that could not be done", s.Left).
			WithNext(w.hintForStuck())
	}
	if now.After(s.GiveUp) {
		return fault.Newf(api.CodeConflict, "working on the dataset: the application keeps writing values that this run should have done; %d are left", s.Left).
			WithNext(giveUpHints[w.Kind])
	}
	if s.Pass >= eagerPasses {
		s.NotBefore = now.Add(min(maxWait, time.Second<<min(s.Pass-eagerPasses, 10)))
	}
	s.Pass, s.Cursor, s.Sweep, s.This = s.Pass+1, nil, false, Counts{}
	return nil
}

var giveUpHints = map[Kind]string{
	KindEncrypt:   "have the application encrypt what it writes, then run the command again",
	KindReencrypt: "restart what still writes under an old version, or wait until its cached keys expire, then run the command again",
	KindDecrypt:   "have the application stop encrypting, then run the command again",
}

// verdictOf is how a run ends that only looked.
func (w Work) verdictOf(s *State) error {
	if w.Kind == KindVerify && s.Counts.Failed > 0 {
		return fault.Newf(api.CodeIntegrity, "verifying the dataset: %d values don't open", s.Counts.Failed).
			WithNext("keyturn job show lists them")
	}
	return nil
}

func waitFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
