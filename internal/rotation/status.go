package rotation

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Status lists the keys that the caller may see: those that used up what they may protect first, then overdue ones, the longest overdue before the others, then those that
// come next, then those that are rotated on demand only, and last those that have no active version.
func (s *Service) Status(ctx context.Context, c *access.Caller) (api.RotationStatus, error) {
	out := api.RotationStatus{Keys: []api.RotationKey{}}
	in := gate.Intent{Action: access.KeyRead, Type: audit.ConfigRead, Verb: "rotation_status", Resource: keyResource("")}
	err := s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		found, err := s.standing(ctx, func(v *keys.ActiveVersion, _ keys.Times) bool { return allowed(c, access.KeyRead, keyResource(v.Key)) })
		if err != nil {
			return err
		}
		var inactive []keys.ActiveVersion
		err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
			inactive, err = tx.InactiveKeys(ctx, true)
			return err
		})
		if err != nil {
			return err
		}
		for _, v := range inactive {
			if allowed(c, access.KeyRead, keyResource(v.Key)) {
				found = append(found, api.RotationKey{Name: v.Key, Purpose: string(v.Purpose), Inactive: true})
			}
		}
		out.Keys = found
		ev.Details.Items = uint64(len(found))
		check, err := s.schedule(ctx, jobs.RotationCheck)
		out.Checked, out.NextCheck = optional(check.LastRun), optional(check.NextRun)
		return err
	})
	if err != nil {
		return api.RotationStatus{}, err
	}
	return out, nil
}

// standing lists active versions that want says yes to, in the order of Status.
func (s *Service) standing(ctx context.Context, want func(*keys.ActiveVersion, keys.Times) bool) ([]api.RotationKey, error) {
	rules, err := s.cfg.Keys.Rules(ctx)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock()
	var out []api.RotationKey
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = []api.RotationKey{}
		return tx.EachActive(ctx, func(v *keys.ActiveVersion) error {
			times, _ := rules.TimesOf(v)
			if want(v, times) {
				out = append(out, api.RotationKey{
					Name: v.Key, Purpose: string(v.Purpose), Version: v.Number, Last: optional(v.Activated), Next: optional(times.Due),
					Overdue: times.Overdue(now), DueSoon: times.DueSoon(now), UsedPercent: times.Used(),
				})
			}
			return nil
		})
	})
	slices.SortStableFunc(out, func(a, b api.RotationKey) int {
		if order := compareBool(a.UsedPercent < keys.UsedUp, b.UsedPercent < keys.UsedUp); order != 0 {
			return order
		}
		switch {
		case a.Next == nil || b.Next == nil:
			return cmp.Or(compareBool(a.Next == nil, b.Next == nil), strings.Compare(a.Name, b.Name))
		default:
			return cmp.Or(a.Next.Compare(*b.Next), strings.Compare(a.Name, b.Name))
		}
	})
	return out, err
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// schedule reads one schedule; the zero one when it isn't there yet.
func (s *Service) schedule(ctx context.Context, name string) (found jobs.Schedule, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		found = jobs.Schedule{}
		list, err := tx.Schedules(ctx)
		for _, one := range list {
			if one.Name == name {
				found = one
			}
		}
		return err
	})
	return found, err
}

// Sizes of a page of history.
const (
	defaultPage = 100
	maxPage     = 1000
)

// History is a page of rotations, newest first: of one key, or of every key that the caller may see. after is the Next of
// the page before.
func (s *Service) History(ctx context.Context, c *access.Caller, key, after string, limit int) (api.RotationHistory, error) {
	if key != "" {
		if err := keys.ValidateName(key); err != nil {
			return api.RotationHistory{}, fault.Wrap("", err, "reading the key's name").WithField("key")
		}
	}
	before, err := parseCursor(after)
	if err != nil {
		return api.RotationHistory{}, err
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	out := api.RotationHistory{Rotations: []api.Rotation{}}
	in := gate.Intent{Action: access.KeyRead, Type: audit.ConfigRead, Verb: "rotation_history", Resource: keyResource(key)}
	err = s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		var page []keys.Rotation
		err := s.cfg.Store.View(ctx, func(tx store.Tx) error {
			var of envelope.KeyID
			if key != "" {
				k, err := tx.KeyByName(ctx, key)
				if err != nil {
					return err
				}
				of = k.ID
			}
			var err error
			page, err = tx.Rotations(ctx, of, before, limit)
			return err
		})
		for _, r := range page {
			if allowed(c, access.KeyRead, keyResource(r.Key)) {
				out.Rotations = append(out.Rotations, rotationView(r))
			}
		}
		if len(page) == limit {
			out.Next = cursorOf(page[limit-1])
		}
		ev.Details.Items = uint64(len(out.Rotations))
		return err
	})
	if err != nil {
		return api.RotationHistory{}, err
	}
	return out, nil
}

func rotationView(r keys.Rotation) api.Rotation {
	check := r.SelfCheck
	if check == keys.SelfCheckPending {
		check = "pending"
	}
	return api.Rotation{
		Key: r.Key, OldVersion: r.OldVersion, NewVersion: r.NewVersion, Reason: r.Reason, Actor: r.Actor, Source: r.Source, Incident: r.Incident,
		At: r.At, Seconds: r.Duration.Seconds(), SelfCheck: check, Rows: r.Rows,
	}
}

// A cursor names the last rotation of a page: its time in microseconds, its key's id and its version.
func cursorOf(r keys.Rotation) string {
	return strconv.FormatInt(r.At.UnixMicro(), 10) + "." + r.KeyID.String() + "." + strconv.FormatUint(uint64(r.NewVersion), 10)
}

func parseCursor(text string) (r keys.Rotation, err error) {
	if text == "" {
		return r, nil
	}
	parts := strings.Split(text, ".")
	if len(parts) == 3 {
		us, err1 := strconv.ParseInt(parts[0], 10, 64)
		id, err2 := envelope.ParseKeyID(parts[1])
		n, err3 := strconv.ParseUint(parts[2], 10, 32)
		r = keys.Rotation{At: time.UnixMicro(us).UTC(), KeyID: id, NewVersion: uint32(n)}
		if err1 == nil && err2 == nil && err3 == nil && n > 0 && cursorOf(r) == text {
			return r, nil
		}
	}
	return keys.Rotation{}, fault.New(api.CodeInvalid, "the cursor is not one of this history").WithField("after").
		WithNext(`take the "next" of the page before`)
}
