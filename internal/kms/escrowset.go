package kms

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// metaEscrow is the setting that holds the escrow set, as JSON without blanks; empty once it was removed. It carries a MAC,
// see Attested.
const metaEscrow = "escrow"

var errNoShares = fault.New(api.CodeNotFound, "no escrow shares were made of this store").
	WithNext("make them: keyturn escrow split --shares 5 --threshold 3 --out DIR")

// escrowSet is what the store keeps of the shares that people have: never a share. The zero value is no set.
type escrowSet struct {
	Set       string    `json:"set"` // the key's fingerprint
	Threshold int       `json:"threshold"`
	Shares    int       `json:"shares"`
	Created   time.Time `json:"created"`
	Verified  time.Time `json:"verified,omitzero"` // when enough shares were last shown
	Sealed    []byte    `json:"sealed"`            // see keyring.EscrowSet
}

func readEscrow(ctx context.Context, tx store.Tx) (set escrowSet, err error) {
	text, err := tx.Meta(ctx, metaEscrow)
	switch {
	case fault.CodeOf(err) == api.CodeNotFound || err == nil && text == "":
		return escrowSet{}, nil
	case err != nil:
		return escrowSet{}, err
	case json.Unmarshal([]byte(text), &set) != nil || set.Set == "":
		return escrowSet{}, fault.New(api.CodeIntegrity, "reading the escrow set: it isn't in its form").WithNext("make new shares: keyturn escrow split")
	}
	return set, nil
}

// put stores the set, or that there is none.
func (e escrowSet) put(ctx context.Context, tx store.Tx) error {
	if e.Set == "" {
		return tx.SetMeta(ctx, metaEscrow, "")
	}
	text, err := json.Marshal(e)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "writing the escrow set")
	}
	return tx.SetMeta(ctx, metaEscrow, string(text))
}

func (e escrowSet) describe(ev *audit.Event) {
	ev.Details.Escrow, ev.Details.Threshold, ev.Details.Shares = e.Set, uint64(e.Threshold), uint64(e.Shares)
}

func (e escrowSet) view() api.Escrow {
	out := api.Escrow{Set: e.Set, Threshold: e.Threshold, Shares: e.Shares, Created: e.Created}
	if !e.Verified.IsZero() {
		out.Verified = &e.Verified
	}
	return out
}

func (s *Service) storedEscrow(ctx context.Context) (set escrowSet, err error) {
	err = s.st.View(ctx, func(tx store.Tx) (err error) {
		set, err = readEscrow(ctx, tx)
		return err
	})
	return set, err
}

// escrowChange is what happens to the set in a transaction that stores key-encryption keys. The zero value keeps it.
type escrowChange struct {
	put    *escrowSet // a new set …
	before string     // … in the place of this one, empty for none
	drop   bool
}

// apply writes the change, and holds the one rule of escrow: where there is a set, every key-encryption key is wrapped
// under its key, or nothing is stored. So a node whose configuration doesn't name escrow://, and one that knows an older
// set, can't take it away from the others unnoticed.
func (e escrowChange) apply(ctx context.Context, tx store.Tx, ev *audit.Event, records []keys.KEK) error {
	set, err := readEscrow(ctx, tx)
	if err != nil {
		return err
	}
	if e.drop {
		if set.Set == "" {
			return nil
		}
		set.describe(ev)
		return escrowSet{}.put(ctx, tx)
	}
	if e.put != nil {
		if set.Set != e.before {
			return fault.New(api.CodeConflict, "somebody else made escrow shares meanwhile").WithNext("see keyturn escrow show, then try again")
		}
		set = *e.put
		set.describe(ev)
		if err := set.put(ctx, tx); err != nil {
			return err
		}
	}
	for _, k := range records {
		if set.Set != "" && !slices.ContainsFunc(k.Wrappings, func(w keys.Wrapping) bool { return w.MasterID == set.Set }) {
			return fault.New(api.CodeConflict, "the store has escrow shares, and its key-encryption keys would no longer open with them").
				WithNext("add " + keyring.EscrowURL + " to masterKeys in the configuration of this node and start it again; or make new shares: keyturn escrow split; if new ones were made just now, try again")
		}
	}
	return nil
}

// attachEscrow gives the escrow key among masters, if there is one, its bytes out of the store as it is now, or the reason
// why it has none. That asks no network; the first time for a set it costs some microseconds for each key-encryption key.
func (s *Service) attachEscrow(ctx context.Context, masters []keyring.MasterKey) {
	for _, m := range masters {
		a, ok := m.(keyring.Attacher)
		if !ok {
			continue
		}
		if err := s.attach(ctx, a); err != nil && ctx.Err() == nil {
			a.Detach(err)
		}
	}
}

func (s *Service) attach(ctx context.Context, a keyring.Attacher) error {
	set, err := s.storedEscrow(ctx)
	if err != nil {
		return err
	}
	if set.Set == "" {
		return errNoShares
	}
	return s.ring.Attach(ctx, a, set.Set, set.Sealed)
}

// openMaster opens the master key of a URL, ready to wrap.
func (s *Service) openMaster(ctx context.Context, url string) (keyring.MasterKey, error) {
	m, err := s.cfg.Masters.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	if a, ok := m.(keyring.Attacher); ok {
		if err := s.attach(ctx, a); err != nil {
			_ = m.Close()
			code := fault.CodeOf(err)
			if code == api.CodeNotFound {
				code = api.CodeWrongState
			}
			return nil, fault.Wrap(code, err, "opening the escrow key").WithField("url").WithNext(errNoShares.Next)
		}
	}
	return m, nil
}

// escrowPresent says whether the store's set is still the one of this fingerprint; empty: a key that has none tells by
// itself why.
func (s *Service) escrowPresent(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	set, err := s.storedEscrow(ctx)
	if err == nil && set.Set != id {
		err = fault.New(api.CodeConflict, "other escrow shares were made meanwhile").WithNext("try again")
	}
	return err
}

// onlyOpener says whether the store would have nothing that opens it by itself without now[i].
func onlyOpener(now []keyring.MasterKey, i int) bool {
	return !slices.ContainsFunc(slices.Delete(slices.Clone(now), i, i+1), keyring.Opens)
}

// drill is how often somebody should show that the shares still give the key.
const drill = 365 * 24 * time.Hour

// checkEscrow warns of shares that nobody may have, and of those that who knew an old key-encryption key may have no need of.
func (s *Service) checkEscrow(ctx context.Context) (bool, string, string) {
	set, err := s.storedEscrow(ctx)
	if err != nil {
		return unknown(err)
	}
	configured := slices.ContainsFunc(s.ring.Masters(), func(m keyring.MasterKey) bool { return !keyring.Opens(m) })
	const again = "gather enough shares: keyturn escrow verify --record --share-file F …; or make new ones: keyturn escrow split"
	switch {
	case set.Set == "":
		return true, "no escrow shares were made", ""
	case !configured:
		return false, "the store has escrow shares, and this node's configuration doesn't name them", "add " + keyring.EscrowURL + " to masterKeys"
	case set.Verified.IsZero():
		return false, "nobody has shown that the escrow shares are kept", again
	case s.clock().Sub(set.Verified) > drill:
		return false, "the escrow shares were last shown on " + set.Verified.Format(time.DateOnly), again
	case !s.ring.SealedUnderActive(keys.KEKRecovery, set.Sealed):
		return false, "the escrow shares are older than the key-encryption keys: whoever knew the old ones could know what the shares give",
			"make new shares: keyturn escrow split --yes"
	}
	return true, "the escrow shares were shown on " + set.Verified.Format(time.DateOnly), ""
}
