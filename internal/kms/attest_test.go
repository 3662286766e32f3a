package kms

import (
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
)

// forge is somebody who can write to the database and has no master key.
func (h *house) forge(query string, args ...any) {
	h.t.Helper()
	h.forged = true
	h.must(h.st.Change(context.Background(), func(tx store.Tx) error {
		_, err := tx.SQL().Exec(query, args...)
		return err
	}))
	h.ring.DropAll()
}

// Whoever writes to the database gives nobody a role, a token, another key's name or a state: every such row is refused
// by name wherever a decision hangs on it, and no change of ours makes it valid.
func TestForgedRowsAreRefused(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		forge string
		try   func(h *house) error
		row   string
	}{
		"a role":             {`UPDATE principals SET role = 'owner' WHERE name = 'aud'`, (*house).readAud, "principal aud"},
		"a scope":            {`UPDATE principals SET scope = '["*"]' WHERE name = 'aud'`, (*house).readAud, "principal aud"},
		"an action":          {`UPDATE principals SET allow = '["key.decrypt"]' WHERE name = 'aud'`, (*house).readAud, "principal aud"},
		"enabled":            {`UPDATE principals SET disabled = 1 - disabled WHERE name = 'aud'`, (*house).readAud, "principal aud"},
		"another's name":     {`UPDATE principals SET name = 'audit' WHERE name = 'aud'`, (*house).readAud, "principal audit"},
		"another's MAC":      {`UPDATE principals SET role = 'owner', mac = (SELECT mac FROM principals WHERE name = 'chief') WHERE name = 'aud'`, (*house).readAud, "principal aud"},
		"changed by us then": {`UPDATE principals SET role = 'owner' WHERE name = 'aud'`, (*house).disableAud, "principal aud"},
		"a token's holder":   {`UPDATE tokens SET principal_id = (SELECT p.id FROM principals p WHERE p.id <> tokens.principal_id)`, (*house).readToken, "token "},
		"a token's hash":     {`UPDATE tokens SET hash = zeroblob(32)`, (*house).readToken, "token "},
		"a token's end":      {`UPDATE tokens SET expires = 99`, (*house).readToken, "token "},
		"the administrator":  {`UPDATE meta SET value = (SELECT id FROM principals WHERE name = 'aud') WHERE name = 'local_administrator'`, (*house).readLocal, "setting local_administrator"},
		"a key's name":       {`UPDATE keys SET name = CASE name WHEN 'a' THEN 'b' ELSE 'a' END || 'x'`, useKey("ax"), "key ax"},
		"a key's purpose":    {`UPDATE keys SET purpose = 'pii'`, useKey("a"), "key a"},
		"a key's suite":      {`UPDATE keys SET suite = 2`, useKey("a"), "key a"},
		"opening suspended":  {`UPDATE keys SET suspended_decrypts = 1`, useKey("a"), "key a"},
		"a limit":            {`UPDATE keys SET max_operations = 5`, useKey("a"), "key a"},
		"a state":            {`UPDATE key_versions SET state = 'suspended'`, useKey("a"), "key a"},
		"an expiry":          {`UPDATE key_versions SET expires = 1`, useKey("a"), "key a"},
		"no material":        {`UPDATE key_versions SET wrapped = x'00'`, useKey("a"), "key a"},
		"the last version":   {`DELETE FROM key_versions WHERE number = 2`, rotateKey("a"), "key a"},
		"all versions":       {`DELETE FROM key_versions`, rotateKey("a"), "key a"},
		"a gap":              {`DELETE FROM key_versions WHERE number = 1`, rotateKey("a"), "key a"},
		"rotated by us then": {`UPDATE keys SET purpose = 'pii'`, rotateKey("a"), "key a"},
		"moved by us then": {`UPDATE keys SET purpose = 'pii'`, func(h *house) error {
			return second(h.svc.RotateMasters(ctx, owner(), api.RotateMasterRequest{KEKs: true}))
		}, "key a"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			h.must(second(h.svc.Bootstrap(ctx, "chief")))
			h.must(second(h.svc.CreatePrincipal(ctx, owner(), api.CreatePrincipalRequest{Name: "aud", Role: access.RoleAuditor, Scope: []string{"key/a"}})))
			for _, key := range []string{"a", "b"} {
				h.create(api.CreateKeyRequest{Name: key})
				h.must(second(h.svc.Rotate(ctx, owner(), key, api.RotateKeyRequest{})))
			}
			h.forge(c.forge)
			for range 2 { // a change of ours doesn't make it valid
				err := c.try(h)
				wants(t, err, api.CodeIntegrity)
				if err == nil || !strings.Contains(fault.MessageOf(err), c.row) {
					t.Errorf("the error doesn't name %s: %v", c.row, err)
				}
			}
		})
	}
}

func (h *house) readAud() error {
	return h.st.View(h.t.Context(), func(tx store.Tx) error {
		var id string
		if err := tx.SQL().QueryRow(`SELECT id FROM principals WHERE name LIKE 'aud%'`).Scan(&id); err != nil {
			return err
		}
		return second(Directory{h.st}.PrincipalByID(h.t.Context(), id))
	})
}

func (h *house) disableAud() error {
	return second(h.svc.DisablePrincipal(h.t.Context(), owner(), "aud"))
}

func (h *house) readToken() error {
	var id string
	h.must(h.st.View(h.t.Context(), func(tx store.Tx) error {
		return tx.SQL().QueryRow(`SELECT id FROM tokens ORDER BY created DESC LIMIT 1`).Scan(&id)
	}))
	return second(Directory{h.st}.TokenByID(h.t.Context(), id))
}

func (h *house) readLocal() error {
	return second(Directory{h.st}.LocalAdministrator(h.t.Context()))
}

func useKey(name string) func(*house) error {
	return func(h *house) error { return second(h.tryEncrypt(name, "x", nil)) }
}

func rotateKey(name string) func(*house) error {
	return func(h *house) error {
		return second(h.svc.Rotate(h.t.Context(), owner(), name, api.RotateKeyRequest{}))
	}
}

// A token that somebody wrote into the database himself is refused, and ending it with the others doesn't make it one of
// ours.
func TestForgedTokenIsEndedAndStaysForged(t *testing.T) {
	h := newHouse(t, options{})
	ctx := t.Context()
	h.must(second(h.svc.CreatePrincipal(ctx, owner(), api.CreatePrincipalRequest{Name: "aud", Role: access.RoleAuditor, Scope: []string{"key/a"}})))
	_, made, err := access.NewToken(rand.Reader)
	h.must(err)
	h.forge(`INSERT INTO tokens (id, principal_id, hash, created, expires, revoked, mac)
		SELECT $1, p.id, $2, 1, 0, 0, p.mac FROM principals p WHERE p.name = 'aud'`, made.ID, made.Hash[:])
	for range 2 {
		_, err = Directory{h.st}.TokenByID(ctx, made.ID)
		wants(t, err, api.CodeIntegrity)
		h.must(second(h.svc.NewToken(ctx, owner(), "aud")))
	}
	h.must(h.st.View(ctx, func(tx store.Tx) error {
		var revoked int64
		err := tx.SQL().QueryRow(`SELECT revoked FROM tokens WHERE id = $1`, made.ID).Scan(&revoked)
		if err == nil && revoked == 0 {
			t.Error("the forged token isn't ended")
		}
		return err
	}))
}

// Before the ring is there, and so before anything can be checked, nothing is read or written.
func TestUnattestedStoreFailsClosed(t *testing.T) {
	h := newHouse(t, options{})
	h.must(second(h.svc.Bootstrap(t.Context(), "chief")))
	h.create(api.CreateKeyRequest{Name: "phi"})
	bare := Directory{Attest(h.raw())}
	for name, err := range map[string]error{
		"key": second(bare.KeyByName(t.Context(), "phi")), "administrator": second(bare.LocalAdministrator(t.Context())),
		"writing": bare.Store.Change(t.Context(), func(tx store.Tx) error {
			return tx.CreatePrincipal(t.Context(), access.Principal{ID: "x", Name: "x"})
		}),
	} {
		if fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every field of a row counts, but for those that are named here: a field that is added later is bound, or named.
func TestFormsCoverEveryField(t *testing.T) {
	version := keys.Version{Number: 1}
	for _, c := range []struct {
		row  any
		form func(any) form
		free string // fields that aren't bound
	}{
		{&keys.Key{Versions: []keys.Version{version}}, func(v any) form { return keyForm(*v.(*keys.Key)) }, " MAC "},
		{&keys.Cryptoperiod{}, func(v any) form { return keyForm(keys.Key{Cryptoperiod: *v.(*keys.Cryptoperiod)}) }, ""},
		{&version, func(v any) form { return keyForm(keys.Key{Versions: []keys.Version{*v.(*keys.Version)}}) }, " LastOpened Operations Bytes "},
		{&access.Principal{}, func(v any) form { return principalForm(*v.(*access.Principal)) }, " MAC "},
		{&access.Token{}, func(v any) form { return tokenForm(*v.(*access.Token)) }, " MAC "},
		{&incidents.Incident{}, func(v any) form { return incidentForm(*v.(*incidents.Incident)) }, " MAC "},
		{&incidents.Version{}, func(v any) form {
			return incidentForm(incidents.Incident{Versions: []incidents.Version{*v.(*incidents.Version)}})
		}, ""},
		{&incidents.Target{}, func(v any) form {
			return incidentForm(incidents.Incident{Targets: []incidents.Target{*v.(*incidents.Target)}})
		}, ""},
		{&incidents.Entry{}, func(v any) form { return entryForm(*v.(*incidents.Entry)) }, " MAC "},
	} {
		before := string(c.form(c.row))
		v := reflect.ValueOf(c.row).Elem()
		for i := range v.NumField() {
			field, name := v.Field(i), v.Type().Field(i).Name
			old := reflect.New(field.Type()).Elem()
			old.Set(field)
			alter(t, field)
			if same := string(c.form(c.row)) == before; same != strings.Contains(c.free, " "+name+" ") {
				t.Errorf("%s.%s: bound %v", v.Type(), name, !same)
			}
			field.Set(old)
		}
	}
	one := principalForm(access.Principal{Scope: []string{"ab", "c"}})
	for _, other := range []access.Principal{{Scope: []string{"a", "bc"}}, {Scope: []string{"ab"}, Allow: []access.Action{"c"}}, {Scope: []string{"abc"}}} {
		if string(principalForm(other)) == string(one) {
			t.Errorf("%+v has the form of another row", other)
		}
	}
}

// alter makes a field another one than it is.
func alter(t *testing.T, f reflect.Value) {
	t.Helper()
	switch v := f.Addr().Interface().(type) {
	case *time.Time:
		*v = time.Unix(7, 0)
		return
	case *keys.Cryptoperiod:
		v.Period = time.Hour
		return
	case *[]keys.Version:
		*v = nil
		return
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString("other")
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.Int64:
		f.SetInt(f.Int() + int64(time.Hour))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		f.SetUint(f.Uint() + 1)
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 1, 1))
	case reflect.Array:
		f.Index(0).SetUint(f.Index(0).Uint() + 1)
	default:
		t.Fatalf("how does one alter a %s?", f.Type())
	}
}

// The doctor isn't content while a key doesn't open, a row was changed by other hands or a version is missing, and names
// the first of them by key and version.
func TestDoctorFindsForgedRows(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct{ forge, check, detail string }{
		"no material":       {`UPDATE key_versions SET wrapped = x'00' WHERE number = 2`, "keys", "key k0 version 2, key k1, key k1 version 2, key k2 and 3 more"},
		"a purpose":         {`UPDATE keys SET purpose = 'pii' WHERE name = 'k2'`, "keys", ": key k2"},
		"a name":            {`UPDATE keys SET name = 'k9' WHERE name = 'k2'`, "keys", "key k9"},
		"the last version":  {`DELETE FROM key_versions WHERE number = 2`, "keys", "key k0, key k1, key k2"},
		"the first version": {`DELETE FROM key_versions WHERE number = 1`, "keys", "key k0, key k1, key k2"},
		"a role":            {`UPDATE principals SET role = 'owner'`, "principals", "principal aud"},
		"a token":           {`UPDATE tokens SET expires = 9`, "principals", " of aud"},
		"the administrator": {`UPDATE meta SET value = 'x' WHERE name = 'local_administrator'`, "principals", "setting local_administrator"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			h.must(second(h.svc.Bootstrap(ctx, "chief")))
			h.must(second(h.svc.CreatePrincipal(ctx, owner(), api.CreatePrincipalRequest{Name: "aud", Role: access.RoleAuditor})))
			for i := range 4 {
				key := "k" + string(rune('0'+i))
				h.create(api.CreateKeyRequest{Name: key})
				h.must(second(h.svc.Rotate(ctx, owner(), key, api.RotateKeyRequest{})))
			}
			h.must(second(h.gate.Checkpoint(ctx)))
			if d, err := h.svc.Doctor(ctx, owner()); err != nil || !check(d, c.check).OK {
				t.Fatalf("before anybody forged anything: %+v, %v", check(d, c.check), err)
			}
			h.forge(c.forge)
			if detail := h.complaint(c.check, false); !strings.Contains(detail, c.detail) {
				t.Errorf("found: %s", detail)
			}
		})
	}
}

// The list of destroyed versions is for good, so a version that somebody marked as destroyed in the database doesn't get
// onto it: put back, it opens again.
func TestForgedDestructionLeavesNoTombstone(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.forge(`CREATE TABLE kept AS SELECT * FROM key_versions`)
	h.forge(`UPDATE key_versions SET state = 'destroyed', wrapped = NULL`)
	h.must(h.svc.Start(t.Context()))
	if len(h.graves.list) != 0 {
		t.Errorf("buried: %+v", h.graves.list)
	}
	h.forge(`UPDATE key_versions SET state = kept.state, wrapped = kept.wrapped FROM kept`)
	h.encrypt("phi", "x", nil)
}

// late calls its function in the middle of each transaction: when that has its snapshot, and hasn't read the sums yet.
type late struct {
	store.Store
	meanwhile func()
}

func (l late) tx(ctx context.Context, tx store.Tx, fn func(store.Tx) error) error {
	if _, err := tx.RowSums(ctx); err != nil {
		return err
	}
	l.meanwhile()
	return fn(tx)
}

func (l late) View(ctx context.Context, fn func(store.Tx) error) error {
	return l.Store.View(ctx, func(tx store.Tx) error { return l.tx(ctx, tx, fn) })
}

func (l late) Change(ctx context.Context, fn func(store.Tx) error) error {
	return l.Store.Change(ctx, func(tx store.Tx) error { return l.tx(ctx, tx, fn) })
}

// What is committed while a transaction goes on is not in its snapshot: its older sums are not rows that were put back.
func TestSumsOfASnapshotAreNotSetBack(t *testing.T) {
	for name, url := range map[string]string{"sqlite": "", "postgres": pgtest.Start(t).Database(t)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			h := newHouse(t, options{url: url})
			attested := h.st.(*Attested)
			under, made := attested.Store, 0
			var meanwhile func()
			attested.Store = late{under, func() {
				if meanwhile == nil {
					return
				}
				then := meanwhile
				meanwhile = nil // once, and not in its own transactions
				then()
			}}
			defer func() { attested.Store = under }()
			busy := func() {
				for range 100 { // a key for most of the buckets
					made++
					h.create(api.CreateKeyRequest{Name: fmt.Sprintf("key-%d", made)})
				}
			}
			meanwhile = busy
			h.must(attested.View(ctx, func(tx store.Tx) error { return second(SumCounts(ctx, tx)) }))
			meanwhile = busy
			h.must(second(attested.CheckRows(ctx, h.clock.Now())))
			if name == "postgres" { // one writer at a time with SQLite
				meanwhile = busy
				h.must(attested.Change(ctx, func(tx store.Tx) error { // it is tried once more, on a newer snapshot
					k, err := tx.KeyByName(ctx, "key-1")
					if err != nil {
						return err
					}
					return tx.UpdateKey(ctx, k)
				}))
			}
			if meanwhile != nil {
				t.Error("a transaction had nothing beside it")
			}
		})
	}
}

// While a node of an earlier release holds a shard of the log, and so may write rows without counting them, the sums aren't
// begun; once it is gone they are, with all that it wrote.
func TestSumsBeginWhenTheLastOldNodeIsGone(t *testing.T) {
	ctx := t.Context()
	h := newHouse(t, options{})
	attested := h.st.(*Attested)
	older := func(queries ...string) {
		t.Helper()
		h.must(attested.Store.Change(ctx, func(tx store.Tx) error {
			for _, q := range queries {
				if _, err := tx.SQL().Exec(q); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	older(`DELETE FROM row_sums`, `INSERT INTO audit_shards (shard, epoch, node, lease_until) VALUES (1, 1, 'older', 9000000000000000)`)
	attested.seen = [buckets]uint64{} // as after a start
	for _, founded := range []bool{false, true} {
		got, err := attested.CheckRows(ctx, h.clock.Now())
		h.must(err)
		if got != founded {
			t.Errorf("founded: %v, want %v", got, founded)
		}
		h.create(api.CreateKeyRequest{Name: map[bool]string{false: "before", true: "after"}[founded]})
		older(`UPDATE audit_shards SET lease_until = 0 WHERE shard = 1`)
	}
	h.must(second(attested.CheckRows(ctx, h.clock.Now())))
	h.forge(`UPDATE keys SET mac = (SELECT mac FROM keys WHERE name = 'after') WHERE name = 'before'`)
	wants(t, second(attested.CheckRows(ctx, h.clock.Now())), api.CodeIntegrity)
}
