package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// metaClock is the setting that holds a clockState. It carries no MAC: see SECURITY.md.
const metaClock = "clock"

// clockState is what the store remembers of time, see docs/decisions/0017-clocks.md. Times are microseconds since 1970.
type clockState struct {
	// Seen is the latest time of the clock that all nodes share: the database's where there is one, else the machine's.
	Seen int64 `json:"seen"`
	// Watched is for how long, in microseconds, some node is known to have run. It never grows by more than real time.
	Watched int64 `json:"watched"`
	// Scheduled grows with every destruction that is scheduled. What a node measured from before counts no more then.
	Scheduled int64 `json:"scheduled"`
	// Accepted grows when somebody says that the clock is right although it stands before Seen. Events up to Distrusted were
	// dated by a clock that was wrong.
	Accepted   int64 `json:"accepted,omitempty"`
	Distrusted int64 `json:"distrusted,omitempty"`
	// Back names the nodes whose clock stands before what was seen and who said so already.
	Back []string `json:"back,omitempty"`
}

func readClock(ctx context.Context, tx store.Tx) (state clockState, err error) {
	text, err := tx.Meta(ctx, metaClock)
	if fault.CodeOf(err) == api.CodeNotFound {
		return state, nil
	}
	if err == nil && json.Unmarshal([]byte(text), &state) != nil {
		err = fault.New(api.CodeIntegrity, "reading the store's time: the setting is not what keyturn wrote").
			WithNext("find out who writes to the database; the setting clock in the table meta may be removed, scheduled destructions then wait anew")
	}
	return state, err
}

func writeClock(ctx context.Context, tx store.Tx, state clockState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "writing the store's time")
	}
	return tx.SetMeta(ctx, metaClock, string(text))
}

// SeenTime is the latest time that was seen on a store before this process: no time before it is to be believed. Where the
// machine has the only clock that is what the audit log's newest event says too, which nobody can change unnoticed; where
// nodes share a database theirs may differ by minutes, and the database's counts.
func SeenTime(ctx context.Context, st store.Store) (seen time.Time, err error) {
	err = st.View(ctx, func(tx store.Tx) error {
		state, err := readClock(ctx, tx)
		if err != nil {
			return err
		}
		seen = time.UnixMicro(state.Seen)
		if st.Dialect() != store.SQLite && state.Seen > 0 {
			return nil
		}
		newest, err := newestEvent(ctx, tx)
		if newest.After(seen) && newest.UnixMicro() > state.Distrusted {
			seen = newest
		}
		return err
	})
	return seen, err
}

// newestEvent is the latest time at the end of a shard of the audit log.
func newestEvent(ctx context.Context, tx store.Tx) (newest time.Time, err error) {
	err = eachLastSegment(ctx, tx, func(_ audit.Head, last *audit.Segment) error {
		if last.LastTime.After(newest) {
			newest = last.LastTime
		}
		return nil
	})
	return newest, err
}

// watch measures for how long keyturn has run. A node that saw the store's Watched at some moment knows that since then as
// much time has passed as its own clock since boot says, and writes the sum if the store doesn't say more already. So
// however many nodes run, however often they start and whatever is done to their clocks, Watched is never ahead of real
// time; it stands still while no node runs.
type watch struct {
	mu   sync.Mutex // guards what follows
	from clockState // as it was seen
	at   time.Duration
	seen bool // whether it was
}

// claim is what Watched may be raised to now, given what the store says.
func (w *watch) claim(state clockState, now time.Duration) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Whatever was measured from before a destruction was scheduled could count time from before that.
	if !w.seen || w.from.Scheduled != state.Scheduled || now < w.at {
		return state.Watched
	}
	return max(state.Watched, w.from.Watched+(now-w.at).Microseconds())
}

// saw is called after a commit, with what it wrote and the present moment.
func (w *watch) saw(state clockState, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from, w.at, w.seen = state, now, true
}

// accepted is how often somebody had accepted the clock when this node looked last; false when it hasn't yet.
func (w *watch) accepted() (int64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.from.Accepted, w.seen
}

// clocks are the clocks as they stand against what was seen of them.
type clocks struct {
	state    clockState
	shared   time.Time     // the clock that all nodes share, as it is
	own      time.Duration // how far this machine's clock stands behind what was seen
	database time.Duration // how far the database's does; 0 where there is none
}

// databaseBack is how Back names the database's clock: no node has a slash in its name.
const databaseBack = "/database"

// calm is how far behind a clock may stand to be called right again.
const calm = clock.Slack / 2

// WatchClock looks at the clocks, remembers what it saw, and records an alert when one of them was set back: once, however
// long that lasts and how many operations there are. A server calls it every minute. What it writes is one small setting.
func (s *Service) WatchClock(ctx context.Context) error {
	_, err := s.watchClock(ctx)
	return err
}

func (s *Service) watchClock(ctx context.Context) (clocks, error) {
	var now clocks
	err := s.st.Change(ctx, func(tx store.Tx) (err error) {
		if now, err = s.look(ctx, tx); err == nil {
			err = writeClock(ctx, tx, now.state)
		}
		return err
	})
	if err != nil {
		return now, fault.Wrap("", err, "looking at the clock")
	}
	s.watched.saw(now.state, s.time.Elapsed())
	for _, b := range []struct {
		name, whose string
		by          time.Duration
	}{{s.cfg.Node, "the clock of " + s.cfg.Node, now.own}, {databaseBack, "the database's clock", now.database}} {
		if back := slices.Contains(now.state.Back, b.name); back == (b.by > calm) || !back && b.by <= clock.Slack {
			continue
		}
		if err := s.note(ctx, &now, b.name, b.whose, b.by); err != nil {
			return now, err
		}
	}
	return now, nil
}

// look reads what is remembered and compares, in a transaction. A time that was seen counts here from then on.
func (s *Service) look(ctx context.Context, tx store.Tx) (now clocks, err error) {
	if now.state, err = readClock(ctx, tx); err != nil {
		return now, err
	}
	own := s.time.Now()
	if accepted, seen := s.watched.accepted(); seen && accepted != now.state.Accepted {
		s.time.Reset(time.UnixMicro(now.state.Seen)) // on another node
		own = s.time.Now()
	}
	if now.shared, err = tx.Now(ctx, own); err != nil {
		return now, err
	}
	if s.st.Dialect() != store.SQLite {
		now.database = max(0, time.UnixMicro(now.state.Seen).Sub(now.shared))
		if now.database > clock.Slack && s.time.Behind() > 0 { // both were set back, and what we say meanwhile was said
			now.state.Seen = max(now.state.Seen, own.UnixMicro())
		}
	}
	now.state.Seen = max(now.state.Seen, now.shared.UnixMicro())
	now.state.Watched = s.watched.claim(now.state, s.time.Elapsed())
	s.time.Raise(time.UnixMicro(now.state.Seen))
	now.own = s.time.Behind()
	return now, nil
}

// note writes down that a clock stands behind, with the alert and in one transaction, or that it is right again.
func (s *Service) note(ctx context.Context, now *clocks, name, whose string, by time.Duration) error {
	change := func(ctx context.Context, tx store.Tx) error {
		state, err := readClock(ctx, tx)
		if err != nil {
			return err
		}
		state.Back = slices.DeleteFunc(state.Back, func(n string) bool { return n == name })
		if by > clock.Slack {
			state.Back = append(state.Back, name)
		}
		now.state.Back = state.Back
		return writeClock(ctx, tx, state)
	}
	if by <= clock.Slack {
		return s.st.Change(ctx, func(tx store.Tx) error { return change(ctx, tx) })
	}
	in := gate.Intent{
		Action: access.SystemRead, Type: audit.Alert, Verb: AlertRollback, Resource: access.Resource{Kind: access.KindSystem},
		Reason: fmt.Sprintf("%s stands %s before the latest time that was seen: nothing expired is valid again, and nothing is destroyed", whose, by.Round(time.Second)),
	}
	return s.gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Source = SystemName
		return change(ctx, tx)
	})
}

// AlertRollback is the action of the alert that a clock was set back.
const AlertRollback = "clock.rollback"

// setRight is the next step while a clock stands behind.
const setRight = "set the clock right; if it is right, and was ahead before, say so: keyturn serve --accept-clock REASON"

// backwards is why nothing is destroyed while a clock stands behind; nil while none does.
func (now clocks) backwards() error {
	switch {
	case now.own > clock.Slack:
		return fault.Newf(api.CodeUnavailable, "this machine's clock stands %s before the latest time that was seen: nothing is destroyed", now.own.Round(time.Second)).WithNext(setRight)
	case now.database > clock.Slack:
		return fault.Newf(api.CodeUnavailable, "the database's clock stands %s before the latest time that was seen: nothing is destroyed", now.database.Round(time.Second)).WithNext(setRight)
	}
	return nil
}

// AcceptClock believes the clocks as they are although a later time was seen: it was a wrong one. What expired by that time
// alone is valid again. The reason is recorded. It does nothing when no clock stands behind.
func (s *Service) AcceptClock(ctx context.Context, reason string) error {
	now, err := s.watchClock(ctx)
	if err != nil || now.backwards() == nil {
		return err
	}
	in := gate.Intent{
		Action: access.SystemRead, Type: audit.ConfigWrite, Verb: "clock_accepted", Resource: access.Resource{Kind: access.KindSystem},
		Reason: fmt.Sprintf("a time %s ahead was seen, and was wrong: %s", max(now.own, now.database).Round(time.Second), reason),
	}
	err = s.gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, _ *audit.Event) error {
		state, err := readClock(ctx, tx)
		if err != nil {
			return err
		}
		newest, err := newestEvent(ctx, tx)
		if err != nil {
			return err
		}
		shared, err := tx.Now(ctx, s.time.Wall())
		if err != nil {
			return err
		}
		state.Distrusted = max(state.Seen, newest.UnixMicro(), s.time.Now().UnixMicro())
		state.Seen, state.Accepted, state.Back = shared.UnixMicro(), state.Accepted+1, nil
		now.state = state
		if err := bringJobsBack(ctx, tx, shared); err != nil {
			return err
		}
		return writeClock(ctx, tx, state)
	})
	if err != nil {
		return fault.Wrap("", err, "accepting the clock")
	}
	s.time.Reset(time.UnixMicro(now.state.Seen))
	s.watched.saw(now.state, s.time.Elapsed())
	return nil
}

// bringJobsBack has jobs go on now whose next attempt or lease was dated by a clock that was ahead: no job waits, and no owner is
// believed alive, for that long. An owner that lives loses its chunk, and the job goes on from where it was saved.
func bringJobsBack(ctx context.Context, tx store.Tx, now time.Time) error {
	list, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running}, Limit: jobs.MaxLimit})
	if err != nil {
		return err
	}
	for _, j := range list {
		waits, leased := j.NextAttempt.Sub(now) > 24*time.Hour, j.LeaseUntil.Sub(now) > time.Hour
		if waits {
			j.NextAttempt = now
		}
		if leased {
			j.LeaseUntil = now
		}
		if waits || leased {
			if _, err := tx.Save(ctx, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// metaWait names the setting that says at which Watched a version may be destroyed.
func metaWait(id envelope.KeyID, n uint32) string {
	return "destroy/" + id.String() + "/" + strconv.FormatUint(uint64(n), 10)
}

// beginWaits writes down, with the destructions that are scheduled, for how long keyturn must have run before they happen.
// It returns what to hand to s.watched.saw after the commit, or nil.
func (s *Service) beginWaits(ctx context.Context, tx store.Tx, k keys.Key, moves []keys.Transition) (*clockState, error) {
	var state *clockState
	for _, m := range moves {
		if m.To != keys.DestroyScheduled {
			continue
		}
		v, _ := k.Version(m.Version)
		now, err := s.look(ctx, tx)
		if err == nil {
			state, now.state.Scheduled = &now.state, now.state.Scheduled+1
			err = writeClock(ctx, tx, now.state)
		}
		if err == nil {
			err = tx.SetMeta(ctx, metaWait(k.ID, m.Version), strconv.FormatInt(now.state.Watched+v.DestroyAt.Sub(m.At).Microseconds(), 10))
		}
		if err != nil {
			return nil, err
		}
	}
	return state, nil
}

// shortestWait is the shortest waiting time that there is.
const shortestWait = keys.MinWaitDays * 24 * time.Hour

// unwatched is what waitsFor answers where nothing is written down.
const unwatched = time.Duration(math.MaxInt64)

// waitsFor is for how long keyturn must still run before a version may be destroyed; 0 when it may.
func waitsFor(ctx context.Context, tx store.Tx, id envelope.KeyID, n uint32, watched int64) (time.Duration, error) {
	text, err := tx.Meta(ctx, metaWait(id, n))
	if fault.CodeOf(err) == api.CodeNotFound {
		return unwatched, nil
	}
	if err != nil {
		return 0, err
	}
	until, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fault.Newf(api.CodeIntegrity, "reading when version %d of a key may be destroyed: the setting is not what keyturn wrote", n).
			WithNext("find out who writes to the database; then undestroy the version and destroy it anew")
	}
	return time.Duration(max(0, until-watched)) * time.Microsecond, nil
}
