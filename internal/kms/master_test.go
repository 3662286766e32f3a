package kms

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// opensWith says whether a ring with these master keys opens the store and what was sealed.
func (h *house) opensWith(names ...string) error {
	h.t.Helper()
	var masters []keyring.MasterKey
	for _, name := range names {
		masters = append(masters, masterKey(h.t, name))
	}
	ring := keyring.New(h.st.ID(), masters, Directory{h.st})
	defer ring.Close() //nolint:errcheck // of a test
	if err := ring.Open(h.t.Context()); err != nil {
		return err
	}
	k := h.stored("phi")
	for _, v := range k.Versions {
		if _, err := ring.Version(h.t.Context(), &k, v.Number); err != nil {
			return err
		}
	}
	return nil
}

func TestMasterLife(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	wrapped := h.stored("phi").Versions[0].Wrapped

	out, err := h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	if out.Rewrapped != len(keys.KEKPurposes()) || len(out.MasterKeys) != 2 || !out.MasterKeys[0].OK || !out.MasterKeys[1].OK {
		t.Errorf("%+v", out)
	}
	if strings.Join(h.config.saved, " ") != "file:///first file:///second" {
		t.Errorf("saved %v", h.config.saved)
	}
	if e := h.lastEvent(); e.Action != "master_added" || e.Type != "config_write" || e.Details["master_key"] != "file:///second" {
		t.Errorf("%s", e.raw)
	}
	h.must(h.opensWith("first"))
	h.must(h.opensWith("second"))

	out, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///first"})
	h.must(err)
	if len(out.MasterKeys) != 1 || out.MasterKeys[0].URL != "file:///second" || strings.Join(h.config.saved, " ") != "file:///second" {
		t.Errorf("%+v, saved %v", out, h.config.saved)
	}
	h.must(h.opensWith("second"))
	wants(t, h.opensWith("first"), api.CodeIntegrity)
	h.opens("phi", text, "x", nil, 1)
	if string(h.stored("phi").Versions[0].Wrapped) != string(wrapped) {
		t.Error("changing master keys touched a version")
	}

	out, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})
	h.must(err)
	if out.Rewrapped != len(keys.KEKPurposes()) {
		t.Errorf("%+v", out)
	}
	h.opens("phi", text, "x", nil, 1)
}

// hungUp is the context of a caller who hangs up in the moment that his change is committed.
type hungUp struct {
	context.Context
	committed func() bool
}

func (c hungUp) Err() error {
	if c.committed() {
		return context.Canceled
	}
	return c.Context.Err()
}

func (c hungUp) Done() <-chan struct{} {
	if c.committed() {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return c.Context.Done()
}

// A change of master keys that is in the store is in the process and the configuration too, even if nobody waits for it.
func TestMasterChangesAreFinished(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	beside := sqlitetest.Open(t, h.path) // not through the store: whoever asks a context may hold its locks
	segments := func() (n int) {
		h.must(beside.QueryRow("SELECT count(*) FROM audit_segments").Scan(&n))
		return n
	}
	before := segments()
	ctx := hungUp{t.Context(), func() bool { return segments() != before }}
	h.must(second(h.svc.AddMaster(ctx, here(), api.MasterKeyRequest{URL: "file:///second"})))
	if strings.Join(h.config.saved, " ") != "file:///first file:///second" || len(h.ring.Masters()) != 2 {
		t.Errorf("saved %v, open %d", h.config.saved, len(h.ring.Masters()))
	}
	before = segments()
	h.must(second(h.svc.RemoveMaster(ctx, owner(), api.MasterKeyRequest{URL: "file:///first"})))
	if strings.Join(h.config.saved, " ") != "file:///second" || len(h.ring.Masters()) != 1 {
		t.Errorf("saved %v, open %d", h.config.saved, len(h.ring.Masters()))
	}
	h.opens("phi", text, "x", nil, 1)
}

// Master keys that are lost don't keep one another from being removed; what stays must be there, and the refusal says the way.
func TestSeveralLostMasters(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	for _, url := range []string{"file:///second", "file:///third"} {
		_, err := h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: url})
		h.must(err)
	}
	lost := map[string]error{
		"file:///second": fault.New(api.CodeUnavailable, "connecting to the provider"),
		"file:///third":  fault.New(api.CodeWrongState, "others can read it").WithNext("chmod 600"),
	}
	h.config.lost = lost
	_, err := h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///second"})
	wants(t, err, api.CodeWrongState)
	if next := fault.NextOf(err); next != "chmod 600; if it is lost for good: keyturn master remove file:///second file:///third" {
		t.Errorf("next %q", next)
	}
	_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})
	wants(t, err, api.CodeUnavailable)
	if next := fault.NextOf(err); next != "see that file answers and lets keyturn use the key; if it is lost for good: keyturn master remove file:///second file:///third" {
		t.Errorf("next %q", next)
	}
	list, err := h.svc.VerifyMasters(t.Context(), owner())
	if err != nil || list.MasterKeys[0].Next != "" || list.MasterKeys[1].Next == "" || list.MasterKeys[2].Next != "chmod 600" {
		t.Errorf("%+v, %v", list, err)
	}
	if ok, detail, fix := h.svc.checkMasters(t.Context()); ok || fix != "see that file answers and lets keyturn use the key; chmod 600" {
		t.Errorf("doctor: %q, %q", detail, fix)
	}
	all := api.MasterKeyRequest{URL: "file:///third", Also: []string{"file:///second", "file:///third"}}
	for _, more := range []string{"file:///first", "file:///absent"} {
		in := all
		in.Also = append([]string{more}, in.Also...)
		if _, err = h.svc.RemoveMaster(t.Context(), owner(), in); fault.FieldOf(err) != "url" {
			t.Errorf("with %s: %v", more, err)
		}
	}
	h.must(h.opensWith("third"))
	out, err := h.svc.RemoveMaster(t.Context(), owner(), all)
	h.must(err)
	if len(out.MasterKeys) != 1 || len(out.Elsewhere) != 0 || strings.Join(h.config.saved, " ") != "file:///first" {
		t.Errorf("%+v, saved %v", out, h.config.saved)
	}
	if !h.recorded("master_removed", "master_key", "file:///third file:///second") {
		t.Errorf("%s", h.lastEvent().raw)
	}
	h.must(h.opensWith("first"))
	wants(t, h.opensWith("second"), api.CodeIntegrity)
	wants(t, h.opensWith("third"), api.CodeIntegrity)

	// The only one: nothing could be given up.
	h.config.lost["file:///first"] = fault.New(api.CodeNotFound, "opening it").WithNext("put it back")
	_, err = h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{})
	wants(t, err, api.CodeNotFound)
	if next := fault.NextOf(err); next != "put it back" {
		t.Errorf("next %q", next)
	}
	_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///x", Also: []string{"file:///y"}})
	wants(t, err, api.CodeInvalid, "also")
}

// A master key is removed by the URL that somebody wrote into the configuration, whatever spelling the key itself has.
func TestMasterIsRemovedByAnySpelling(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	opened := h.config.opened
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///absent?spelled=otherwise"})
	wants(t, err, api.CodeNotFound, "url")
	if h.config.opened != opened {
		t.Error("a provider was asked")
	}
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///second?spelled=otherwise"})
	h.must(err)
	wants(t, h.opensWith("second"), api.CodeIntegrity)
}

func TestMasterRefusals(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///first"})
	wants(t, err, api.CodeInUse, "url")
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///absent"})
	wants(t, err, api.CodeNotFound, "url")
	_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///first"})
	wants(t, err, api.CodeConflict, "url")
	_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "junk"})
	wants(t, err, api.CodeInvalid)
	if h.config.saved != nil {
		t.Errorf("a refused change was saved: %v", h.config.saved)
	}
	h.must(h.opensWith("first"))

	// Nobody else has us open files or call services.
	opened := h.config.opened
	for _, role := range []string{access.RoleKeyAdministrator, access.RoleApplication, access.RoleAuditor, access.RoleBackup} {
		_, err = h.svc.AddMaster(t.Context(), as(role), api.MasterKeyRequest{URL: "file:///second"})
		wants(t, err, api.CodeDenied)
		_, err = h.svc.RotateMasters(t.Context(), as(role), api.RotateMasterRequest{KEKs: true})
		wants(t, err, api.CodeDenied)
	}
	if h.config.opened != opened {
		t.Error("a denied caller made us open a master key")
	}
}

// The store is changed and the configuration can't be written: said so, and the store opens under the old list too.
func TestMasterConfigFails(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.config.err = errors.New("read-only")
	_, err := h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})
	if err == nil {
		t.Fatal("nobody hears of it")
	}
	h.must(h.opensWith("first"))
	h.must(h.opensWith("second"))
}

func TestRotateKEKs(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	for i := range 2 * pageOfBinding { // more than two pages
		h.create(api.CreateKeyRequest{Name: "k" + strings.Repeat("x", i%50) + string(rune('a'+i/50))})
	}
	before := h.stored("phi")
	out, err := h.svc.RotateMasters(t.Context(), owner(), api.RotateMasterRequest{KEKs: true})
	h.must(err)
	if out.Rewrapped != len(keys.KEKPurposes()) {
		t.Errorf("%+v", out)
	}
	after := h.stored("phi")
	for i := range after.Versions {
		if after.Versions[i].KEK == before.Versions[i].KEK || after.Versions[i].Seq != before.Versions[i].Seq {
			t.Errorf("version %d stands under KEK %s, before %s", i+1, after.Versions[i].KEK, before.Versions[i].KEK)
		}
	}
	if e := h.lastEvent(); e.Action != "versions_rewrapped" || e.Details["changed"] != float64(2*pageOfBinding+2) {
		t.Errorf("%s", e.raw)
	}
	h.opens("phi", text, "x", nil, 1)
	h.must(h.opensWith("first"))
	keks, err := Directory{h.st}.KEKs(t.Context())
	h.must(err)
	active := map[keys.KEKPurpose]int{}
	for _, k := range keks {
		if k.Active {
			active[k.Purpose]++
		}
	}
	for _, p := range keys.KEKPurposes() {
		if active[p] != 1 {
			t.Errorf("%d active keys for %s", active[p], p)
		}
	}
}

func TestMastersAreListed(t *testing.T) {
	h := newHouse(t, options{})
	out, err := h.svc.Masters(t.Context(), as(access.RoleAuditor))
	if err != nil || len(out.MasterKeys) != 1 || out.MasterKeys[0] != (api.MasterKey{URL: "file:///first", Provider: "file", Kind: "holds", OK: true}) {
		t.Errorf("%+v, %v", out, err)
	}
	// A configured key that doesn't open the store is shown as such.
	h.must(h.ring.Masters()[0].Close())
	out, err = h.svc.VerifyMasters(t.Context(), owner())
	if err != nil || out.MasterKeys[0].OK || out.MasterKeys[0].Detail == "" {
		t.Errorf("%+v, %v", out, err)
	}
	if e := h.lastEvent(); e.Action != "verified" || e.Details["failed"] != 1.0 {
		t.Errorf("%s", e.raw)
	}
	_, err = h.svc.Masters(t.Context(), as(access.RoleApplication))
	wants(t, err, api.CodeDenied)
}

// A list of master keys that comes from the environment is refused before anything is wrapped anew: otherwise the store
// would no longer open with the list that is configured.
func TestMasterListFromElsewhereIsRefusedFirst(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///second"})
	h.must(err)
	h.config.fixed = fault.New(api.CodeConflict, "the list comes from the environment").WithField("masterKeys")
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///first"})
	wants(t, err, api.CodeConflict, "masterKeys")
	h.must(h.opensWith("first"))
	_, err = h.svc.RemoveMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///second"})
	wants(t, err, api.CodeConflict, "masterKeys")
	_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///third"})
	wants(t, err, api.CodeConflict, "masterKeys")
	h.must(h.opensWith("second"))
	if strings.Join(h.config.saved, " ") != "file:///first file:///second" {
		t.Errorf("saved %v", h.config.saved)
	}
}

// here is an owner on the machine itself.
func here() *access.Caller {
	c := owner()
	c.Method = "peer"
	return c
}

// Over the network nobody finds out which files and variables the server's machine has: none is looked for, and every
// answer is the same. What isn't there is not quoted either: it may be a key that was pasted.
func TestMastersOfThisMachineAreNamedOnIt(t *testing.T) {
	h := newHouse(t, options{})
	var texts []string
	for _, url := range []string{"file:///second", "file:///etc/shadow", "env://HOME", "file:/etc/shadow", "env:HOME",
		"pkcs11:token=t;object=k?module-path=/tmp/evil.so", "pkcs11:", "pkcs11://x"} {
		_, err := h.svc.AddMaster(t.Context(), owner(), api.MasterKeyRequest{URL: url})
		wants(t, err, api.CodeInvalid, "url")
		texts = append(texts, err.Error())
	}
	if h.config.opened != 0 || texts[0] != texts[1] || texts[0] != texts[2] {
		t.Errorf("%d opened: %q", h.config.opened, texts)
	}
	_, err := h.svc.AddMaster(t.Context(), owner(), api.MasterKeyRequest{URL: "file:///first"}) // configured: nothing new is told
	wants(t, err, api.CodeConflict, "url")
	const pasted = "n0tAPathButAKey"
	h.config.openErr = fault.New(api.CodeNotFound, "opening master key file /"+pasted)
	_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: "file:///" + pasted})
	wants(t, err, api.CodeNotFound, "url")
	if strings.Contains(err.Error()+fault.NextOf(err)+h.lastEvent().raw, pasted) {
		t.Errorf("it is quoted: %v, %s", err, h.lastEvent().raw)
	}
}

// The server asks a provider with its own credentials. A caller over the network learns from that whether the key was
// added, and nothing else about what there is in the provider's account; one on the machine is told.
func TestProvidersAreNoOracle(t *testing.T) {
	h := newHouse(t, options{})
	const url = "awskms:///alias/somebody-elses?region=us-east-1"
	remotely := map[string]bool{}
	for _, code := range []api.Code{api.CodeNotFound, api.CodeDenied, api.CodeWrongState, api.CodeIntegrity, api.CodeInvalid, api.CodeUnavailable} {
		h.config.openErr = fault.Newf(code, "opening master key %s: because", url)
		_, err := h.svc.AddMaster(t.Context(), owner(), api.MasterKeyRequest{URL: url})
		wants(t, err, api.CodeUnavailable, "url")
		remotely[err.Error()+fault.NextOf(err)] = true
		_, err = h.svc.AddMaster(t.Context(), here(), api.MasterKeyRequest{URL: url})
		wants(t, err, code, fault.FieldOf(err))
	}
	if len(remotely) != 1 {
		t.Errorf("told over the network: %v", remotely)
	}
}
