package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
)

// leaving is a dataset that is to be forgotten, with the values of ours that stand in it.
type leaving struct {
	d        datasets.Dataset
	rows     int64
	versions map[string]bool // KEY:VERSION
	unknown  error           // why it couldn't be counted
}

// leave counts a dataset. That it can't be counted is part of the answer.
func (s *Service) leave(ctx context.Context, name string) (l leaving, err error) {
	if l.d, err = s.record(ctx, name); err != nil {
		return l, err
	}
	tallies, err := s.count(ctx, &l.d, s.known(&l.d))
	if err != nil {
		l.unknown = err
		return l, ctx.Err()
	}
	counted, err := s.census(ctx, &l.d, tallies)
	if err != nil {
		return l, err
	}
	l.versions = map[string]bool{}
	for _, col := range counted.Columns {
		for _, v := range col.Versions {
			if v.Rows > 0 {
				l.rows += v.Rows
				l.versions[fmt.Sprintf("%s:%d", v.Key, v.Version)] = true
			}
		}
	}
	return l, nil
}

// refusal is nil when nothing is left.
func (l *leaving) refusal() error {
	const next = "; or have somebody who may force the destruction of its keys forget it all the same: --force --reason WHY"
	switch {
	case l.unknown != nil:
		return fault.Wrapf(api.CodeInUse, l.unknown, "forgetting dataset %s: nobody knows which values are left in it", l.d.Name).WithField("dataset").
			WithNext("make its database reachable" + next)
	case l.rows > 0:
		return fault.Newf(api.CodeInUse, "forgetting dataset %s: %d values are left in it, under %s, and nothing would keep those versions from being destroyed", l.d.Name, l.rows,
			l.named()).WithField("dataset").WithNext("put them back in clear: keyturn dataset decrypt " + l.d.Name + next)
	}
	return nil
}

// mostNamed is how many versions an event or a message names.
const mostNamed = 100

func (l *leaving) named() string {
	const few = 5
	list := slices.Sorted(maps.Keys(l.versions))
	if len(list) > few {
		return strings.Join(list[:few], ", ") + fmt.Sprintf(" and %d versions more", len(list)-few)
	}
	return strings.Join(list, ", ")
}

// scope is the keys of the dataset, and the versions that are left. So many that an event shouldn't name them count as unknown.
func (l *leaving) scope() string {
	named := map[string]bool{}
	for _, c := range l.d.Columns {
		named[c.Key] = true
	}
	for v := range l.versions {
		key, _, _ := strings.Cut(v, ":")
		named[key] = true
	}
	if len(l.versions) > mostNamed {
		l.unknown = errors.New("too many versions")
	} else {
		maps.Copy(named, l.versions)
	}
	return strings.Join(slices.Sorted(maps.Keys(named)), " ")
}

// mayForget has the doorway refuse who may not force the destruction of a key of the dataset, and raises the alert.
func (s *Service) mayForget(ctx context.Context, c *access.Caller, l *leaving, in gate.Intent) error {
	for _, name := range strings.Fields(l.scope()) {
		if strings.Contains(name, ":") {
			continue
		}
		r := access.Right{Action: access.KeyForceDestroy, Resource: access.Resource{Kind: access.KindKey, Name: name}}
		if !allowed(c, r.Action, r.Resource) {
			return s.deny(ctx, c, &denial{r}, audit.ConfigWrite, in.Verb)
		}
	}
	in.Type, in.Verb = audit.Alert, "dataset_remove_forced"
	return s.cfg.Gate.Use(ctx, c, in, func(_ context.Context, ev *audit.Event) error {
		ev.Details.Dataset, ev.Details.Rows = l.d.Name, uint64(l.rows)
		return nil
	})
}
