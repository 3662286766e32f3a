package incident

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// useCursor is how far the job has come in finding out who used what: what the log has of one key, and then of each dataset that has it,
// is read page by page.
type useCursor struct {
	Sets  []string                     `json:"sets,omitempty"`  // the datasets of the key, as they were when it was begun
	Log   int                          `json:"log,omitempty"`   // what is read: 0 is the key's, 1 the first dataset's
	After string                       `json:"after,omitempty"` // in it, as SHARD.INDEX
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
	id       envelope.KeyID
	versions []uint32
}

func (w *worker) keys() (out []keyUses) {
	for _, v := range w.i.Versions { // sorted by key
		if n := len(out); n > 0 && out[n-1].name == v.Key {
			out[n-1].versions = append(out[n-1].versions, v.Number)
			continue
		}
		out = append(out, keyUses{v.Key, v.KeyID, []uint32{v.Number}})
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
	if w.at.Use.Log == 0 && w.at.Use.After == "" {
		sets, err := w.s.setsOf(ctx, k.id)
		if err != nil {
			return err
		}
		w.at.Use.Sets = sets
	}
	lives, err := w.s.lives(ctx, k)
	if err != nil {
		return err
	}
	counts := w.at.Use.copy()
	after, read := w.at.Use.After, 0
	from, ofSet := keyResource(k.name), w.at.Use.Log > 0
	if ofSet {
		from = access.Resource{Kind: access.KindDataset, Name: w.at.Use.Sets[w.at.Use.Log-1]}
	}
	f := gate.Filter{Resource: from.String(), After: after, Limit: usePage}
	err = w.s.cfg.Gate.Query(ctx, f, func(line []byte) error {
		read++
		var e usedLine
		if json.Unmarshal(line, &e) != nil {
			return nil // not well formed: audit verify finds it
		}
		after = gate.Cursor(e.Shard, e.Index)
		if ofSet {
			e.countWork(counts, lives)
		} else {
			e.count(counts, lives)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case read == usePage:
		w.at.Use.After, w.at.Use.Tally = after, counts
		return nil
	case w.at.Use.Log < len(w.at.Use.Sets):
		w.at.Use.After, w.at.Use.Tally = "", counts
		w.at.Use.Log++
		return nil
	}
	if w.people == nil {
		if w.people, err = w.s.people(ctx); err != nil {
			return err
		}
	}
	could := could(w.people, k.name, w.at.Use.Sets)
	until := w.s.now()
	for _, n := range k.versions {
		w.at.Use.Found = append(w.at.Use.Found, api.IncidentUse{Key: k.name, Version: n, Until: until, Could: could, Did: users(counts[n])})
	}
	w.at.Use = useCursor{Found: w.at.Use.Found}
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

// life is a version, and when it may have been used without being named.
type life struct {
	version    uint32
	begun, end time.Time // end is zero while its material is there
}

// clocksDiffer is by how much events and versions may be dated apart by nodes whose clocks are as they should be.
const clocksDiffer = time.Minute

// might says whether what happened at a time may have used the version.
func (l *life) might(at time.Time) bool {
	return !at.Add(clocksDiffer).Before(l.begun) && (l.end.IsZero() || !at.Add(-clocksDiffer).After(l.end))
}

// lives looks up the lives of a key's versions. Of a key that can't be read nobody knows them, so everything may have used it.
func (s *Service) lives(ctx context.Context, of keyUses) ([]life, error) {
	var k keys.Key
	err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		k, err = tx.KeyByID(ctx, of.id)
		return err
	})
	if code := fault.CodeOf(err); err != nil && code != api.CodeIntegrity && code != api.CodeNotFound {
		return nil, err
	}
	out := make([]life, len(of.versions))
	for n, number := range of.versions {
		v, _ := k.Version(number)
		out[n] = life{version: number, begun: v.Created, end: v.Destroyed}
	}
	return out, nil
}

// count adds an event to the versions that it used, or may have. A batch is one event and names one version. A batch of
// encryptions stands under it; one that opens or moves may have opened any version of the key, so it is counted as possible
// for every other.
func (e *usedLine) count(counts map[uint32]map[string]*tally, versions []life) {
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
	for _, l := range versions {
		n := l.version
		certain := e.Success && (e.Version == n || e.Details.Old == n)
		if certain || batch && (e.Version == n || opens && l.might(e.Time)) {
			e.tell(counts, n, certain)
		}
	}
}

// countWork adds what somebody asked for on a dataset that has the key: encrypting, re-encrypting, verifying or decrypting it may have
// used any version. What keyturn asked for by itself is nobody's.
func (e *usedLine) countWork(counts map[uint32]map[string]*tally, versions []life) {
	if e.Type != audit.Reencryption || !e.Success || !strings.HasSuffix(e.Action, "_requested") || e.User == systemName {
		return
	}
	for _, l := range versions {
		if l.might(e.Time) {
			e.tell(counts, l.version, false)
		}
	}
}

func (e *usedLine) tell(counts map[uint32]map[string]*tally, n uint32, certain bool) {
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

// working are the actions on a dataset by which the versions of its keys are used.
var working = []access.Action{access.DatasetRun, access.DatasetDecrypt}

// setsOf names the registered datasets that have a key, in name order.
func (s *Service) setsOf(ctx context.Context, id envelope.KeyID) ([]string, error) {
	list, err := s.datasets(ctx)
	var out []string
	for _, d := range list {
		if slices.ContainsFunc(d.Columns, func(c datasets.Column) bool { return c.KeyID == id }) {
			out = append(out, d.Name)
		}
	}
	return out, err
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

// could lists the principals who may use a key, or work on datasets that have it, by the rights that they have now. One that is
// disabled could until it was.
func could(people []access.Principal, key string, sets []string) []api.IncidentPrincipal {
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
		for _, a := range working {
			if slices.ContainsFunc(sets, func(set string) bool {
				return access.Decide(&p, a, access.Resource{Kind: access.KindDataset, Name: set}).Allowed
			}) {
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
	next.Use.Found = nil
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
		did, perhaps := usersOf(&u)
		text := fmt.Sprintf("%s version %d: %d principals could use it, %d did", u.Key, u.Version, len(u.Could), did)
		if perhaps > 0 {
			text += fmt.Sprintf(", %d perhaps", perhaps)
		}
		return text
	}
	used, perhaps := 0, 0
	for _, u := range found {
		switch did, may := usersOf(&u); {
		case did > 0:
			used++
		case may > 0:
			perhaps++
		}
	}
	return fmt.Sprintf("uses of %d versions recorded, from %s version %d to %s version %d; %d of them were used by somebody, %d perhaps", len(found),
		found[0].Key, found[0].Version, found[len(found)-1].Key, found[len(found)-1].Version, used, perhaps)
}

// usersOf is how many principals surely used a version, and how many only may have.
func usersOf(u *api.IncidentUse) (did, perhaps int) {
	for _, user := range u.Did {
		if user.Events > 0 {
			did++
		} else {
			perhaps++
		}
	}
	return did, perhaps
}
