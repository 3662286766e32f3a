package kms

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/escrow"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
	"github.com/keyturn/keyturn/internal/store"
)

// split makes a set of shares and has it count, or its preparation must fail with a code.
func (h *house) split(svc *Service, shares, threshold int, replace bool, code ...api.Code) api.EscrowShares {
	h.t.Helper()
	out, err := svc.PrepareEscrow(context.Background(), owner(), api.SplitEscrowRequest{Shares: shares, Threshold: threshold, Replace: replace})
	if len(code) > 0 {
		wants(h.t, err, code[0])
		return out
	}
	h.must(err)
	h.must(second(svc.CommitEscrow(context.Background(), owner(), api.CommitEscrowRequest{Set: out.Set})))
	return out
}

// prepared is a set that doesn't count.
func (h *house) prepared(svc *Service, in api.SplitEscrowRequest) api.EscrowShares {
	h.t.Helper()
	out, err := svc.PrepareEscrow(h.t.Context(), owner(), in)
	h.must(err)
	return out
}

// recovers says whether shares open the store.
func (h *house) recovers(set api.EscrowShares, numbers ...int) error {
	h.t.Helper()
	var shares []keyring.EscrowShare
	for _, n := range numbers {
		s, err := keyring.ParseEscrowShare("share", bytes.Clone(set.Shares[n-1].Text))
		h.must(err)
		shares = append(shares, s)
	}
	m, err := keyring.CombineShares(shares)
	if err != nil {
		return err
	}
	master, err := keyring.Hold("file:///recovered", "file", m)
	h.must(err)
	ring := keyring.New(h.st.ID(), []keyring.MasterKey{master}, Directory{h.st})
	defer ring.Close() //nolint:errcheck // of a test
	if err := ring.Open(h.t.Context()); err != nil {
		return err
	}
	k := h.stored("phi")
	_, err = ring.Version(h.t.Context(), &k, 1)
	return err
}

func (h *house) mastersOK() bool {
	h.t.Helper()
	out, err := h.svc.VerifyMasters(h.t.Context(), owner())
	h.must(err)
	return !slices.ContainsFunc(out.MasterKeys, func(m api.MasterKey) bool { return !m.OK })
}

func TestEscrowLife(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	set := h.prepared(h.svc, api.SplitEscrowRequest{Shares: 5, Threshold: 3})
	if len(set.Shares) != 5 || set.Threshold != 3 || set.Shares[4].Index != 5 {
		t.Errorf("%d shares, %d", len(set.Shares), set.Threshold)
	}
	if e := h.lastEvent(); e.Action != "escrow_prepared" || e.Details["escrow"] != set.Set || e.Details["threshold"] != 3.0 || e.Details["shares"] != 5.0 || e.Details["master_key"] != "escrow://" {
		t.Errorf("%s", e.raw)
	}
	made, err := h.svc.CommitEscrow(t.Context(), owner(), api.CommitEscrowRequest{Set: set.Set})
	h.must(err)
	if made != (api.EscrowSplit{Set: set.Set, Threshold: 3, Shares: 5, Rewrapped: len(keys.KEKPurposes())}) {
		t.Errorf("%+v", made)
	}
	if e := h.lastEvent(); e.Action != "escrow_split" || e.Details["escrow"] != set.Set || e.Details["threshold"] != 3.0 || e.Details["shares"] != 5.0 || e.Details["master_key"] != "escrow://" {
		t.Errorf("%s", e.raw)
	}
	if strings.Join(h.config.saved, " ") != "file:///first escrow://" {
		t.Errorf("saved %v", h.config.saved)
	}
	h.must(h.recovers(set, 1, 3, 5))
	wants(t, h.recovers(set, 2, 4), api.CodeInvalid)

	// Everything turns on without a share, and the shares go on opening.
	_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})
	h.must(err)
	_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})
	h.must(err)
	_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///first"})
	h.must(err)
	if !h.mastersOK() {
		t.Error("a master key doesn't open everything")
	}
	h.must(h.recovers(set, 2, 3, 4))
	h.opens("phi", text, "x", nil, 1)

	// A new set only when asked for; then the old one opens nothing.
	before := len(h.config.saved)
	h.split(h.svc, 3, 2, false, api.CodeConflict)
	h.must(h.recovers(set, 2, 3, 4))
	fresh := h.split(h.svc, 3, 2, true)
	wants(t, h.recovers(set, 2, 3, 4), api.CodeIntegrity)
	h.must(h.recovers(fresh, 3, 1))
	if !h.mastersOK() || len(h.config.saved) != before {
		t.Errorf("saved %v", h.config.saved)
	}

	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///second"})
	wants(t, err, api.CodeInUse, "url")
	out, err := h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "escrow://"})
	h.must(err)
	if e := h.lastEvent(); len(out.MasterKeys) != 1 || e.Details["escrow"] != fresh.Set {
		t.Errorf("%+v, %s", out, e.raw)
	}
	wants(t, h.recovers(fresh, 3, 1), api.CodeIntegrity)
	_, err = h.svc.Escrow(t.Context(), owner())
	wants(t, err, api.CodeNotFound)
	_, err = h.svc.AddMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "escrow://"})
	wants(t, err, api.CodeWrongState, "url")
	h.opens("phi", text, "x", nil, 1)
}

func TestEscrowRefusals(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	for _, n := range [][2]int{{5, 1}, {5, 17}, {2, 3}, {65, 3}, {0, 0}, {-1, -1}} {
		h.split(h.svc, n[0], n[1], false, api.CodeInvalid)
	}
	for _, role := range []string{access.RoleKeyAdministrator, access.RoleApplication, access.RoleAuditor, access.RoleBackup} {
		_, err := h.svc.PrepareEscrow(t.Context(), as(role), api.SplitEscrowRequest{Shares: 5, Threshold: 3})
		wants(t, err, api.CodeDenied)
		_, err = h.svc.CommitEscrow(t.Context(), as(role), api.CommitEscrowRequest{})
		wants(t, err, api.CodeDenied)
		_, err = h.svc.EscrowVerified(t.Context(), as(role), api.EscrowVerifiedRequest{})
		wants(t, err, api.CodeDenied)
	}
	if _, err := h.svc.Escrow(t.Context(), as(access.RoleAuditor)); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("%v", err)
	}
	h.config.fixed = fault.New(api.CodeConflict, "the list comes from the environment")
	h.split(h.svc, 5, 3, false, api.CodeConflict)
	if h.config.saved != nil || h.config.opened != 0 {
		t.Errorf("saved %v, opened %d", h.config.saved, h.config.opened)
	}
	h.config.fixed = nil
	set := h.split(h.svc, 5, 3, false)
	h.config.fixed = fault.New(api.CodeConflict, "the list comes from the environment")
	fresh := h.split(h.svc, 5, 3, true) // escrow:// is in the list already
	wants(t, h.recovers(set, 1, 2, 3), api.CodeIntegrity)
	h.must(h.recovers(fresh, 1, 2, 3))
	// One is let go for another: then all that stay must be there.
	h.config.openErr = fault.New(api.CodeNotFound, "gone")
	h.split(h.svc, 5, 3, true, api.CodeNotFound)
	h.config.openErr = nil
	h.must(h.recovers(fresh, 1, 2, 3))
}

// P3: the texts of the shares are in the answer and nowhere else.
func TestNoShareStaysAnywhere(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	set := h.split(h.svc, 5, 3, false)
	fresh := h.split(h.svc, 5, 3, true)
	all := h.everything()
	for _, e := range h.events() {
		all = append(all, e.raw...)
	}
	for _, share := range append(set.Shares, fresh.Shares...) {
		_, body, _ := strings.Cut(string(share.Text), "kt-share1\n")
		for _, part := range []string{body, strings.Map(onlyCode, body), body[30:45]} {
			if bytes.Contains(all, []byte(part)) {
				t.Errorf("share %d is in the store or its log", share.Index)
			}
		}
	}
	if !bytes.Contains(all, []byte(fresh.Set)) {
		t.Error("looked in the wrong place: not even the set is there")
	}
}

func onlyCode(r rune) rune {
	if r == '-' || r == '\n' {
		return -1
	}
	return r
}

// A drill is recorded, for the store's own set only; doctor says what is missing.
func TestEscrowDrill(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	says := func(ok bool, word string) {
		t.Helper()
		d, err := h.svc.Doctor(t.Context(), owner())
		h.must(err)
		i := slices.IndexFunc(d.Checks, func(c api.DoctorCheck) bool { return c.Name == "escrow" })
		if c := d.Checks[i]; c.OK != ok || !strings.Contains(c.Detail, word) || (c.Fix == "") != ok {
			t.Errorf("%+v, want %v %q", c, ok, word)
		}
	}
	says(true, "no escrow shares")
	_, err := h.svc.EscrowVerified(t.Context(), owner(), api.EscrowVerifiedRequest{Set: "x"})
	wants(t, err, api.CodeNotFound)
	set := h.split(h.svc, 5, 3, false)
	says(false, "nobody has shown")
	const pasted = "kt-share1-pasted-by-mistake"
	_, err = h.svc.EscrowVerified(t.Context(), owner(), api.EscrowVerifiedRequest{Set: pasted})
	wants(t, err, api.CodeIntegrity, "set")
	if strings.Contains(err.Error()+h.lastEvent().raw, pasted) {
		t.Error("what was given as a set is quoted")
	}
	says(false, "nobody has shown")
	out, err := h.svc.EscrowVerified(t.Context(), owner(), api.EscrowVerifiedRequest{Set: set.Set})
	h.must(err)
	if e := h.lastEvent(); out.Verified == nil || e.Action != "escrow_verified" || e.Details["escrow"] != set.Set {
		t.Errorf("%+v, %s", out, e.raw)
	}
	says(true, "were shown on 2026-01-15")
	h.clock.Add(366 * 24 * time.Hour)
	says(false, "last shown on 2026-01-15")
	_, err = h.svc.EscrowVerified(t.Context(), owner(), api.EscrowVerifiedRequest{Set: set.Set})
	h.must(err)
	_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})
	h.must(err)
	says(false, "older than the key-encryption keys")
	fresh := h.split(h.svc, 5, 3, true)
	_, err = h.svc.EscrowVerified(t.Context(), owner(), api.EscrowVerifiedRequest{Set: set.Set})
	wants(t, err, api.CodeIntegrity)
	_, err = h.svc.EscrowVerified(t.Context(), owner(), api.EscrowVerifiedRequest{Set: fresh.Set})
	h.must(err)
	says(true, "were shown on")
}

// The record of the set is as keyturn wrote it, or escrow is out of use until there are new shares; nothing is ever
// wrapped under a key from elsewhere.
func TestEscrowRecordIsAttested(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	old := h.split(h.svc, 3, 2, false)
	kept := h.setting()
	fresh := h.split(h.svc, 3, 2, true)
	for what, text := range map[string]string{
		"another threshold": strings.Replace(h.setting(), `"threshold":2`, `"threshold":1`, 1), "nothing": "", "no JSON": "x", "the set before": kept, "a sealed key of the set before": swapSealed(h.setting(), kept),
	} {
		now := h.setting()
		h.setSetting(text)
		if h.mastersOK() {
			t.Errorf("%s: escrow is taken for whole", what)
		}
		_, err := h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})
		if err == nil {
			t.Errorf("%s: wrapped anew", what)
		}
		_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})
		if err == nil {
			t.Errorf("%s: new key-encryption keys", what)
		}
		h.setSetting(now)
	}
	if !h.mastersOK() {
		t.Error("the true record isn't taken")
	}
	h.must(h.recovers(fresh, 1, 2))
	wants(t, h.recovers(old, 1, 2), api.CodeIntegrity)
}

// swapSealed puts the sealed key of one record into another.
func swapSealed(into, from string) string {
	sealed := func(s string) string { return s[strings.Index(s, `"sealed":`):strings.Index(s, "} ")] }
	return strings.Replace(into, sealed(into), sealed(from), 1)
}

// setting is the record past all checks, as somebody with the database has it.
func (h *house) setting() (text string) {
	h.t.Helper()
	h.must(h.st.(*Attested).Store.View(h.t.Context(), func(tx store.Tx) (err error) {
		text, err = tx.Meta(h.t.Context(), metaEscrow)
		return err
	}))
	return text
}

func (h *house) setSetting(text string) {
	h.t.Helper()
	h.must(h.st.(*Attested).Store.Change(h.t.Context(), func(tx store.Tx) error { return tx.SetMeta(h.t.Context(), metaEscrow, text) }))
}

// The transaction that fails leaves neither a set nor wrappings, and the set before goes on.
func TestEscrowSplitThatFails(t *testing.T) {
	failing := &failingSet{}
	h := newHouse(t, options{wrap: func(st store.Store) store.Store { failing.Store = st; return failing }})
	h.create(api.CreateKeyRequest{Name: "phi"})
	set := h.split(h.svc, 3, 2, false)
	fresh := h.prepared(h.svc, api.SplitEscrowRequest{Shares: 3, Threshold: 2, Replace: true})
	failing.on = true
	_, err := h.svc.CommitEscrow(t.Context(), owner(), api.CommitEscrowRequest{Set: fresh.Set})
	if err == nil {
		t.Fatal("nobody hears of it")
	}
	failing.on = false
	h.must(h.recovers(set, 1, 2))
	wants(t, h.recovers(fresh, 1, 2), api.CodeIntegrity)
	if !h.mastersOK() {
		t.Error("a master key doesn't open everything")
	}
	_, err = h.svc.CommitEscrow(t.Context(), owner(), api.CommitEscrowRequest{Set: fresh.Set})
	wants(t, err, api.CodeNotFound, "set") // once or never
	h.config.err = errors.New("read-only")
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "escrow://"})
	if err == nil {
		t.Fatal("nobody hears of it")
	}
	// The store is never wrapped under a key that nobody has: the shares are with people before the configuration is written.
	fresh = h.prepared(h.svc, api.SplitEscrowRequest{Shares: 3, Threshold: 2})
	_, err = h.svc.CommitEscrow(t.Context(), owner(), api.CommitEscrowRequest{Set: fresh.Set})
	if err == nil || !strings.Contains(err.Error(), "the new set counts") || !strings.Contains(fault.NextOf(err), "add escrow:// to masterKeys") {
		t.Errorf("%v, next %q", err, fault.NextOf(err))
	}
	h.must(h.recovers(fresh, 1, 2))
}

// A set that is prepared changes nothing: the one before counts, and its shares open, until the commit, which only who has
// the new shares can ask for, once, and which is refused where the ground has changed.
func TestEscrowCountsFromItsCommitOn(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	commit := func(c *access.Caller, set api.EscrowShares) error {
		return second(h.svc.CommitEscrow(t.Context(), c, api.CommitEscrowRequest{Set: set.Set}))
	}
	first := h.prepared(h.svc, api.SplitEscrowRequest{Shares: 3, Threshold: 2})
	if _, err := h.svc.Escrow(t.Context(), owner()); fault.CodeOf(err) != api.CodeNotFound || h.config.saved != nil || len(h.ring.Masters()) != 1 {
		t.Errorf("%v, saved %v", err, h.config.saved)
	}
	wants(t, h.recovers(first, 1, 2), api.CodeIntegrity)
	h.must(commit(owner(), first))
	h.must(h.recovers(first, 1, 2))

	replace := api.SplitEscrowRequest{Shares: 3, Threshold: 2, Replace: true}
	old := h.setting()
	fresh := h.prepared(h.svc, replace)
	h.must(h.recovers(first, 1, 2))
	wants(t, h.recovers(fresh, 1, 2), api.CodeIntegrity)
	if !h.mastersOK() || h.setting() != old {
		t.Error("preparing a set touched the one that counts")
	}
	h.must(second(h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})))
	h.must(h.recovers(first, 1, 2))
	other := owner()
	other.Principal.ID = "another-owner"
	wants(t, commit(other, fresh), api.CodeNotFound, "set")
	const pasted = "kt-share1-pasted-by-mistake"
	err := commit(owner(), api.EscrowShares{Set: pasted})
	wants(t, err, api.CodeNotFound, "set")
	if strings.Contains(err.Error()+h.lastEvent().raw, pasted) {
		t.Error("what was given as a set is quoted")
	}
	h.must(commit(owner(), fresh)) // others asked in vain, and took nothing from it
	h.must(h.recovers(fresh, 1, 2))
	wants(t, h.recovers(first, 1, 2), api.CodeIntegrity)
	wants(t, commit(owner(), fresh), api.CodeNotFound, "set")
	h.must(h.recovers(fresh, 1, 2))

	// A newer one, new key-encryption keys or another set in between: it never counts.
	late := h.prepared(h.svc, replace)
	h.prepared(h.svc, replace)
	wants(t, commit(owner(), late), api.CodeNotFound)
	late = h.prepared(h.svc, replace)
	h.must(second(h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})))
	wants(t, commit(owner(), late), api.CodeConflict)
	late = h.prepared(h.svc, replace)
	h.must(second(h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: keyring.EscrowURL})))
	wants(t, commit(owner(), late), api.CodeConflict)
	wants(t, h.recovers(late, 1, 2), api.CodeIntegrity)
	if _, err := h.svc.Escrow(t.Context(), owner()); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("%v", err)
	}
	h.must(second(h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})))

	late = h.prepared(h.svc, api.SplitEscrowRequest{Shares: 3, Threshold: 2})
	h.svc.waiting.forget() // as closing the service does
	wants(t, commit(owner(), late), api.CodeNotFound)
}

// Who hangs up in the moment of the commit has shares of a set that counts, and the process and its configuration know it.
func TestEscrowCommitIsFinished(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	set := h.prepared(h.svc, api.SplitEscrowRequest{Shares: 3, Threshold: 2})
	beside := sqlitetest.Open(t, h.path) // not through the store: whoever asks a context may hold its locks
	segments := func() (n int) {
		h.must(beside.QueryRow("SELECT count(*) FROM audit_segments").Scan(&n))
		return n
	}
	before := segments()
	ctx := hungUp{t.Context(), func() bool { return segments() != before }}
	h.must(second(h.svc.CommitEscrow(ctx, owner(), api.CommitEscrowRequest{Set: set.Set})))
	if strings.Join(h.config.saved, " ") != "file:///first escrow://" || len(h.ring.Masters()) != 2 {
		t.Errorf("saved %v, open %d", h.config.saved, len(h.ring.Masters()))
	}
	h.must(h.recovers(set, 1, 2))
}

// A prepared set that nobody commits doesn't stay in memory.
func TestPreparedSetIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w waiting
		take := func() *prepared { return w.take("set", "anna") }
		made := func() *prepared {
			opened, err := escrow.Driver{}.Open(t.Context(), keyring.EscrowURL)
			if err != nil {
				t.Fatal(err)
			}
			key := opened.(keyring.Attacher)
			if err := key.Attach(material.Random(32)); err != nil {
				t.Fatal(err)
			}
			return &prepared{key: key, set: escrowSet{Set: "set"}, by: "anna"}
		}
		for after, there := range map[time.Duration]bool{preparedFor - 1: true, preparedFor + 1: false} {
			p := made()
			w.put(p)
			time.Sleep(after) // of the bubble's clock
			synctest.Wait()
			if got := take(); (got != nil) != there || (p.key.ID() != "") != there {
				t.Errorf("after %s: %v, the key's fingerprint %q", after, got, p.key.ID())
			}
		}
		first, next := made(), made()
		w.put(first)
		w.put(next)
		if first.key.ID() != "" || next.key.ID() == "" || take() != next {
			t.Error("a newer set doesn't take the place of the one before")
		}
	})
}

// failingSet is a store that can't write settings while on.
type failingSet struct {
	store.Store
	on bool
}

func (f *failingSet) Change(ctx context.Context, fn func(store.Tx) error) error {
	return f.Store.Change(ctx, func(tx store.Tx) error { return fn(failingTx{tx, f}) })
}

type failingTx struct {
	store.Tx
	f *failingSet
}

func (t failingTx) SetMeta(ctx context.Context, name, value string) error {
	if t.f.on && name == metaEscrow {
		return fault.New(api.CodeUnavailable, "the disk is gone")
	}
	return t.Tx.SetMeta(ctx, name, value)
}

// Two nodes: what one splits, the other wraps under; a node that doesn't know escrow can't take it away.
func TestEscrowOnTwoNodes(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	h.create(api.CreateKeyRequest{Name: "phi"})
	other := h.node("other", keyring.EscrowURL)
	stranger := h.node("stranger")
	first := h.split(h.svc, 3, 2, false)
	_, err := other.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})
	h.must(err)
	h.must(h.recovers(first, 1, 2))
	second := h.split(other, 3, 2, true) // the first node still holds the key of the set before
	_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})
	h.must(err)
	h.must(h.recovers(second, 1, 2))
	wants(t, h.recovers(first, 1, 2), api.CodeIntegrity)
	for _, keks := range []bool{false, true} {
		_, err = stranger.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: keks})
		wants(t, err, api.CodeConflict)
	}
	h.must(h.recovers(second, 1, 2))
	if !h.mastersOK() {
		t.Error("a master key doesn't open everything")
	}
}
