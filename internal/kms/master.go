package kms

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// The order of a change of master keys, and what a crash leaves behind: the key-encryption keys are wrapped anew in
// memory (master keys are asked over the network, so before the transaction), then stored in one transaction with the
// event, then the ring takes the new list, then the configuration is written. Killed after the transaction, the
// configuration is the old one: after an addition its keys still open everything, and the same command does the rest;
// after a removal, the keys that stay open everything, and doctor shows the one that doesn't.

var masterResource = access.Resource{Kind: access.KindMaster}

// Masters lists the configured master keys and whether each opens every key-encryption key now.
func (s *Service) Masters(ctx context.Context, c *access.Caller) (api.MasterKeyList, error) {
	return s.masters(ctx, c, "listed")
}

// VerifyMasters proves it anew, as Masters does; it is recorded as a verification.
func (s *Service) VerifyMasters(ctx context.Context, c *access.Caller) (api.MasterKeyList, error) {
	return s.masters(ctx, c, "verified")
}

func (s *Service) masters(ctx context.Context, c *access.Caller, verb string) (api.MasterKeyList, error) {
	out := api.MasterKeyList{}
	in := gate.Intent{Action: access.MasterRead, Type: audit.ConfigRead, Verb: verb, Resource: masterResource}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		out.MasterKeys, out.Elsewhere = s.masterViews(ctx)
		ev.Details.Items = uint64(len(out.MasterKeys))
		for _, m := range out.MasterKeys {
			if !m.OK {
				ev.Details.Failed++
			}
		}
		return nil
	})
	if err != nil {
		return api.MasterKeyList{}, err
	}
	return out, nil
}

// masterViews shows the configured master keys, and those that the store is wrapped under beside them.
func (s *Service) masterViews(ctx context.Context) ([]api.MasterKey, []api.MasterKeyElsewhere) {
	out := []api.MasterKey{}
	all, others := s.verifyMasters(ctx)
	for _, m := range all {
		v := api.MasterKey{URL: m.URL, Provider: m.Provider, Kind: string(m.Kind), OK: m.OK}
		if m.Err != nil {
			v.Detail, v.Next = fault.MessageOf(m.Err), cure(m.URL, m.Err)
		}
		out = append(out, v)
	}
	var elsewhere []api.MasterKeyElsewhere
	for _, e := range others {
		elsewhere = append(elsewhere, api.MasterKeyElsewhere{
			URL: e.URL, Fingerprint: e.ID, KEKs: e.KEKs,
			Detail: fmt.Sprintf("%d key-encryption keys are wrapped under it, and this node doesn't have it; to give it up: keyturn master remove %s", e.KEKs, e.Name),
		})
	}
	return out, elsewhere
}

// rotation is the answer of a change of master keys.
func (s *Service) rotation(ctx context.Context, rewrapped int) api.MasterRotation {
	out := api.MasterRotation{Rewrapped: rewrapped}
	out.MasterKeys, out.Elsewhere = s.masterViews(ctx)
	return out
}

// masterChange is a change of the list of master keys.
type masterChange struct {
	next []keyring.MasterKey      // the list after it
	url  string                   // what the event names; of several, with spaces between
	gone func(keys.Wrapping) bool // wrappings under master keys that only other nodes have, and that go with it; nil: none
	drop bool                     // the escrow set goes
}

// AddMaster wraps every key-encryption key under one more master key, and writes it into the configuration as the last.
func (s *Service) AddMaster(ctx context.Context, c *access.Caller, in api.MasterKeyRequest) (api.MasterRotation, error) {
	return s.changeMasters(ctx, c, "master_added", func(ctx context.Context, now []keyring.MasterKey) (masterChange, error) {
		if err := s.mastersEditable(); err != nil {
			return masterChange{}, err // nor is the URL recorded: it may be a key, pasted
		}
		if len(in.Also) > 0 {
			return masterChange{}, fault.New(api.CodeInvalid, "adding a master key: one at a time").WithField("also").WithNext("leave it out")
		}
		if err := nameable(c, in.URL, now); err != nil {
			return masterChange{}, err
		}
		added, err := s.openMaster(ctx, in.URL)
		if err != nil {
			return masterChange{}, notOpened(c, in.URL, err)
		}
		for _, m := range now {
			if m.ID() == added.ID() || m.URL() == added.URL() {
				_ = added.Close()
				return masterChange{url: added.URL()}, fault.Newf(api.CodeConflict, "adding a master key: it is configured already, as %s", m.URL()).WithField("url").
					WithNext("keyturn master list names them; to wrap everything under it anew: keyturn master rotate")
			}
		}
		return masterChange{next: append(slices.Clone(now), added), url: added.URL()}, nil
	})
}

// RemoveMaster takes a master key out: nothing stays wrapped under it. The last one stays. It may also be one that only other
// nodes have, by its URL or fingerprint. Those of in.Also go in the same step. While other nodes run, in.OtherNodes must say that they know: without that key
// they may have none that opens the store.
func (s *Service) RemoveMaster(ctx context.Context, c *access.Caller, in api.MasterKeyRequest) (api.MasterRotation, error) {
	var running []string
	out, err := s.changeMasters(ctx, c, "master_removed", func(ctx context.Context, now []keyring.MasterKey) (masterChange, error) {
		change, err := s.removals(ctx, append([]string{in.URL}, in.Also...), now)
		if err != nil || change.url == keyring.EscrowURL { // which is no node's way in
			return change, err
		}
		if running, err = s.otherNodes(ctx); err == nil && len(running) > 0 && !in.OtherNodes {
			err = fault.New(api.CodeInUse, "removing a master key: other nodes are running and may have no other one that opens the store: "+strings.Join(running, ", ")).
				WithField("otherNodes").WithNext("give each the list without it and start it anew (docs/running-many-nodes.md); then keyturn master remove " + change.url + " --yes")
		}
		return change, err
	})
	out.OtherNodes = running
	return out, err
}

// removals is the change that takes master keys away, one after the other.
func (s *Service) removals(ctx context.Context, names []string, now []keyring.MasterKey) (masterChange, error) {
	all := masterChange{next: now}
	var urls []string
	for i, name := range names {
		if s.cfg.Masters != nil {
			names[i] = s.cfg.Masters.Canonical(ctx, name) // as in a configuration that was written by hand
		}
		if slices.Contains(names[:i], names[i]) {
			continue
		}
		one, err := s.removal(ctx, names[i], all.next)
		if one.url != "" {
			urls = append(urls, one.url)
			all.url = strings.Join(urls, " ")
		}
		if err != nil {
			return all, err
		}
		all = masterChange{next: one.next, url: all.url, gone: either(all.gone, one.gone), drop: all.drop || one.drop}
	}
	return all, nil
}

// removal is the change that takes a master key away.
func (s *Service) removal(ctx context.Context, url string, now []keyring.MasterKey) (masterChange, error) {
	i := slices.IndexFunc(now, func(m keyring.MasterKey) bool { return m.URL() == url })
	if i < 0 {
		return s.giveUp(ctx, url, now)
	}
	if err := s.mastersEditable(); err != nil {
		return masterChange{}, err
	}
	if onlyOpener(now, i) {
		return masterChange{url: url}, fault.New(api.CodeInUse, "removing a master key: it is the last one that opens the store by itself").
			WithField("url").WithNext("add another one first: keyturn master add URL")
	}
	return masterChange{next: slices.Delete(slices.Clone(now), i, i+1), url: url, drop: !keyring.Opens(now[i])}, nil
}

// giveUp is the change that takes away what is wrapped under a master key that this node doesn't have, named by its URL or
// its fingerprint.
func (s *Service) giveUp(ctx context.Context, name string, now []keyring.MasterKey) (masterChange, error) {
	all, err := s.ring.Elsewhere(ctx)
	if err != nil {
		return masterChange{}, err
	}
	var found []keyring.Elsewhere
	for _, e := range all {
		if e.URL == name || e.ID == name {
			found = append(found, e)
		}
	}
	switch {
	case len(found) == 0:
		return masterChange{}, fault.New(api.CodeNotFound, "removing a master key: none with this URL is configured, and nothing is wrapped under one").WithField("url").
			WithNext("see keyturn master list")
	case len(found) > 1:
		return masterChange{url: name}, fault.New(api.CodeConflict, "removing a master key: several with this URL have wrapped the key-encryption keys").WithField("url").
			WithNext("name it by its fingerprint, see keyturn master list")
	}
	id := found[0].ID
	return masterChange{
		next: now, url: found[0].URL, drop: found[0].URL == keyring.EscrowURL,
		gone: func(w keys.Wrapping) bool { return w.MasterID == id },
	}, nil
}

// otherNodes names the nodes that run on the store beside this one.
func (s *Service) otherNodes(ctx context.Context) ([]string, error) {
	if s.cfg.OtherNodes == nil {
		return nil, nil
	}
	return s.cfg.OtherNodes(ctx)
}

// nameable keeps callers over the network from asking which files and variables there are on this machine, and from having
// it load a library, which is code (pkcs11): those are named by callers on it, unless the configuration names them anyway. Keys of other
// providers may be named, as their URLs carry no credential and no address.
func nameable(c *access.Caller, url string, now []keyring.MasterKey) error {
	scheme, _, _ := strings.Cut(url, ":") // as keyring.DriverFor does
	here := scheme == "file" || scheme == "env" || scheme == "pkcs11"
	if !here || c.Local() || slices.ContainsFunc(now, func(m keyring.MasterKey) bool { return m.URL() == url }) {
		return nil
	}
	return fault.New(api.CodeInvalid, "adding a master key: a file, variable or library of the server can't be named over the network").WithField("url").
		WithNext("run the command on the server's machine, as the user that keyturn runs as and without a token")
}

// notOpened is why a new master key can't be opened. Where no file or variable is, the cause is left out: it quotes the URL,
// and who pastes a key in its place names nothing that is. Over the network every reason is the same: the server asks with
// its own credentials, and what it was told (no such secret, no right to it, no key in it) would be told on to who has none.
func notOpened(c *access.Caller, url string, err error) error {
	// What escrow:// says is about the store alone.
	if !c.Local() && url != keyring.EscrowURL && fault.FieldOf(err) != keyring.FieldURL && fault.CodeOf(err) != api.CodeCancelled {
		return fault.New(api.CodeUnavailable, "adding a master key: the server can't use what the URL names").WithField("url").
			WithNext("run the command on the server's machine, where it is told why")
	}
	scheme, _, _ := strings.Cut(url, ":")
	quoted := scheme == "file" || scheme == "env"
	if code := fault.CodeOf(err); quoted && (code == api.CodeNotFound || code == api.CodeUnavailable) {
		return fault.New(code, "adding a master key: what the URL names can't be found or read").WithField("url").
			WithNext("check the URL: file:///path/to/key, env://NAME of a variable of the server, or what the page of another provider says; keyturn master generate makes a key")
	}
	return fault.Wrap("", err, "adding a master key")
}

// mastersEditable says whether the list of master keys can be changed here at all, before anything is wrapped anew: a
// store that is changed while its configuration can't follow opens only after somebody edited that by hand.
func (s *Service) mastersEditable() error {
	if s.cfg.Masters == nil {
		return errFixedMasters
	}
	return s.cfg.Masters.Editable()
}

var errFixedMasters = fault.New(api.CodeWrongState, "the list of master keys can't be changed here").
	WithNext("change masterKeys in the configuration, then keyturn master rotate; give up one that was taken out of it: keyturn master remove URL")

// RotateMasters wraps the key-encryption keys anew under the configured master keys; with in.KEKs it makes a new
// generation of each and moves every version of every key under it. No data is touched either way.
func (s *Service) RotateMasters(ctx context.Context, c *access.Caller, in api.RotateMasterRequest) (api.MasterRotation, error) {
	if in.KEKs {
		return s.rotateKEKs(ctx, c)
	}
	return s.changeMasters(ctx, c, "master_rotated", func(_ context.Context, now []keyring.MasterKey) (masterChange, error) {
		return masterChange{next: now}, nil
	})
}

// changeMasters makes the list of master keys what choose says. What is wrapped under master keys of other nodes stays, but
// for what the change gives up.
func (s *Service) changeMasters(ctx context.Context, c *access.Caller, verb string,
	choose func(context.Context, []keyring.MasterKey) (masterChange, error)) (api.MasterRotation, error) {
	s.masterMu.Lock()
	defer s.masterMu.Unlock()
	var change masterChange
	var read, wrapped []keys.KEK
	var refused error
	now := s.ring.Masters()
	if allowed(c, access.MasterChange, masterResource) { // nobody else has us open files or call services
		s.attachEscrow(ctx, now)
		// Adding one rescues a store whose other key is gone; everything else needs all that stay.
		if change, refused = choose(ctx, now); refused == nil && len(change.next) <= len(now) {
			refused = s.allPresent(ctx, change.next, change.url)
		}
		if refused == nil {
			read, wrapped, refused = s.wrapAnew(ctx, change.next, either(keyring.Without(now, change.next), change.gone))
		}
	}
	intent := gate.Intent{Action: access.MasterChange, Type: audit.ConfigWrite, Verb: verb, Resource: masterResource}
	if err := s.storeKEKs(ctx, c, intent, read, wrapped, change.url, refused, escrowChange{drop: change.drop}); err != nil {
		closeNew(change.next, now)
		return api.MasterRotation{}, err
	}
	failpoint.Hit("kms/after-masters")
	ctx, cancel := finishing(ctx) // what the store says now this process must, too
	defer cancel()
	if err := s.ring.Use(ctx, change.next); err != nil {
		return api.MasterRotation{}, err
	}
	if err := s.saveMasters(ctx, now, change.next); err != nil {
		return api.MasterRotation{}, err
	}
	return s.rotation(ctx, len(wrapped)), nil
}

// finishing is the context of what is left to be done after a commit, whoever hung up meanwhile: for so long at most, since masterMu
// is held.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
}

// wrapAnew wraps the store's key-encryption keys under masters, and gives what it made with what it was made from.
func (s *Service) wrapAnew(ctx context.Context, masters []keyring.MasterKey, gone func(keys.Wrapping) bool) (read, wrapped []keys.KEK, err error) {
	if read, err = (Directory{s.st}).KEKs(ctx); err != nil {
		return nil, nil, err
	}
	wrapped, err = s.ring.RewrapKEKs(ctx, read, masters, gone)
	return read, wrapped, err
}

// either is what a or b says; nil says no.
func either(a, b func(keys.Wrapping) bool) func(keys.Wrapping) bool {
	return func(w keys.Wrapping) bool { return a != nil && a(w) || b != nil && b(w) }
}

// closeNew lets go of master keys that were opened for a change that didn't happen.
func closeNew(next, now []keyring.MasterKey) {
	for _, m := range next {
		if !slices.Contains(now, m) {
			_ = m.Close()
		}
	}
}

// saveMasters writes the configuration if the list has changed.
func (s *Service) saveMasters(ctx context.Context, before, after []keyring.MasterKey) error {
	if slices.Equal(before, after) {
		return nil
	}
	urls := make([]string, len(after))
	for i, m := range after {
		urls[i] = m.URL()
	}
	if err := s.cfg.Masters.Save(ctx, urls); err != nil {
		return fault.Wrap("", err, "the store is changed, writing the configuration").
			WithNext("make masterKeys in the configuration the list that keyturn master list shows")
	}
	return nil
}

// storeKEKs writes key-encryption keys with their event, unless somebody changed since what they were made from: read.
func (s *Service) storeKEKs(ctx context.Context, c *access.Caller, in gate.Intent, read, records []keys.KEK, url string, refused error, set escrowChange) error {
	if refused != nil {
		return s.refuse(ctx, c, in, func(ev *audit.Event) { ev.Details.MasterKey = url }, refused)
	}
	return s.gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.MasterKey = url
		stored, err := tx.KEKs(ctx)
		if err != nil {
			return err
		}
		if !follows(records, stored) || !sameWrappings(read, stored) {
			return fault.New(api.CodeConflict, "the key-encryption keys were changed by somebody else meanwhile").WithNext("try again")
		}
		if err := set.apply(ctx, tx, ev, records); err != nil {
			return err
		}
		if err := tx.PutKEKs(ctx, records...); err != nil {
			return err
		}
		ev.Details.Changed = uint64(len(records))
		return nil
	})
}

// follows says whether records were made from what is stored: they name every stored key that is active, and no other of
// a generation that is stored already.
func follows(records, stored []keys.KEK) bool {
	type generation struct {
		purpose keys.KEKPurpose
		version uint32
	}
	made, by := map[keys.KEKID]bool{}, map[generation]keys.KEKID{}
	for _, k := range records {
		made[k.ID], by[generation{k.Purpose, k.Version}] = true, k.ID
	}
	for _, k := range stored {
		if k.Active && !made[k.ID] {
			return false
		}
		if id, ok := by[generation{k.Purpose, k.Version}]; ok && id != k.ID {
			return false
		}
	}
	return true
}

// sameWrappings says whether what was read of key-encryption keys is wrapped as it is in what is stored now, blob for blob:
// otherwise another node's master key, added in between, would lose its wrappings, or one that was removed have them back.
func sameWrappings(read, stored []keys.KEK) bool {
	now := make(map[keys.KEKID][]keys.Wrapping, len(stored))
	for _, k := range stored {
		now[k.ID] = k.Wrappings
	}
	for _, k := range read {
		same := func(a, b keys.Wrapping) bool {
			return a.MasterID == b.MasterID && a.URL == b.URL && bytes.Equal(a.Blob, b.Blob)
		}
		if !slices.EqualFunc(k.Wrappings, now[k.ID], same) {
			return false
		}
	}
	return true
}

// retired are those of a new generation's records that were stored before; of the others nothing was read.
func retired(made []keys.KEK) []keys.KEK {
	return slices.DeleteFunc(slices.Clone(made), func(k keys.KEK) bool { return k.Active })
}
