package incident

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/store"
)

// useCursor is how far the job has come in finding out who used what: the log of one key is read page by page.
type useCursor struct {
	After string                       `json:"after,omitempty"` // in the log of the key, as SHARD.INDEX
	Tally map[uint32]map[string]*tally `json:"tally,omitempty"` // of the key: version -> user
	Found []api.IncidentUse            `json:"found,omitempty"` // complete, and not written to an entry yet
}

// tally counts what one user did with one version.
type tally struct {
	Events   int64     `json:"e"`
	Possible int64     `json:"p"`
	First    time.Time `json:"f"`
	Last     time.Time `json:"l"`
}

const (
	usePage  = 50_000 // events of a key that are read between two looks at whether the chunk should end
	useBatch = 50     // versions in one entry
)

// keyUses is a key with the versions that the incident is about.
type keyUses struct {
	name     string
	versions []uint32
}

func (w *worker) keys() (out []keyUses) {
	for _, v := range w.i.Versions { // sorted by key
		if n := len(out); n > 0 && out[n-1].name == v.Key {
			out[n-1].versions = append(out[n-1].versions, v.Number)
			continue
		}
		out = append(out, keyUses{v.Key, []uint32{v.Number}})
	}
	return out
}

// uses reads one page of one key's log, or writes what is complete, or ends the phase.
func (w *worker) uses(ctx context.Context) error {
	all := w.keys()
	if len(w.at.Use.Found) >= useBatch || w.at.Next >= len(all) && len(w.at.Use.Found) > 0 {
		return w.writeUses(ctx)
	}
	if w.at.Next >= len(all) {
		w.at.Phase = phaseEnd
		return nil
	}
	if err := w.readUses(ctx, all[w.at.Next]); err != nil {
		return err
	}
	if w.s.now().Sub(w.saved) >= saveEvery {
		return w.save(ctx)
	}
	return nil
}

// readUses reads a page of a key's log into the tallies; the last page completes the key. Of the cursor, nothing changes
// unless the whole page was read.
func (w *worker) readUses(ctx context.Context, k keyUses) error {
	counts := w.at.Use.copy()
	after, read := w.at.Use.After, 0
	f := gate.Filter{Resource: keyResource(k.name).String(), After: after, Limit: usePage}
	err := w.s.cfg.Gate.Query(ctx, f, func(line []byte) error {
		read++
		var e usedLine
		if json.Unmarshal(line, &e) != nil {
			return nil // not well formed: audit verify finds it
		}
		after = gate.Cursor(e.Shard, e.Index)
		e.count(counts, k.versions)
		return nil
	})
	if err != nil {
		return err
	}
	if read == usePage {
		w.at.Use.After, w.at.Use.Tally = after, counts
		return nil
	}
	if w.people == nil {
		if w.people, err = w.s.people(ctx); err != nil {
			return err
		}
	}
	could := could(w.people, k.name)
	until := w.s.now()
	for _, n := range k.versions {
		w.at.Use.Found = append(w.at.Use.Found, api.IncidentUse{Key: k.name, Version: n, Until: until, Could: could, Did: users(counts[n])})
	}
	w.at.Use.After, w.at.Use.Tally = "", nil
	w.at.Next++
	return nil
}

func (u *useCursor) copy() map[uint32]map[string]*tally {
	out := map[uint32]map[string]*tally{}
	for n, by := range u.Tally {
		out[n] = map[string]*tally{}
		for user, t := range by {
			c := *t
			out[n][user] = &c
		}
	}
	return out
}

// usedLine is what is looked at in an event.
type usedLine struct {
	Time    time.Time       `json:"timestamp"`
	Type    audit.EventType `json:"event_type"`
	Action  string          `json:"action"`
	Success bool            `json:"success"`
	User    string          `json:"user_id"`
	Version uint32          `json:"key_version"`
	Details struct {
		Items uint64 `json:"items"`
		Old   uint32 `json:"old_version"`
	} `json:"details"`
	Shard int    `json:"shard"`
	Index uint64 `json:"index"`
}

// count adds an event to the versions that it used, or may have. A batch is one event and names one version. A batch of
// encryptions stands under it; one that opens or moves may have opened any version of the key, so it is counted as possible
// for every other.
func (e *usedLine) count(counts map[uint32]map[string]*tally, versions []uint32) {
	switch e.Type {
	case audit.KeyUse, audit.KeyDerive, audit.KeyExport:
	default:
		return
	}
	opens := e.Action == "decrypt_batch" || e.Action == "rewrap_batch"
	batch := e.Details.Items > 0
	if !e.Success && !batch { // a batch with one bad item may have used the version for the others
		return
	}
	for _, n := range versions {
		certain := e.Success && (e.Version == n || e.Details.Old == n)
		if !certain && !(batch && (opens || e.Version == n)) {
			continue
		}
		if counts[n] == nil {
			counts[n] = map[string]*tally{}
		}
		t := counts[n][e.User]
		if t == nil {
			t = &tally{First: e.Time, Last: e.Time}
			counts[n][e.User] = t
		}
		if certain {
			t.Events++
		} else {
			t.Possible++
		}
		if e.Time.Before(t.First) {
			t.First = e.Time
		}
		if e.Time.After(t.Last) {
			t.Last = e.Time
		}
	}
}

// users lists tallies, who did most first.
func users(by map[string]*tally) []api.IncidentUser {
	out := make([]api.IncidentUser, 0, len(by))
	for user, t := range by {
		out = append(out, api.IncidentUser{User: user, Events: t.Events, Possible: t.Possible, First: t.First, Last: t.Last})
	}
	slices.SortFunc(out, func(a, b api.IncidentUser) int {
		return cmp.Or(cmp.Compare(b.Events+b.Possible, a.Events+a.Possible), cmp.Compare(a.User, b.User))
	})
	return out
}

// using are the actions by which a version is used.
var using = []access.Action{
	access.KeyEncrypt, access.KeyDecrypt, access.KeyDecryptCompromised, access.KeyRewrap, access.KeyDataKey, access.KeyDerive, access.KeyExport,
}

// people reads all principals, each row checked.
func (s *Service) people(ctx context.Context) (out []access.Principal, err error) {
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = []access.Principal{}
		all, err := tx.Principals(ctx)
		if err != nil {
			return err
		}
		for _, p := range all {
			_, err := tx.PrincipalByID(ctx, p.ID)
			if code := fault.CodeOf(err); code == api.CodeIntegrity {
				p.MAC = forged
			} else if err != nil {
				return err
			}
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// forged stands in the place of the MAC of a row that keyturn didn't write: such a principal can do nothing, and is named.
const forged = "forged"

// could lists the principals who may use a key, by the rights that they have now. One that is disabled could until it was.
func could(people []access.Principal, key string) []api.IncidentPrincipal {
	out := []api.IncidentPrincipal{}
	for _, p := range people {
		disabled := p.Disabled
		p.Disabled = false
		var may []string
		for _, a := range using {
			if access.Decide(&p, a, keyResource(key)).Allowed {
				may = append(may, string(a))
			}
		}
		if len(may) == 0 {
			continue
		}
		if p.MAC == forged {
			p.Role += " (its row was not written by keyturn)"
		}
		out = append(out, api.IncidentPrincipal{Principal: p.Name, Role: p.Role, Actions: may, Disabled: disabled})
	}
	return out
}

// writeUses writes what is complete as one entry.
func (w *worker) writeUses(ctx context.Context) error {
	next := w.at
	next.Use = useCursor{After: w.at.Use.After, Tally: w.at.Use.Tally}
	data, err := json.Marshal(w.at.Use.Found)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "writing a finding")
	}
	text := usesText(w.at.Use.Found)
	return w.change(ctx, w.incidentIntent(audit.Incident, "uses_recorded"), next, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Count = uint64(len(w.at.Use.Found))
		_, err := w.s.add(ctx, tx, w.i.ID, incidents.Entry{Kind: incidents.Use, By: systemName, Text: text, Data: data})
		return err
	})
}

// usesText says what was found without names, which not everybody may know who may read the timeline.
func usesText(found []api.IncidentUse) string {
	if len(found) == 1 {
		u := found[0]
		return fmt.Sprintf("%s version %d: %d principals could use it, %d did", u.Key, u.Version, len(u.Could), len(u.Did))
	}
	used := 0
	for _, u := range found {
		if len(u.Did) > 0 {
			used++
		}
	}
	return fmt.Sprintf("uses of %d versions recorded, from %s version %d to %s version %d; %d of them were used by somebody", len(found),
		found[0].Key, found[0].Version, found[len(found)-1].Key, found[len(found)-1].Version, used)
}
