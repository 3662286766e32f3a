package rotation

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/gate"
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
	if err := h.s.warn(ctx, f); err != nil {
		return err
	}
	in := gate.Intent{Action: access.KeyRead, Type: audit.KeyRotation, Verb: "rotation_checked", Resource: keyResource("")}
	return h.s.cfg.Gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Items, ev.Details.Count, ev.Details.Job, ev.Details.Source = f.keys, f.due, run.Job.ID, kms.SourceScheduler
		if !f.next.IsZero() {
			if err := tx.BringForward(ctx, kms.ScheduleRotationCheck, f.next); err != nil {
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
			case times.Overdue(now):
				f.due++
				return nil
			case times.DueSoon(now):
				if f.soonCount++; len(f.soon) < mostAlerts {
					f.soon = append(f.soon, soonKey{v.Key, v.Number, times.Due})
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

// warn records an alert for what is due soon, each time that it is looked at.
func (s *Service) warn(ctx context.Context, f found) error {
	if f.soonCount > mostAlerts {
		return s.cfg.Keys.Alert(ctx, kms.Warning{Name: "rotation_due_soon", Resource: keyResource(""), Count: f.soonCount,
			Reason: "keyturn rotation status lists the keys"})
	}
	for _, k := range f.soon {
		err := s.cfg.Keys.Alert(ctx, kms.Warning{Name: "rotation_due_soon", Resource: keyResource(k.name), Version: k.version,
			Reason: "it will be rotated at " + k.due.UTC().Format(time.RFC3339)})
		if err != nil {
			return err
		}
	}
	return nil
}
