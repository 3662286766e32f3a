package kms

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Attested is a store whose rows say who made them: principals, tokens, keys with their versions, incidents with their entries, and the settings
// that name the local administrator and the escrow set carry a MAC under a key-encryption key, made at every write and checked whenever one of
// them is read by itself. So whoever can write to the database, and has no master key, gives nobody a role, a token or
// another key's name: what he wrote is an error of code integrity that names the row.
//
// Lists (Keys, Principals, TokensOf, Incidents) are given as they stand: one bad row must not keep the others from being shown,
// rotated and destroyed. Nothing is decided by a list alone; what is done with one of its rows begins with reading that
// row by itself, and no row is written over one that was changed by other hands. Doctor checks every row.
//
// What a MAC can't tell is that a row was put back, whole, to what it once was, or taken away: the sums of rows do, see rowsum.go.
type Attested struct {
	store.Store
	ring *keyring.Ring

	mu   sync.Mutex      // guards seen
	seen [buckets]uint64 // by bucket, how often its sum had been written when this process last saw it
}

// Attest makes one; Under must follow before any of those rows is read or written. Key-encryption keys and everything
// else can be read at once, since the ring is opened over them.
func Attest(st store.Store) *Attested { return &Attested{Store: st} }

// Under names the ring that makes and checks the MACs. Call it once, before the store is used by more than one goroutine.
func (a *Attested) Under(ring *keyring.Ring) { a.ring = ring }

// View implements store.Store.
func (a *Attested) View(ctx context.Context, fn func(store.Tx) error) error {
	seen := a.sawBefore()
	return a.Store.View(ctx, func(tx store.Tx) error { return fn(&attestedTx{Tx: tx, by: a.attester(), seen: seen}) })
}

// Change implements store.Store. What it commits is signed and wrapped under key-encryption keys that are active at the commit:
// where another node replaced them meanwhile the new ones are opened, and fn runs again.
func (a *Attested) Change(ctx context.Context, fn func(store.Tx) error) error {
	for range triesUnderKEKs {
		err := a.changeOnce(ctx, fn)
		if !errors.Is(err, errKEKRetired) {
			return err
		}
		if err := a.ring.Refresh(ctx); err != nil {
			return err
		}
	}
	return fault.New(api.CodeBusy, "changing the store: its key-encryption keys were replaced again and again, or what was to be written doesn't stand under them").
		WithNext("try again; keyturn doctor says whether something is wrong with them")
}

// triesUnderKEKs is how often a change is tried with newer key-encryption keys: as often as operations whose key was changed.
const triesUnderKEKs = 8

func (a *Attested) changeOnce(ctx context.Context, fn func(store.Tx) error) error {
	var written map[int]uint64
	seen := a.sawBefore()
	err := a.Store.Change(ctx, func(tx store.Tx) (err error) {
		t := &attestedTx{Tx: tx, by: a.attester(), seen: seen}
		if err = fn(t); err == nil {
			err = t.underActive(ctx)
		}
		if err == nil {
			written, err = t.writeSums(ctx)
		}
		return err
	})
	if err == nil {
		a.saw(written)
	}
	return err
}

func (a *Attested) attester() attester { return attester{a.ring} }

// attestedTx makes and checks the MACs in one transaction.
type attestedTx struct {
	store.Tx
	by   attester
	seen [buckets]uint64 // Attested.seen before the transaction began: what it reads can't be older

	prints *keyring.Fingerprints // nil until a row is changed
	moved  map[int]sum           // by bucket, what the rows that were changed add to its sum

	under map[keys.KEKID]keys.KEKPurpose // the key-encryption keys under which something was written
}

// errKEKRetired is how changeOnce says that it did nothing, because it would have written under a key-encryption key that was
// replaced. It never leaves Change.
var errKEKRetired = fault.New(api.CodeBusy, "the key-encryption keys were replaced meanwhile")

// stands notes that something is written under a key-encryption key.
func (t *attestedTx) stands(purpose keys.KEKPurpose, id keys.KEKID) {
	if t.under == nil {
		t.under = map[keys.KEKID]keys.KEKPurpose{}
	}
	t.under[id] = purpose
}

// standsAnew notes it of those versions of k that are wrapped otherwise than in the stored row.
func (t *attestedTx) standsAnew(k, stored keys.Key) {
	for i, v := range k.Versions {
		if len(v.Wrapped) > 0 && (i >= len(stored.Versions) || !bytes.Equal(v.Wrapped, stored.Versions[i].Wrapped)) {
			t.stands(keys.KEKData, v.KEK)
		}
	}
}

// underActive refuses what stands under a key-encryption key that isn't the active one any more. The active ones are read in
// the transaction that writes, so that this is exact, however late this process hears of a rotation: one that is committed
// first is seen here; one that comes later finds what was written, and moves it. On PostgreSQL, where both go on at once, that is
// what serializable means.
func (t *attestedTx) underActive(ctx context.Context) error {
	if len(t.under) == 0 {
		return nil
	}
	active, err := t.Tx.ActiveKEKs(ctx)
	if err != nil {
		return err
	}
	for id, purpose := range t.under {
		if active[purpose] != id {
			return errKEKRetired
		}
	}
	return nil
}

// CreateKey implements keys.Tx.
func (t *attestedTx) CreateKey(ctx context.Context, k keys.Key) (err error) {
	k.Revision = 1
	if k.MAC, err = t.by.sign(ctx, tableKeys, keyForm(k)); err != nil {
		return err
	}
	if err := t.Tx.CreateKey(ctx, k); err != nil {
		return err
	}
	t.standsAnew(k, keys.Key{})
	return t.count(ctx, tableKeys, string(k.ID[:]), "", k.MAC)
}

// KeyByName implements keys.Tx.
func (t *attestedTx) KeyByName(ctx context.Context, name string) (keys.Key, error) {
	k, err := t.Tx.KeyByName(ctx, name)
	return t.checkedKey(ctx, k, err)
}

// KeyByID implements keys.Tx.
func (t *attestedTx) KeyByID(ctx context.Context, id envelope.KeyID) (keys.Key, error) {
	k, err := t.Tx.KeyByID(ctx, id)
	return t.checkedKey(ctx, k, err)
}

func (t *attestedTx) checkedKey(ctx context.Context, k keys.Key, err error) (keys.Key, error) {
	if err == nil {
		err = t.by.key(ctx, k)
	}
	if err != nil {
		return keys.Key{}, err
	}
	return k, nil
}

// UpdateKey implements keys.Tx. The row that is replaced is checked once more: k may come from a list.
func (t *attestedTx) UpdateKey(ctx context.Context, k keys.Key) error {
	row, err := t.KeyByID(ctx, k.ID)
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	stored := k
	stored.Revision++
	if k.MAC, err = t.by.sign(ctx, tableKeys, keyForm(stored)); err != nil {
		return err
	}
	if err := t.Tx.UpdateKey(ctx, k); err != nil {
		return err
	}
	t.standsAnew(k, row)
	return t.count(ctx, tableKeys, string(k.ID[:]), row.MAC, k.MAC)
}

// PutPolicy implements keys.Tx.
func (t *attestedTx) PutPolicy(ctx context.Context, p keys.Policy) error {
	f, err := policyForm(p)
	if err != nil {
		return err
	}
	if p.MAC, err = t.by.sign(ctx, tablePolicies, f); err != nil {
		return err
	}
	before, err := t.policyMAC(ctx, p.Name)
	if err != nil {
		return err
	}
	if err := t.Tx.PutPolicy(ctx, p); err != nil {
		return err
	}
	return t.count(ctx, tablePolicies, p.Name, before, p.MAC)
}

// DeletePolicy implements keys.Tx.
func (t *attestedTx) DeletePolicy(ctx context.Context, name string) error {
	before, err := t.policyMAC(ctx, name)
	if err != nil {
		return err
	}
	if err := t.Tx.DeletePolicy(ctx, name); err != nil {
		return err
	}
	return t.count(ctx, tablePolicies, name, before, "")
}

// policyMAC is the MAC of a stored policy; "" where there is none, or where other hands wrote it.
func (t *attestedTx) policyMAC(ctx context.Context, name string) (string, error) {
	ours, err := t.Policies(ctx)
	for _, p := range ours {
		if p.Name == name {
			return p.MAC, err
		}
	}
	return "", err
}

// Policies implements keys.Tx. Unlike other lists it is what decisions are made by, so policies that somebody else wrote
// are left out of it: as if they weren't there, which whoever writes to the database could have as well. Doctor names them.
func (t *attestedTx) Policies(ctx context.Context) ([]keys.Policy, error) {
	list, err := t.Tx.Policies(ctx)
	var ours []keys.Policy
	for _, p := range list {
		switch err := t.by.policy(ctx, p); {
		case err == nil:
			ours = append(ours, p)
		case fault.CodeOf(err) != api.CodeIntegrity:
			return nil, err
		}
	}
	return ours, err
}

// CreatePrincipal implements access.Tx.
func (t *attestedTx) CreatePrincipal(ctx context.Context, p access.Principal) (err error) {
	p.Revision = 1
	if p.MAC, err = t.by.sign(ctx, tablePrincipals, principalForm(p)); err != nil {
		return err
	}
	if err := t.Tx.CreatePrincipal(ctx, p); err != nil {
		return err
	}
	return t.count(ctx, tablePrincipals, p.ID, "", p.MAC)
}

// PrincipalByID implements access.Tx.
func (t *attestedTx) PrincipalByID(ctx context.Context, id string) (access.Principal, error) {
	p, err := t.Tx.PrincipalByID(ctx, id)
	return t.checkedPrincipal(ctx, p, err)
}

// PrincipalByName implements access.Tx.
func (t *attestedTx) PrincipalByName(ctx context.Context, name string) (access.Principal, error) {
	p, err := t.Tx.PrincipalByName(ctx, name)
	return t.checkedPrincipal(ctx, p, err)
}

func (t *attestedTx) checkedPrincipal(ctx context.Context, p access.Principal, err error) (access.Principal, error) {
	if err == nil {
		err = t.by.principal(ctx, p)
	}
	if err != nil {
		return access.Principal{}, err
	}
	return p, nil
}

// UpdatePrincipal implements access.Tx. The row that is replaced is checked once more: p may come from a list.
func (t *attestedTx) UpdatePrincipal(ctx context.Context, p access.Principal) error {
	row, err := t.PrincipalByID(ctx, p.ID)
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	stored := p
	stored.Revision++
	if p.MAC, err = t.by.sign(ctx, tablePrincipals, principalForm(stored)); err != nil {
		return err
	}
	if err := t.Tx.UpdatePrincipal(ctx, p); err != nil {
		return err
	}
	return t.count(ctx, tablePrincipals, p.ID, row.MAC, p.MAC)
}

// PutToken implements access.Tx. A token that somebody else wrote is ended as any other, and stays without a MAC.
func (t *attestedTx) PutToken(ctx context.Context, k access.Token) (err error) {
	row, err := t.TokenByID(ctx, k.ID) // zero when it isn't one of ours
	switch fault.CodeOf(err) {
	case api.CodeIntegrity:
		k.MAC = ""
	case api.CodeNotFound, "":
		if k.MAC, err = t.by.sign(ctx, tableTokens, tokenForm(k)); err != nil {
			return err
		}
	default:
		return err
	}
	if err := t.Tx.PutToken(ctx, k); err != nil {
		return err
	}
	return t.count(ctx, tableTokens, k.ID, row.MAC, k.MAC)
}

// TokenByID implements access.Tx.
func (t *attestedTx) TokenByID(ctx context.Context, id string) (access.Token, error) {
	k, err := t.Tx.TokenByID(ctx, id)
	if err == nil {
		err = t.by.token(ctx, k)
	}
	if err != nil {
		return access.Token{}, err
	}
	return k, nil
}

// attestedSettings carry a MAC.
var attestedSettings = []string{metaLocalAdministrator, metaEscrow, datasets.SettingBound}

func attestedSetting(name string) bool { return slices.Contains(attestedSettings, name) }

// settingMAC is the MAC in what an attested setting is kept as.
func settingMAC(stored string) string {
	_, mac, _ := strings.Cut(stored, " ")
	return mac
}

// SetMeta implements store.Tx. An attested setting is kept as its value, which holds no space, a space and the MAC.
func (t *attestedTx) SetMeta(ctx context.Context, name, value string) error {
	if !attestedSetting(name) {
		return t.Tx.SetMeta(ctx, name, value)
	}
	before, err := t.Tx.Meta(ctx, name)
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	mac, err := t.by.sign(ctx, tableMeta, settingForm(name, value))
	if err != nil {
		return err
	}
	if err := t.Tx.SetMeta(ctx, name, value+" "+mac); err != nil {
		return err
	}
	return t.count(ctx, tableMeta, name, settingMAC(before), mac)
}

// Meta implements store.Tx.
func (t *attestedTx) Meta(ctx context.Context, name string) (string, error) {
	value, err := t.Tx.Meta(ctx, name)
	if err != nil || !attestedSetting(name) {
		return value, err
	}
	value, mac, _ := strings.Cut(value, " ")
	if err := t.by.check(ctx, tableMeta, "setting "+name, settingForm(name, value), mac); err != nil {
		return "", err
	}
	return value, nil
}
