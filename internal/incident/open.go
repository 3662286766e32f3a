package incident

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/store"
)

// Open records an incident that changes no key. Its job finds out who could use the versions that it is about, who did, and
// which datasets hold them. Errors: invalid with the field; not_found for a version that never was.
func (s *Service) Open(ctx context.Context, c *access.Caller, in api.OpenIncidentRequest) (api.Incident, error) {
	i, err := s.begin(in.Type, in.Severity, in.Reason, in.Details)
	if err != nil {
		return api.Incident{}, err
	}
	var checked error
	if allowed(c, access.IncidentWrite, resource(i.ID)) {
		if lacks, ok := firstLacking(c, in.Versions, access.KeyRead); ok {
			return api.Incident{}, s.deny(ctx, c, lacks, "opened", i.Reason)
		}
		i.Versions, checked = s.named(ctx, in.Versions)
	}
	return s.open(ctx, c, i, checked)
}

// begin checks what every incident has, and draws its id.
func (s *Service) begin(kind, severity, reason, details string) (incidents.Incident, error) {
	now := s.now()
	i := incidents.Incident{
		Type: incidents.Type(kind), Severity: incidents.Severity(severity), State: incidents.Open,
		Reason: reason, Details: details, Opened: now, Entries: 1,
	}
	id, err := incidents.NewID(now, rand.Reader)
	if err != nil {
		return i, fault.Wrap(api.CodeInternal, err, "opening an incident")
	}
	i.ID = id
	for _, err := range []error{
		incidents.ValidateReason(reason), incidents.ValidateType(i.Type), incidents.ValidateSeverity(i.Severity),
		incidents.ValidateText("details", details), kms.RefuseSecrets("reason", reason), kms.RefuseSecrets("details", details),
	} {
		if err != nil {
			return i, err
		}
	}
	return i, nil
}

// firstLacking is a right on one of the keys that the caller doesn't have. It is decided by name, before anything is looked
// up, so that the answer doesn't tell which keys there are.
func firstLacking(c *access.Caller, versions []api.IncidentVersion, actions ...access.Action) (access.Right, bool) {
	for _, v := range versions {
		if keys.ValidateName(v.Key) != nil {
			continue // refused by its form in a moment
		}
		for _, a := range actions {
			if r := keyResource(v.Key); !allowed(c, a, r) {
				return access.Right{Action: a, Resource: r}, true
			}
		}
	}
	return access.Right{}, false
}

// maxVersions bounds how many versions one incident names, and maxTargets how many keys one rotates: its row holds them.
const (
	maxVersions = 1000
	maxTargets  = 100_000
)

// named looks up the versions that a request names, each once. Every problem is in the error.
func (s *Service) named(ctx context.Context, list []api.IncidentVersion) (out []incidents.Version, err error) {
	if len(list) > maxVersions {
		return nil, fault.Newf(api.CodeTooLarge, "more than %d versions are named", maxVersions).WithField("versions")
	}
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		out = nil
		var bad problems
		for n, v := range list {
			k, err := key(ctx, tx, "versions", n, v.Key)
			if err == nil {
				if _, ok := k.Version(v.Version); !ok {
					err = fault.Newf(api.CodeNotFound, "key %s has no version %d", k.Name, v.Version).WithField("versions").WithNext("keyturn key show " + k.Name + " lists them")
				}
			}
			if err := bad.add(err); err != nil {
				return err
			}
			out = append(out, incidents.Version{Key: k.Name, KeyID: k.ID, Number: v.Version})
		}
		return fault.Join(bad...)
	})
	return sorted(out), err
}

func sorted(list []incidents.Version) []incidents.Version {
	slices.SortFunc(list, func(a, b incidents.Version) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Number, b.Number))
	})
	return slices.Compact(list)
}

// key looks up a key that a request names in place n of a field. The error doesn't repeat the name: it may be anything.
func key(ctx context.Context, tx store.Tx, field string, n int, name string) (keys.Key, error) {
	if keys.ValidateName(name) != nil {
		return keys.Key{}, fault.Newf(api.CodeInvalid, "number %d of %s doesn't begin with a key's name", n+1, field).WithField(field).
			WithNext("name keys as keyturn key list does")
	}
	k, err := tx.KeyByName(ctx, name)
	if fault.CodeOf(err) == api.CodeNotFound {
		return k, fault.Newf(api.CodeNotFound, "number %d of %s names a key that doesn't exist", n+1, field).WithField(field).
			WithNext("keyturn key list names them")
	}
	return k, err
}

// problems gathers everything that is wrong with a request, so that it is said at once (fault.Join).
type problems []error

// add takes what is the request's fault; what isn't comes back.
func (p *problems) add(err error) error {
	switch fault.CodeOf(err) {
	case "":
	case api.CodeInvalid, api.CodeNotFound, api.CodeWrongState:
		*p = append(*p, err)
	default:
		return err
	}
	return nil
}

// open writes the incident, its job and its event in one transaction, or records why not.
func (s *Service) open(ctx context.Context, c *access.Caller, i incidents.Incident, checked error) (api.Incident, error) {
	i.OpenedBy = actor(c)
	kind := KindScope
	if i.Emergency {
		kind = KindEmergency
	}
	text, err := json.Marshal(args{i.ID})
	if err != nil {
		return api.Incident{}, fault.Wrap(api.CodeInternal, err, "writing a job's arguments")
	}
	in := gate.Intent{Action: access.IncidentWrite, Type: audit.Incident, Verb: "opened", Resource: resource(i.ID), Reason: i.Reason}
	err = s.cfg.Gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		if checked != nil {
			return checked
		}
		j, err := s.cfg.Enqueue(ctx, tx, jobs.Job{
			Kind: kind, Subject: subject(i.ID), UniqueKey: subject(i.ID), Args: text, Actor: i.OpenedBy,
			Priority: jobs.PriorityUrgent, Total: int64(len(i.Targets)),
		})
		if err != nil {
			return err
		}
		i.Job = j.ID
		describe(ev, &i)
		if err := tx.CreateIncident(ctx, i); err != nil {
			return err
		}
		failpoint.Hit("incident/inside-open")
		return tx.AddEntry(ctx, incidents.Entry{Incident: i.ID, Number: 1, Kind: incidents.Action, At: i.Opened, By: i.OpenedBy, Text: opening(&i)})
	})
	failpoint.Hit("incident/after-open")
	if err != nil {
		return api.Incident{}, err
	}
	return view(i), nil
}

func subject(id string) string { return "incident/" + id }

// maxScope is how many bytes of versions an event names; the incident has them all.
const maxScope = 1024

// describe says in an event what the incident is.
func describe(ev *audit.Event, i *incidents.Incident) {
	d := &ev.Details
	d.Incident, d.Emergency, d.Job, d.Label, d.Severity = i.ID, i.Emergency, i.Job, string(i.Type), string(i.Severity)
	d.Items, d.Count = uint64(len(i.Targets)), uint64(len(i.Versions))
	d.Scope = names(i.Versions, maxScope)
}

// names lists versions as "phi:3 pii:1", up to so many bytes.
func names(list []incidents.Version, most int) string {
	var b strings.Builder
	for n, v := range list {
		word := fmt.Sprintf("%s:%d", v.Key, v.Number)
		if b.Len()+len(word)+20 > most {
			fmt.Fprintf(&b, " and %d more", len(list)-n)
			break
		}
		if n > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	return b.String()
}

// opening is the first entry of an incident.
func opening(i *incidents.Incident) string {
	text := fmt.Sprintf("opened as %s, severity %s", i.Type, i.Severity)
	if i.Emergency {
		text += fmt.Sprintf("; emergency rotation of %d keys", len(i.Targets))
	}
	if len(i.Versions) > 0 {
		text += "; about " + names(i.Versions, maxScope)
	}
	return text
}
