package rotation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// checkHandler looks for what is due and what will be soon.
type checkHandler struct{ s *Service }

// Kind is "rotation-check".
func (checkHandler) Kind() string { return KindCheck }

// found is what one check saw.
type found struct {
	keys, due uint64
	soon      []soonKey // at most mostAlerts of them, by name
	soonCount uint64
	next      time.Time // when the next key falls due that isn't due now
}

type soonKey struct {
	name    string
	version uint32
	due     time.Time
	used    bool // due by what it protected, not by its age
}

// why says what is coming.
func (k soonKey) why() string {
	if k.used {
		return "it has used three quarters of its operations or bytes, and will be rotated at nine tenths"
	}
	return "it will be rotated at " + k.due.UTC().Format(time.RFC3339)
}

// mostAlerts is how many keys that are due soon get an alert of their own; of more there is one with their number.
const mostAlerts = 20

// Run is one chunk, however many keys there are: one walk over the active versions. The event, the job that rotates what is
// due and the time of the next check are one transaction. Interrupted before it, nothing happened, and the check is
// repeated.
func (h checkHandler) Run(ctx context.Context, run *runner.Run) error {
	f, err := h.s.look(ctx)
	if err != nil {
		return err
	}
	w, err := h.s.warn(ctx, f)
	if err != nil {
		return err
	}
	text, err := marshal(w)
	if err != nil {
		return err
	}
	in := gate.Intent{Action: access.KeyRead, Type: audit.KeyRotation, Verb: "rotation_checked", Resource: keyResource("")}
	return h.s.cfg.Gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Items, ev.Details.Count, ev.Details.Job, ev.Details.Source = f.keys, f.due, run.Job.ID, kms.SourceScheduler
		if err := tx.SetMeta(ctx, metaWarned, string(text)); err != nil {
			return err
		}
		if !f.next.IsZero() {
			if err := tx.BringForward(ctx, jobs.RotationCheck, f.next); err != nil {
				return err
			}
		}
		if f.due == 0 {
			return nil
		}
		_, err := h.s.enqueueRun(ctx, tx, runArgs{Reason: reasonScheduled}, "system")
		return err
	})
}

// look walks over every active version.
func (s *Service) look(ctx context.Context) (f found, err error) {
	rules, err := s.cfg.Keys.Rules(ctx)
	if err != nil {
		return f, err
	}
	now := s.cfg.Clock()
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		f = found{}
		return tx.EachActive(ctx, func(v *keys.ActiveVersion) error {
			times, _ := rules.TimesOf(v)
			f.keys++
			switch {
			case times.ToRotate(now):
				f.due++
				return nil
			case times.DueSoon(now):
				if f.soonCount++; len(f.soon) < mostAlerts {
					f.soon = append(f.soon, soonKey{v.Key, v.Number, times.Due, !times.SoonByAge(now)})
				}
			}
			if !times.Due.IsZero() && (f.next.IsZero() || times.Due.Before(f.next)) {
				f.next = times.Due
			}
			return nil
		})
	})
	slices.SortFunc(f.soon, func(a, b soonKey) int { return strings.Compare(a.name, b.name) })
	return f, err
}

// warned is when an alert was last recorded for a version that is due soon, by its key and number, or for their sum. It is kept
// in the store's settings, so that all nodes and restarts know of it.
type warned map[string]time.Time

const (
	metaWarned = "rotation_warned"
	warnEvery  = 24 * time.Hour
	warnedSum  = "*" // no key's name
)

// due says whether it is time for an alert, and notes that there is one.
func (w warned) due(name string, now time.Time) bool {
	if at, ok := w[name]; ok && !at.After(now) && now.Sub(at) < warnEvery {
		return false
	}
	w[name] = now
	return true
}

// warn records an alert for what is due soon, once a day for each version. What it returns is to be stored; killed before
// that, the alerts are recorded once more.
func (s *Service) warn(ctx context.Context, f found) (warned, error) {
	now := s.cfg.Clock().UTC().Truncate(time.Second)
	w := warned{}
	err := s.cfg.Store.View(ctx, func(tx store.Tx) error {
		w = warned{}
		text, err := tx.Meta(ctx, metaWarned)
		if err != nil || json.Unmarshal([]byte(text), &w) != nil || w == nil {
			w = warned{} // never written, or by nobody of ours: then there is an alert too many
		}
		if fault.CodeOf(err) == api.CodeNotFound {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for name, at := range w {
		if now.Sub(at) >= warnEvery {
			delete(w, name)
		}
	}
	if f.soonCount > mostAlerts {
		if !w.due(warnedSum, now) {
			return w, nil
		}
		return w, s.cfg.Keys.Alert(ctx, kms.Warning{Name: "rotation_due_soon", Resource: keyResource(""), Count: f.soonCount,
			Reason: "keyturn rotation status lists the keys"})
	}
	for _, k := range f.soon {
		if !w.due(fmt.Sprintf("%s/%d", k.name, k.version), now) {
			continue
		}
		err := s.cfg.Keys.Alert(ctx, kms.Warning{Name: "rotation_due_soon", Resource: keyResource(k.name), Version: k.version,
			Reason: k.why()})
		if err != nil {
			return w, err
		}
	}
	return w, nil
}
