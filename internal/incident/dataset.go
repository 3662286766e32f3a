package incident

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/store"
)

// countTime is how long a dataset may take to be counted before its re-encryption is queued without a count.
const countTime = 20 * time.Second

// dataset does the next dataset, in name order, or ends the phase. Every dataset is counted, also those of other keys, since
// values get copied; re-encryption is queued for those whose columns are registered under a key with a compromised version,
// whether the count found any there or not: it may have failed, and the application may write more. Nothing that works on a
// dataset keeps it waiting: it steps aside for the re-encryption, see reencrypt.Urgent.
func (w *worker) dataset(ctx context.Context) error {
	next := w.at
	d, err := w.nextDataset(ctx)
	if err != nil {
		return err
	}
	if d == nil || len(w.i.Versions) == 0 {
		next.Phase, next.Next, next.After = phaseUses, 0, ""
		w.at = next
		return nil
	}
	next.After = d.Name
	found, holds, err := w.held(ctx, d)
	if err != nil {
		return err
	}
	moves := w.i.Emergency && concerns(&w.i, d)
	if !moves && !holds {
		w.at = next
		return nil
	}
	if moves {
		next.Queued++
	}
	return w.queue(ctx, d, found, moves, next)
}

// nextDataset is the first one after the cursor; nil when there is none.
func (w *worker) nextDataset(ctx context.Context) (*datasets.Dataset, error) {
	list, err := w.s.datasets(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name > w.at.After {
			return &list[i], nil
		}
	}
	return nil, nil
}

func (s *Service) datasets(ctx context.Context) (list []datasets.Dataset, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		list, err = tx.Datasets(ctx)
		return err
	})
	return list, err
}

// concerns says whether a column of the dataset is under a key that the incident is about.
func concerns(i *incidents.Incident, d *datasets.Dataset) bool {
	return slices.ContainsFunc(d.Columns, func(c datasets.Column) bool {
		return slices.ContainsFunc(i.Versions, func(v incidents.Version) bool { return v.KeyID == c.KeyID })
	})
}

// held counts what the dataset holds of the incident's versions. A dataset that can't be counted holds nobody knows what:
// that is a finding, not an error.
func (w *worker) held(ctx context.Context, d *datasets.Dataset) (found api.IncidentDataset, holds bool, err error) {
	found = api.IncidentDataset{Dataset: d.Name, Held: []api.IncidentHeld{}}
	counting, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	rows, err := w.s.cfg.Datasets.Holds(counting, d, versionsOf(w.i.Versions))
	if ctx.Err() != nil {
		return found, false, fault.Wrap("", context.Cause(ctx), "counting a dataset")
	}
	if err != nil {
		found.Unknown = fault.MessageOf(err)
	}
	found.Held = append(found.Held, heldBy(d, w.i.Versions, rows, err)...)
	return found, err != nil || len(found.Held) > 0, nil
}

func versionsOf(list []incidents.Version) []reencrypt.VersionOf {
	out := make([]reencrypt.VersionOf, len(list))
	for i, v := range list {
		out[i] = reencrypt.VersionOf{Key: v.KeyID, Version: v.Number}
	}
	return out
}

// heldBy is how many values a dataset holds under each of the versions. When it could not be counted, that is unknown for
// those of its own keys.
func heldBy(d *datasets.Dataset, versions []incidents.Version, rows map[reencrypt.VersionOf]int64, failed error) (out []api.IncidentHeld) {
	for _, v := range versions {
		n := rows[reencrypt.VersionOf{Key: v.KeyID, Version: v.Number}]
		switch {
		case failed != nil && slices.ContainsFunc(d.Columns, func(c datasets.Column) bool { return c.KeyID == v.KeyID }):
			out = append(out, api.IncidentHeld{Key: v.Key, Version: v.Number})
		case n > 0:
			out = append(out, api.IncidentHeld{Key: v.Key, Version: v.Number, Rows: &n})
		}
	}
	return out
}

// queue writes what was found, and queues the re-encryption with it.
func (w *worker) queue(ctx context.Context, d *datasets.Dataset, found api.IncidentDataset, moves bool, next cursor) error {
	in := gate.Intent{Action: access.DatasetRead, Type: audit.Reencryption, Verb: "census", Resource: access.Resource{Kind: access.KindDataset, Name: d.Name}, Reason: w.i.Reason}
	if moves {
		in.Action, in.Verb = access.DatasetRun, string(reencrypt.KindReencrypt)+"_requested"
	}
	return w.change(ctx, in, next, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Dataset, ev.Details.Table = d.Name, d.Table
		for _, h := range found.Held {
			if h.Rows != nil {
				ev.Details.Rows += uint64(*h.Rows)
			}
		}
		found.Job = ""
		remark := ""
		if moves {
			over, resumed, err := w.move(ctx, tx, d, ev, &found)
			if err != nil {
				return err
			}
			if resumed {
				remark = "; it was paused, and runs on"
			}
			if over.ID != "" {
				remark += "; " + stepsAside(over)
			}
		}
		data, err := json.Marshal(found)
		if err != nil {
			return fault.Wrap(api.CodeInternal, err, "writing a finding")
		}
		_, err = w.s.add(ctx, tx, w.i.ID, incidents.Entry{Kind: incidents.Dataset, By: systemName, Text: foundText(&found, moves) + remark, Data: data})
		return err
	})
}

// move queues the re-encryption, unless the dataset was removed meanwhile. over is the job that steps aside for it; resumed
// says that it was there, and paused.
func (w *worker) move(ctx context.Context, tx store.Tx, d *datasets.Dataset, ev *audit.Event, found *api.IncidentDataset) (over jobs.Job, resumed bool, err error) {
	now, err := tx.Dataset(ctx, d.Name)
	if fault.CodeOf(err) == api.CodeNotFound || err == nil && now.ID != d.ID {
		return over, false, nil
	}
	if err != nil {
		return over, false, err
	}
	j, over, resumed, err := w.s.cfg.Datasets.Urgent(ctx, tx, d, w.i.OpenedBy)
	found.Job, ev.Details.Job, ev.Details.Kind = j.ID, j.ID, j.Kind
	return over, resumed, err
}

// stepsAside says what becomes of a job that has a dataset.
func stepsAside(over jobs.Job) string {
	return fmt.Sprintf("job %s (%s), begun by %s, steps aside until that has ended", over.ID, over.Kind, over.Actor)
}

// foundText is a finding in words.
func foundText(found *api.IncidentDataset, moves bool) string {
	text := "dataset " + found.Dataset + " holds none of the versions now"
	if len(found.Held) > 0 {
		text = "dataset " + found.Dataset + " holds"
		for n, h := range found.Held {
			if n == 20 {
				text += fmt.Sprintf(" and values under %d versions more", len(found.Held)-n)
				break
			}
			if n > 0 {
				text += ","
			}
			if h.Rows == nil {
				text += fmt.Sprintf(" an unknown number of values under %s version %d", h.Key, h.Version)
			} else {
				text += fmt.Sprintf(" %d values under %s version %d", *h.Rows, h.Key, h.Version)
			}
		}
	} else if found.Unknown != "" {
		text = "dataset " + found.Dataset + " could not be counted"
	}
	switch {
	case found.Job != "":
		text += "; re-encryption is queued as job " + found.Job
	case moves:
		text += "; it was removed meanwhile"
	}
	if found.Unknown != "" {
		text += "; " + found.Unknown
	}
	return text
}

// stands is a count of what a dataset holds of some versions.
func stands(rows map[reencrypt.VersionOf]int64, marked map[reencrypt.VersionOf]bool) (n int64) {
	for v := range marked {
		n += rows[v]
	}
	return n
}

func versionOf(id envelope.KeyID, n uint32) reencrypt.VersionOf {
	return reencrypt.VersionOf{Key: id, Version: n}
}
