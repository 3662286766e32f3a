package incident

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/store"
)

// List is a page of the incidents that the caller may see, newest first; state is empty, "open" or "closed".
func (s *Service) List(ctx context.Context, c *access.Caller, state, after string, limit int) (api.IncidentList, error) {
	f := incidents.Filter{State: incidents.State(state), After: after, Limit: limit}
	if state != "" && !f.State.Valid() {
		return api.IncidentList{}, fault.New(api.CodeInvalid, "the state is unknown").WithField("state").WithNext("use open or closed")
	}
	if after != "" && !incidents.ValidID(after) {
		return api.IncidentList{}, fault.New(api.CodeInvalid, "the cursor is no incident's id").WithField("after").WithNext(`take the "next" of the page before`)
	}
	out := api.IncidentList{Incidents: []api.Incident{}}
	in := gate.Intent{Action: access.IncidentRead, Type: audit.ConfigRead, Verb: "listed", Resource: resource("")}
	err := s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		var page []incidents.Incident
		err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
			page, err = tx.Incidents(ctx, f)
			return err
		})
		for _, i := range page {
			if allowed(c, access.IncidentRead, resource(i.ID)) {
				out.Incidents = append(out.Incidents, view(i))
			}
		}
		if len(page) == f.PageSize() {
			out.Next = page[len(page)-1].ID
		}
		ev.Details.Count = uint64(len(out.Incidents))
		return err
	})
	if err != nil {
		return api.IncidentList{}, err
	}
	return out, nil
}

// Show is one incident with what has come of it: the keys and datasets as they are now, what is left, who could and who did,
// and the timeline. It counts every dataset anew, so it may take as long as that.
func (s *Service) Show(ctx context.Context, c *access.Caller, id string) (out api.IncidentDetail, err error) {
	if err := identified(id); err != nil {
		return out, err
	}
	in := gate.Intent{Action: access.IncidentRead, Type: audit.ConfigRead, Verb: "shown", Resource: resource(id)}
	err = s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) (err error) {
		ev.Details.Incident = id
		d, err := s.detail(ctx, id)
		out = d.shown(c)
		return err
	})
	if err != nil {
		return api.IncidentDetail{}, err
	}
	return out, nil
}

// detail is an incident as it is now, before anything is withheld.
type detail struct {
	i   incidents.Incident
	out api.IncidentDetail

	unread bool // the row of a key can't be read, so nobody knows which of its versions are marked
}

// detail reads everything in one snapshot, and then counts the datasets.
func (s *Service) detail(ctx context.Context, id string) (d detail, err error) {
	var marked map[reencrypt.VersionOf]bool
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		d, marked = detail{}, map[reencrypt.VersionOf]bool{}
		if d.i, err = tx.Incident(ctx, id); err != nil {
			return err
		}
		entries, err := tx.Entries(ctx, id)
		if err != nil {
			return err
		}
		d.out = api.IncidentDetail{Incident: view(d.i), KeyProgress: []api.IncidentKey{}, Datasets: []api.IncidentDataset{}, Uses: []api.IncidentUse{}}
		if err := d.read(entries); err != nil {
			return err
		}
		if err := d.keys(ctx, tx, marked); err != nil {
			return err
		}
		return d.jobs(ctx, tx)
	})
	if err != nil {
		return d, err
	}
	if err := s.count(ctx, &d.out, marked, d.unread); err != nil {
		return d, err
	}
	return d, s.gone(ctx, &d)
}

// read makes timeline and findings of the entries. A retry finds anew: what it found counts.
func (d *detail) read(entries []incidents.Entry) error {
	sets, uses := map[string]int{}, map[api.IncidentVersion]int{}
	for _, e := range entries {
		d.out.Timeline = append(d.out.Timeline, api.IncidentEntry{Number: e.Number, At: e.At, By: e.By, Kind: string(e.Kind), Text: e.Text})
		switch e.Kind {
		case incidents.Dataset:
			var found api.IncidentDataset
			if err := json.Unmarshal(e.Data, &found); err != nil {
				return fault.Wrap(api.CodeIntegrity, err, "reading a finding of an incident")
			}
			found.Unknown = ""
			replace(&d.out.Datasets, sets, found.Dataset, found)
		case incidents.Use:
			var found []api.IncidentUse
			if err := json.Unmarshal(e.Data, &found); err != nil {
				return fault.Wrap(api.CodeIntegrity, err, "reading a finding of an incident")
			}
			for _, u := range found {
				replace(&d.out.Uses, uses, api.IncidentVersion{Key: u.Key, Version: u.Version}, u)
			}
		}
	}
	return nil
}

// replace puts v into the list in the place of the one with the same key, or at the end.
func replace[K comparable, V any](list *[]V, places map[K]int, key K, v V) {
	if at, ok := places[key]; ok {
		(*list)[at] = v
		return
	}
	places[key] = len(*list)
	*list = append(*list, v)
}

// keys says how far each key has come, and which of the versions are marked compromised now.
func (d *detail) keys(ctx context.Context, tx store.Tx, marked map[reencrypt.VersionOf]bool) error {
	type concerned struct {
		name   string
		target *incidents.Target
	}
	var all []concerned
	named := map[string]bool{}
	for n := range d.i.Targets {
		named[d.i.Targets[n].Key] = true
		all = append(all, concerned{d.i.Targets[n].Key, &d.i.Targets[n]})
	}
	for _, v := range d.i.Versions {
		if !named[v.Key] {
			named[v.Key] = true
			all = append(all, concerned{v.Key, nil})
		}
	}
	for _, it := range all {
		k, err := tx.KeyByName(ctx, it.name)
		p := api.IncidentKey{Key: it.name, Versions: []api.IncidentVersionState{}}
		if code := fault.CodeOf(err); code == api.CodeIntegrity || code == api.CodeNotFound {
			p.Problem, d.unread = fault.MessageOf(err), true // one bad row must not hide the others
		} else if err != nil {
			return err
		}
		active, _ := k.Active()
		if p.Active = active.Number; it.target != nil {
			p.From = it.target.From
			if p.Rotated = err == nil && uint64(len(k.Versions)) > uint64(it.target.Last); p.Rotated {
				d.out.Rotated++
			}
		}
		for _, n := range d.i.CompromisedOf(it.name) {
			v, _ := k.Version(n)
			p.Versions = append(p.Versions, api.IncidentVersionState{Version: n, State: string(v.State)})
			if isMarked(v) {
				marked[versionOf(k.ID, n)] = true
			}
		}
		d.out.KeyProgress = append(d.out.KeyProgress, p)
	}
	return nil
}

// isMarked says whether a version is compromised, be its destruction scheduled or not. What stood under one that is destroyed
// is lost, and nobody has to move it.
func isMarked(v keys.Version) bool {
	return v.State == keys.Compromised || v.State == keys.DestroyScheduled && v.PriorState == keys.Compromised
}

func (d *detail) jobs(ctx context.Context, tx store.Tx) error {
	state := func(id string) (string, error) {
		if id == "" {
			return "", nil
		}
		j, err := tx.Job(ctx, id)
		if fault.CodeOf(err) == api.CodeNotFound {
			return "", nil
		}
		return string(j.State), err
	}
	var err error
	if d.out.JobState, err = state(d.i.Job); err != nil {
		return err
	}
	for n := range d.out.Datasets {
		if d.out.Datasets[n].JobState, err = state(d.out.Datasets[n].Job); err != nil {
			return err
		}
	}
	return nil
}

// recountTime is how long one dataset may take to be counted for an answer.
const recountTime = 5 * time.Minute

// count counts what every dataset holds of the marked versions now. One that can't be counted makes the sum unknown, and so
// does a key that can't be read: neither is ever taken for nothing.
func (s *Service) count(ctx context.Context, out *api.IncidentDetail, marked map[reencrypt.VersionOf]bool, unread bool) error {
	out.TakenAt = s.now()
	var sum int64
	if out.Remaining = &sum; unread {
		out.Remaining = nil
	}
	if len(marked) == 0 && !unread {
		for n := range out.Datasets {
			out.Datasets[n].Remaining = new(int64)
		}
		return nil
	}
	places := map[string]int{}
	for n, d := range out.Datasets {
		places[d.Dataset] = n
		out.Datasets[n].Unknown, out.Datasets[n].Removed = forgotten, true
	}
	list, err := s.datasets(ctx)
	if err != nil {
		return err
	}
	for n := range list {
		left, err := s.left(ctx, &list[n], marked)
		if ctx.Err() != nil {
			return fault.Wrap("", context.Cause(ctx), "counting what is left")
		}
		at, known := places[list[n].Name]
		if !known && err == nil && left == 0 {
			continue
		}
		if !known {
			at = len(out.Datasets)
			out.Datasets = append(out.Datasets, api.IncidentDataset{Dataset: list[n].Name, Held: []api.IncidentHeld{}})
		}
		d := &out.Datasets[at]
		d.Unknown, d.Removed, d.Remaining = "", false, &left
		switch {
		case err != nil:
			d.Unknown, d.Remaining, out.Remaining = fault.MessageOf(err), nil, nil
		case unread && left == 0: // what is known of the others is the least that is left
			d.Unknown, d.Remaining = unreadable, nil
		}
		sum += left
	}
	return nil
}

// unreadable is said of a dataset when nobody knows which versions it must not hold.
const unreadable = "a key of the incident can't be read"

// forgotten is said of a dataset that somebody removed, when its removal doesn't prove that nothing was left in it.
const forgotten = "the dataset isn't registered any more"

// gone says what is left in datasets that were removed: nothing, where the removal counted nothing; else nobody knows.
func (s *Service) gone(ctx context.Context, d *detail) error {
	if !slices.ContainsFunc(d.out.Datasets, func(set api.IncidentDataset) bool { return set.Removed }) {
		return nil
	}
	left, err := s.removed(ctx, d)
	if err != nil {
		return err
	}
	for n := range d.out.Datasets {
		switch set := &d.out.Datasets[n]; {
		case !set.Removed:
		case slices.Contains(left, set.Dataset):
			d.out.Remaining = nil
		default:
			set.Unknown, set.Remaining = "", new(int64)
		}
	}
	return nil
}

func (s *Service) left(ctx context.Context, d *datasets.Dataset, marked map[reencrypt.VersionOf]bool) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, recountTime)
	defer cancel()
	rows, err := s.cfg.Datasets.Holds(ctx, d, slices.Collect(maps.Keys(marked)))
	return stands(rows, marked), err
}

// shown is the detail for a caller: who could use a key is for who may see principals, who did for who may read the log.
func (d *detail) shown(c *access.Caller) api.IncidentDetail {
	out := d.out
	could, did := allowed(c, access.PrincipalRead, access.Resource{Kind: access.KindPrincipal}), mayReadLog(c)
	out.Uses = make([]api.IncidentUse, len(d.out.Uses))
	for n, u := range d.out.Uses {
		if !could {
			u.Could = []api.IncidentPrincipal{}
		}
		if !did {
			u.Did = []api.IncidentUser{}
		}
		out.Uses[n] = u
	}
	if len(out.Uses) > 0 && !could {
		out.Withheld = append(out.Withheld, withheld(api.WithheldCould, access.PrincipalRead))
	}
	if len(out.Uses) > 0 && !did {
		out.Withheld = append(out.Withheld, withheld(api.WithheldDid, access.AuditRead))
	}
	return out
}

func withheld(what string, needs access.Action) string {
	return fmt.Sprintf("%s: needs %s", what, needs)
}

func mayReadLog(c *access.Caller) bool {
	return allowed(c, access.AuditRead, access.Resource{Kind: access.KindAudit})
}
