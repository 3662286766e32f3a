package kms

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
)

// The labels of the MACs, one for each table, so that no row of one stands in for a row of another. The store's id is in
// the derivation of the key.
const (
	tableKeys       = "keys"
	tablePrincipals = "principals"
	tableTokens     = "tokens"
	tableMeta       = "meta"
	tablePolicies   = "policies"
	tableIncidents  = "incidents"
	tableEntries    = "incident_entries"
)

// attester makes and checks the MACs of rows. Without a ring it does neither.
type attester struct{ ring *keyring.Ring }

var errUnattested = fault.New(api.CodeUnavailable, "the store's rows can't be checked: the key-encryption keys aren't open yet")

func (a attester) sign(ctx context.Context, table string, f form) (string, error) {
	if a.ring == nil {
		return "", errUnattested
	}
	mac, err := a.ring.MAC(ctx, keys.KEKAudit, table, f)
	if err != nil {
		return "", fault.Wrap("", err, "signing a row of the store")
	}
	return mac, nil
}

func (a attester) check(ctx context.Context, table, row string, f form, mac string) error {
	if a.ring == nil {
		return errUnattested
	}
	err := a.ring.CheckMAC(ctx, keys.KEKAudit, table, f, mac)
	if fault.CodeOf(err) == api.CodeIntegrity {
		return fault.New(api.CodeIntegrity, "reading "+row+": its row in the store was not written by keyturn").
			WithNext("find out who writes to the database; keyturn doctor lists such rows, and a backup has them as they were")
	}
	return err
}

// key checks a key with its versions: by their numbers, too, so that nothing counts on a place that isn't there.
func (a attester) key(ctx context.Context, k keys.Key) error {
	if err := k.Whole(); err != nil {
		return err
	}
	return a.check(ctx, tableKeys, "key "+k.Name, keyForm(k), k.MAC)
}

func (a attester) principal(ctx context.Context, p access.Principal) error {
	return a.check(ctx, tablePrincipals, "principal "+p.Name, principalForm(p), p.MAC)
}

func (a attester) token(ctx context.Context, t access.Token) error {
	return a.check(ctx, tableTokens, "token "+t.ID, tokenForm(t), t.MAC)
}

func (a attester) policy(ctx context.Context, p keys.Policy) error {
	f, err := policyForm(p)
	if err != nil {
		return err
	}
	return a.check(ctx, tablePolicies, "policy "+p.Name, f, p.MAC)
}

func (a attester) incident(ctx context.Context, i incidents.Incident) error {
	return a.check(ctx, tableIncidents, "incident "+i.ID, incidentForm(i), i.MAC)
}

// entries checks all entries of an incident together: each by itself, and that none is missing.
func (a attester) entries(ctx context.Context, i incidents.Incident, list []incidents.Entry) error {
	for n, e := range list {
		if e.Number != int64(n)+1 {
			break // the count won't fit either
		}
		if err := a.check(ctx, tableEntries, fmt.Sprintf("entry %d of incident %s", e.Number, e.Incident), entryForm(e), e.MAC); err != nil {
			return err
		}
	}
	if int64(len(list)) != i.Entries || len(list) > 0 && list[len(list)-1].Number != i.Entries {
		return fault.Newf(api.CodeIntegrity, "reading incident %s: entries are missing, it had %d", i.ID, i.Entries).
			WithNext("find out who writes to the database; a backup has them as they were")
	}
	return nil
}

// form is what a MAC is over: every field with its length before it, so that no two rows have one form. Times are
// microseconds, as the store keeps them.
type form []byte

func (f form) text(s string) form {
	f = binary.BigEndian.AppendUint32(f, uint32(len(s)))
	return append(f, s...)
}

func (f form) number(n uint64) form {
	f = binary.BigEndian.AppendUint32(f, 8)
	return binary.BigEndian.AppendUint64(f, n)
}

func (f form) time(t time.Time) form {
	if t.IsZero() {
		return f.number(0)
	}
	return f.number(uint64(t.UnixMicro()))
}

func (f form) truth(b bool) form {
	if b {
		return f.number(1)
	}
	return f.number(0)
}

// keyForm leaves out the counters of use and the time of the last opening, which are written without reading the key.
func keyForm(k keys.Key) form {
	p := k.Cryptoperiod
	f := form{}.text(string(k.ID[:])).text(k.Name).text(string(k.Purpose)).text(string(k.Algorithm)).number(uint64(k.Suite)).
		number(uint64(p.Period.Microseconds())).number(uint64(p.Warn.Microseconds())).number(p.MaxOperations).number(p.MaxBytes).
		truth(k.SuspendedDecrypts).time(k.Created).number(uint64(k.Revision)).number(uint64(len(k.Versions)))
	for _, v := range k.Versions {
		f = f.number(uint64(v.Number)).text(string(v.State)).text(string(v.PriorState)).number(uint64(v.Seq)).
			time(v.Created).time(v.Activated).time(v.Expires).time(v.DestroyAt).time(v.Destroyed).
			text(string(v.KEK)).text(string(v.Wrapped)).text(v.Reason).text(v.Actor)
	}
	return append(f, laterForm(k)...)
}

// laterForm is what keys have since policies are: nothing for a key that has none of it, so that what was signed before
// verifies still.
func laterForm(k keys.Key) form {
	var samples form
	for _, v := range k.Versions {
		if v.Sample != nil {
			samples = samples.number(uint64(v.Number)).text(string(v.Sample))
		}
		if v.ForceBy != "" || !v.ForceAt.IsZero() {
			samples = samples.text("force").number(uint64(v.Number)).text(v.ForceBy).time(v.ForceAt)
		}
	}
	if !k.ByPolicy && samples == nil {
		return nil
	}
	return append(form{}.truth(k.ByPolicy), samples...)
}

func policyForm(p keys.Policy) (form, error) {
	rule, err := json.Marshal(p.Rule)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "signing a policy")
	}
	return form{}.text(p.Name).text(p.Key).text(string(p.Purpose)).text(p.Environment).text(string(rule)).time(p.Created).text(p.Actor), nil
}

func principalForm(p access.Principal) form {
	f := form{}.text(p.ID).text(p.Name).text(p.Role).truth(p.Disabled).time(p.Created).number(uint64(p.Revision)).number(uint64(len(p.Scope)))
	for _, s := range p.Scope {
		f = f.text(s)
	}
	f = f.number(uint64(len(p.Allow)))
	for _, a := range p.Allow {
		f = f.text(string(a))
	}
	return f.since(p.MadeBy)
}

func tokenForm(t access.Token) form {
	return form{}.text(t.ID).text(t.PrincipalID).text(string(t.Hash[:])).time(t.Created).time(t.Expires).time(t.Revoked).since(t.IssuedBy)
}

// since is text that rows have since a later release: nothing for a row without it, so that what was signed before verifies still.
func (f form) since(s string) form {
	if s == "" {
		return f
	}
	return f.text(s)
}

func incidentForm(i incidents.Incident) form {
	f := form{}.text(i.ID).text(string(i.Type)).text(string(i.Severity)).text(string(i.State)).text(i.Reason).text(i.Details).truth(i.Emergency).
		text(i.Job).time(i.Opened).text(i.OpenedBy).time(i.Closed).text(i.ClosedBy).text(i.ClosedReason).number(uint64(i.Entries)).
		number(uint64(i.Revision)).number(uint64(len(i.Versions)))
	for _, v := range i.Versions {
		f = f.text(v.Key).text(string(v.KeyID[:])).number(uint64(v.Number))
	}
	f = f.number(uint64(len(i.Targets)))
	for _, t := range i.Targets {
		f = f.text(t.Key).text(string(t.KeyID[:])).number(uint64(t.From)).number(uint64(t.Last))
	}
	return f
}

func entryForm(e incidents.Entry) form {
	return form{}.text(e.Incident).number(uint64(e.Number)).text(string(e.Kind)).time(e.At).text(e.By).text(e.Text).text(string(e.Data))
}

func settingForm(name, value string) form { return form{}.text(name).text(value) }
