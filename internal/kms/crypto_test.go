package kms

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
)

func TestEncryptDecrypt(t *testing.T) {
	h := newHouse(t, options{})
	for _, in := range []api.CreateKeyRequest{{Name: "standard"}, {Name: "compact", Suite: 2}, {Name: "cbc", Algorithm: "aes-256-cbc-hmac-sha256"}} {
		h.create(in)
		for _, plain := range []string{"", "x", strings.Repeat("long ", 10_000)} {
			text := h.encrypt(in.Name, plain, map[string]string{"patient": "17"})
			h.opens(in.Name, text, plain, map[string]string{"patient": "17"}, 1)
			for _, other := range []map[string]string{nil, {"patient": "18"}, {"patient": "17", "x": ""}, {"Patient": "17"}} {
				_, _, err := h.tryDecrypt(owner(), in.Name, text, other)
				wants(t, err, api.CodeIntegrity)
			}
		}
	}
}

func TestEncryptAppendsAndRecords(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	bound, _ := envelope.NewContext(map[string]string{"patient": "17"})
	out, version, err := h.svc.Encrypt(t.Context(), owner(), "phi", []byte("secret"), bound, `{"patient":"17"}`, []byte("before:"))
	if err != nil || version != 1 || !bytes.HasPrefix(out, []byte("before:kt1.")) {
		t.Fatalf("%q, %d, %v", out, version, err)
	}
	e := h.lastEvent()
	if e.Type != "key_use" || e.Action != "encrypt" || e.Version != 1 || e.Details["context"].(map[string]any)["patient"] != "17" || strings.Contains(e.raw, "secret") {
		t.Errorf("%s", e.raw)
	}
	plain, _, err := h.svc.Decrypt(t.Context(), owner(), "phi", out[len("before:"):], bound, `{"patient":"17"}`, []byte("<"))
	if err != nil || string(plain) != "<secret" {
		t.Errorf("%q, %v", plain, err)
	}
	if e := h.lastEvent(); e.Action != "decrypt" || strings.Contains(e.raw, "secret") {
		t.Errorf("%s", e.raw)
	}
}

// Whatever is wrong with a ciphertext, the error is one: also for another key's and for a version that never was.
func TestOneErrorForEveryBadCiphertext(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.create(api.CreateKeyRequest{Name: "pii"})
	text := h.encrypt("phi", "some plaintext", nil)
	blob, err := envelope.AppendDecodedText(nil, []byte(text))
	h.must(err)
	want := envelope.ErrOpen.Error()
	for i := range blob {
		for bit := range 8 {
			bad := bytes.Clone(blob)
			bad[i] ^= 1 << bit
			_, _, err := h.tryDecrypt(owner(), "phi", string(envelope.AppendText(nil, bad)), nil)
			// The first bytes say that it is a ciphertext at all; without them the error may say that it isn't one.
			if fault.CodeOf(err) != api.CodeIntegrity || i >= envelope.HeaderSize && err.Error() != want {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	_, _, err = h.tryDecrypt(owner(), "pii", text, nil)
	if err == nil || err.Error() != want {
		t.Errorf("another key's ciphertext: %v", err)
	}
	for _, s := range []string{"", "kt1.", "kt1.AAAA", text[:len(text)-1], text + "A", text + "\n", " " + text, "KT1." + text[4:], "plaintext"} {
		_, _, err = h.tryDecrypt(owner(), "phi", s, nil)
		wants(t, err, api.CodeIntegrity)
	}
}

func TestUnknownAndMalformedKeys(t *testing.T) {
	h := newHouse(t, options{})
	_, err := h.tryEncrypt("absent", "x", nil)
	wants(t, err, api.CodeNotFound)
	if e := h.lastEvent(); e.Success || e.Details["code"] != "not_found" || e.Resource != "key/absent" {
		t.Errorf("%s", e.raw)
	}
	for _, name := range []string{"../x", "a%b", "A", "", strings.Repeat("a", 300), `x"; drop table`} {
		_, err := h.tryEncrypt(name, "x", nil)
		wants(t, err, api.CodeInvalid)
		_, err = h.svc.Show(t.Context(), owner(), name)
		wants(t, err, api.CodeInvalid)
	}
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err = h.tryEncrypt("phi", strings.Repeat("x", api.MaxPlaintext+1), nil)
	wants(t, err, api.CodeTooLarge, "plaintext")
	h.encrypt("phi", strings.Repeat("x", api.MaxPlaintext), nil)
}

// A context that would carry a secret into the log is refused, and nothing of it is recorded.
func TestSecretsInTheContextAreRefused(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	token, _, err := access.NewToken(bytes.NewReader(bytes.Repeat([]byte{7}, 40)))
	h.must(err)
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
	for name, value := range map[string]string{
		"token": token, "token in a header": "Bearer " + token, "ciphertext": text, "jwt": jwt, "jwt in text": "x=" + jwt,
		"pem": "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "second of two": "kt_ " + token,
	} {
		m := map[string]string{"a": "1", "ctx": value}
		_, err := h.tryEncrypt("phi", "x", m)
		wants(t, err, api.CodeInvalid, "context")
		if strings.Contains(err.Error(), value) {
			t.Errorf("%s: the error repeats it", name)
		}
		if e := h.lastEvent(); e.Success || strings.Contains(e.raw, value[:12]) {
			t.Errorf("%s: %s", name, e.raw)
		}
		_, err = h.svc.DataKey(t.Context(), owner(), "phi", api.DataKeyRequest{Context: m})
		wants(t, err, api.CodeInvalid, "context")
		_, err = h.svc.Rewrap(t.Context(), owner(), "phi", api.RewrapRequest{Ciphertext: text, Context: m})
		wants(t, err, api.CodeInvalid, "context")
		_, err = h.svc.Derive(t.Context(), owner(), "phi", api.DeriveRequest{Label: "l", Context: m})
		wants(t, err, api.CodeInvalid, "context")
		out, err := h.svc.EncryptBatch(t.Context(), owner(), "phi", api.EncryptBatchRequest{Items: []api.EncryptRequest{{Context: m}}})
		if err != nil || out.Items[0].Error == nil || out.Items[0].Error.Code != api.CodeInvalid {
			t.Errorf("%s in a batch: %+v, %v", name, out, err)
		}
	}
	for _, fine := range []string{"kt_17", "kt1.", "patient-17", "eyJ", "eyJhbGciOiJIUzI1NiJ9", "-----BEGIN", "https://example.org/a.b.c", "kt_0123456789abcdeX"} {
		if _, err := h.tryEncrypt("phi", "x", map[string]string{"ctx": fine}); err != nil {
			t.Errorf("%q is refused: %v", fine, err)
		}
	}
}

// Row 100: what is under one key opens under that key alone, whoever asks and by whichever door; a caller whose scope ends at
// one key can't reach another's values by showing them at its own.
func TestAdvisory_STORM_0558(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "consumer"})
	h.create(api.CreateKeyRequest{Name: "enterprise"})
	theirs, own := h.encrypt("enterprise", "078-05-1120", nil), h.encrypt("consumer", "own", nil)
	scoped := asScoped(access.RoleApplication, "key/consumer")
	for name, c := range map[string]*access.Caller{"the scoped caller": scoped, "the owner": owner()} {
		doors := map[string]func(text string) error{
			"decrypt": func(text string) error { _, _, err := h.tryDecrypt(c, "consumer", text, nil); return err },
			"rewrap": func(text string) error {
				_, err := h.svc.Rewrap(t.Context(), owner(), "consumer", api.RewrapRequest{Ciphertext: text})
				return err
			},
			"a batch": func(text string) error {
				out, err := h.svc.DecryptBatch(t.Context(), c, "consumer", api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: own}, {Ciphertext: text}}})
				if err != nil {
					return err
				}
				if out.Items[0].Error != nil {
					t.Errorf("%s: its own value in a batch: %v", name, out.Items[0].Error)
				}
				if e := out.Items[1].Error; e != nil {
					return fault.New(e.Code, e.Message)
				}
				return nil
			},
		}
		for door, try := range doors {
			if err := try(own); err != nil {
				t.Errorf("%s: %s of its own: %v", name, door, err)
			}
			wants(t, try(theirs), api.CodeIntegrity)
		}
	}
	_, _, err := h.tryDecrypt(scoped, "enterprise", theirs, nil)
	wants(t, err, api.CodeDenied)
	h.opens("enterprise", theirs, "078-05-1120", nil, 1)
}

// Rewrapping changes the version and nothing else: same plaintext, same context, and no request can widen it.
func TestAdvisory_CVE_2026_22728(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.create(api.CreateKeyRequest{Name: "pii"})
	context := map[string]string{"patient": "17"}
	old := h.encrypt("phi", "078-05-1120", context)
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)

	admin := as(access.RoleKeyAdministrator) // may rewrap, may not decrypt
	out, err := h.svc.Rewrap(t.Context(), admin, "phi", api.RewrapRequest{Ciphertext: old, Context: context})
	if err != nil || out.Version != 2 || out.FromVersion != 1 || out.Ciphertext == old {
		t.Fatalf("%+v, %v", out, err)
	}
	h.opens("phi", out.Ciphertext, "078-05-1120", context, 2)
	if e := h.lastEvent(); strings.Contains(e.raw, "078") {
		t.Errorf("%s", e.raw)
	}
	for _, other := range []map[string]string{nil, {"patient": "18"}, {"patient": "17", "tenant": "x"}, {"patient": "*"}} {
		_, err := h.svc.Rewrap(t.Context(), owner(), "phi", api.RewrapRequest{Ciphertext: old, Context: other})
		wants(t, err, api.CodeIntegrity)
		_, _, err = h.tryDecrypt(owner(), "phi", out.Ciphertext, other)
		wants(t, err, api.CodeIntegrity)
	}
	_, err = h.svc.Rewrap(t.Context(), owner(), "pii", api.RewrapRequest{Ciphertext: old, Context: context})
	wants(t, err, api.CodeIntegrity)

	same, err := h.svc.Rewrap(t.Context(), admin, "phi", api.RewrapRequest{Ciphertext: out.Ciphertext, Context: context})
	if err != nil || same.Ciphertext != out.Ciphertext || same.FromVersion != 2 || same.Version != 2 {
		t.Errorf("a current ciphertext became %+v, %v", same, err)
	}
	end := "AA"
	if strings.HasSuffix(out.Ciphertext, end) {
		end = "Aw"
	}
	tampered := out.Ciphertext[:len(out.Ciphertext)-2] + end
	_, err = h.svc.Rewrap(t.Context(), admin, "phi", api.RewrapRequest{Ciphertext: tampered, Context: context})
	wants(t, err, api.CodeIntegrity)
}

func TestRewrapFromACompromisedVersion(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	old := h.encrypt("phi", "x", nil)
	_, err := h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{})
	h.must(err)
	_, err = h.svc.Rewrap(t.Context(), as(access.RoleApplication), "phi", api.RewrapRequest{Ciphertext: old})
	wants(t, err, api.CodeDenied)
	out, err := h.svc.Rewrap(t.Context(), owner(), "phi", api.RewrapRequest{Ciphertext: old})
	if err != nil || out.Version != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	if e := h.lastEvent(); e.Details["state"] != "compromised" {
		t.Errorf("the use of a compromised version isn't flagged: %s", e.raw)
	}
}

func TestDataKey(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	context := map[string]string{"file": "a"}
	out, err := h.svc.DataKey(t.Context(), as(access.RoleApplication), "phi", api.DataKeyRequest{Context: context})
	if err != nil || len(out.Plaintext) != 32 || out.Version != 1 {
		t.Fatalf("%d bytes, %v", len(out.Plaintext), err)
	}
	h.opens("phi", out.Ciphertext, string(out.Plaintext), context, 1)
	for n, ok := range map[int]bool{16: true, 64: true, 15: false, 65: false, -1: false} {
		out, err := h.svc.DataKey(t.Context(), owner(), "phi", api.DataKeyRequest{Bytes: n})
		if ok != (err == nil) || ok && len(out.Plaintext) != n {
			t.Errorf("%d bytes: %v", n, err)
		}
		if !ok {
			wants(t, err, api.CodeInvalid, "bytes")
		}
	}
	_, err = h.svc.DataKey(t.Context(), as(access.RoleKeyAdministrator), "phi", api.DataKeyRequest{})
	wants(t, err, api.CodeDenied)
}

func TestDerive(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	ask := func(in api.DeriveRequest) api.DeriveResponse {
		t.Helper()
		out, err := h.svc.Derive(t.Context(), owner(), "phi", in)
		h.must(err)
		return out
	}
	in := api.DeriveRequest{Label: "search", Context: map[string]string{"tenant": "a"}}
	first := ask(in)
	if len(first.Key) != 32 || first.Version != 1 || !bytes.Equal(first.Key, ask(in).Key) {
		t.Error("deriving isn't deterministic")
	}
	if e := h.lastEvent(); e.Type != "key_derive" || e.Details["label"] != "search" || e.Details["length"] != 32.0 {
		t.Errorf("%s", e.raw)
	}
	for _, other := range []api.DeriveRequest{{Label: "other", Context: in.Context}, {Label: "search"}, {Label: "search", Context: in.Context, Length: 33}} {
		if bytes.HasPrefix(ask(other).Key, first.Key[:16]) {
			t.Errorf("%+v derives the same", other)
		}
	}
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	if again := ask(in); again.Version != 2 || bytes.Equal(again.Key, first.Key) {
		t.Error("the new version derives what the old one did")
	}
	in.Version = 1
	if !bytes.Equal(ask(in).Key, first.Key) {
		t.Error("version 1 no longer derives what it derived")
	}
	for field, bad := range map[string]api.DeriveRequest{
		"label": {Label: ""}, "length": {Label: "l", Length: 65}, "version": {Label: "l", Version: 9},
	} {
		_, err := h.svc.Derive(t.Context(), owner(), "phi", bad)
		if fault.FieldOf(err) != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, role := range []string{access.RoleApplication, access.RoleKeyAdministrator, access.RoleAuditor, access.RoleBackup} {
		_, err := h.svc.Derive(t.Context(), as(role), "phi", api.DeriveRequest{Label: "l"})
		wants(t, err, api.CodeDenied)
	}
}

func TestInspect(t *testing.T) {
	h := newHouse(t, options{})
	k := h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "12345", nil)
	out, err := h.svc.Inspect(t.Context(), owner(), api.InspectRequest{Ciphertext: text})
	want := api.Inspection{Format: 1, Suite: 1, Key: "phi", KeyID: k.ID, Version: 1, Bytes: 5}
	if err != nil || out != want {
		t.Errorf("%+v, %v", out, err)
	}
	// Who may not see the key doesn't learn its name; one that doesn't exist looks the same.
	out, err = h.svc.Inspect(t.Context(), asScoped(access.RoleApplication, "key/other"), api.InspectRequest{Ciphertext: text})
	if want.Key = ""; err != nil || out != want {
		t.Errorf("%+v, %v", out, err)
	}
	_, err = h.svc.Inspect(t.Context(), owner(), api.InspectRequest{Ciphertext: "078-05-1120"})
	wants(t, err, api.CodeIntegrity)
}

func TestListShowsOnlyWhatOneMaySee(t *testing.T) {
	h := newHouse(t, options{})
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		h.create(api.CreateKeyRequest{Name: name})
	}
	names := func(c *access.Caller, after string, limit int) (string, string) {
		t.Helper()
		out, err := h.svc.List(t.Context(), c, after, limit)
		h.must(err)
		var all []string
		for _, k := range out.Keys {
			all = append(all, k.Name)
		}
		return strings.Join(all, ""), out.Next
	}
	for _, q := range []struct {
		caller      *access.Caller
		after       string
		limit       int
		names, next string
	}{
		{owner(), "", 0, "abcde", ""}, {owner(), "", 2, "ab", "b"}, {owner(), "b", 2, "cd", "d"}, {owner(), "d", 2, "e", ""}, {owner(), "", 5, "abcde", ""},
		{asScoped(access.RoleAuditor, "key/b", "key/d"), "", 0, "bd", ""}, {asScoped(access.RoleAuditor, "key/b", "key/d"), "", 1, "b", "b"},
		{asScoped(access.RoleAuditor, "key/none"), "", 0, "", ""},
	} {
		if got, next := names(q.caller, q.after, q.limit); got != q.names || next != q.next {
			t.Errorf("scope %v after %q limit %d: %q, next %q", q.caller.Principal.Scope, q.after, q.limit, got, next)
		}
	}
	_, err := h.svc.List(t.Context(), asScoped(access.RoleAuditor), "", 0)
	wants(t, err, api.CodeDenied)
	_, err = h.svc.List(t.Context(), owner(), "", -1)
	wants(t, err, api.CodeInvalid, "limit")
}

// A key of another scope is refused in every verb, alike whether it exists, and nothing of it changes.
func TestAdvisory_CVE_2023_24999(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "theirs"})
	text := h.encrypt("theirs", "x", nil)
	before := h.stored("theirs")
	mine := asScoped(access.RoleOwner, "key/mine", "principal/mine", "master/mine", "system/*")
	for verb, call := range verbs(h, text) {
		there, absent := call(mine, "theirs"), call(mine, "absent")
		wants(t, there, api.CodeDenied)
		if there == nil || absent == nil || there.Error() != absent.Error() {
			t.Errorf("%s tells an existing key from a missing one: %v / %v", verb, there, absent)
		}
	}
	after := h.stored("theirs")
	before.Versions[0].Operations, before.Versions[0].Bytes = after.Versions[0].Operations, after.Versions[0].Bytes
	if after.Revision != before.Revision || len(after.Versions) != 1 || after.Versions[0].State != keys.Active {
		t.Errorf("a denied call changed the key: %+v", after)
	}
}

// verbs is every method that takes a key's name, by what it is called in this test.
func verbs(h *house, text string) map[string]func(c *access.Caller, key string) error {
	ctx := context.Background()
	var s *Service
	if h != nil { // without one, only the names are of use
		s = h.svc
	}
	state := api.VersionStateRequest{Version: 1}
	return map[string]func(*access.Caller, string) error{
		"show": func(c *access.Caller, k string) error { _, err := s.Show(ctx, c, k); return err },
		"create": func(c *access.Caller, k string) error {
			_, err := s.Create(ctx, c, api.CreateKeyRequest{Name: k})
			return err
		},
		"rotate": func(c *access.Caller, k string) error {
			_, err := s.Rotate(ctx, c, k, api.RotateKeyRequest{})
			return err
		},
		"suspend":    func(c *access.Caller, k string) error { _, err := s.Suspend(ctx, c, k, state); return err },
		"resume":     func(c *access.Caller, k string) error { _, err := s.Resume(ctx, c, k, state); return err },
		"disable":    func(c *access.Caller, k string) error { _, err := s.Disable(ctx, c, k, state); return err },
		"compromise": func(c *access.Caller, k string) error { _, err := s.Compromise(ctx, c, k, state); return err },
		"destroy":    func(c *access.Caller, k string) error { _, err := s.Destroy(ctx, c, k, state); return err },
		"undestroy":  func(c *access.Caller, k string) error { _, err := s.Undestroy(ctx, c, k, state); return err },
		"import": func(c *access.Caller, k string) error {
			_, err := s.Import(ctx, c, k, api.ImportKeyRequest{Material: []byte("0123456789abcdefghijklmnopqrstuv")})
			return err
		},
		"export": func(c *access.Caller, k string) error {
			_, err := s.Export(ctx, c, k, api.ExportKeyRequest{Reason: "r"})
			return err
		},
		"encrypt": func(c *access.Caller, k string) error {
			_, _, err := s.Encrypt(ctx, c, k, nil, nil, "", nil)
			return err
		},
		"decrypt": func(c *access.Caller, k string) error {
			_, _, err := s.Decrypt(ctx, c, k, []byte(text), nil, "", nil)
			return err
		},
		"rewrap": func(c *access.Caller, k string) error {
			_, err := s.Rewrap(ctx, c, k, api.RewrapRequest{Ciphertext: text})
			return err
		},
		"datakey": func(c *access.Caller, k string) error {
			_, err := s.DataKey(ctx, c, k, api.DataKeyRequest{})
			return err
		},
		"derive": func(c *access.Caller, k string) error {
			_, err := s.Derive(ctx, c, k, api.DeriveRequest{Label: "l"})
			return err
		},
		"encrypt batch": func(c *access.Caller, k string) error {
			_, err := s.EncryptBatch(ctx, c, k, api.EncryptBatchRequest{Items: []api.EncryptRequest{{}}})
			return err
		},
		"decrypt batch": func(c *access.Caller, k string) error {
			_, err := s.DecryptBatch(ctx, c, k, api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: text}}})
			return err
		},
		"rewrap batch": func(c *access.Caller, k string) error {
			_, err := s.RewrapBatch(ctx, c, k, api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: text}}})
			return err
		},
	}
}

// No answer that isn't made for it holds key material: not the raw bytes of any live key, in any spelling.
func TestAdvisory_CVE_2022_25244(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.Import(t.Context(), owner(), "known", api.ImportKeyRequest{Material: []byte("0123456789abcdefghijklmnopqrstuv")})
	h.must(err)
	answers := readings(h)
	for _, name := range []string{"phi", "known"} {
		out, err := h.svc.Export(t.Context(), owner(), name, api.ExportKeyRequest{Reason: "to look for it"})
		h.must(err)
		for _, form := range spellings(out.Material) {
			for what, text := range answers {
				if strings.Contains(text, form) {
					t.Errorf("%s shows the material of %s", what, name)
				}
			}
			if bytes.Contains(h.everything(), []byte(form)) {
				t.Errorf("the store holds the material of %s in clear", name)
			}
		}
	}
}

// Sealing and opening go on while versions come and go, on both databases.
func TestManyAtOnce(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { manyAtOnce(t, newHouse(t, options{})) })
	t.Run("postgres", func(t *testing.T) { manyAtOnce(t, newHouse(t, options{url: pgtest.Start(t).Database(t)})) })
}

func manyAtOnce(t *testing.T, h *house) {
	h.create(api.CreateKeyRequest{Name: "phi"})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // so that who waits for ever says so
	defer cancel()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				out, _, err := h.svc.Encrypt(ctx, owner(), "phi", []byte("x"), nil, "", nil)
				if err != nil {
					t.Errorf("sealing: %v", err)
					return
				}
				if _, _, err := h.svc.Decrypt(ctx, owner(), "phi", out, nil, "", nil); err != nil {
					t.Errorf("opening: %v", err)
					return
				}
			}
		})
	}
	for range 10 {
		if _, err := h.svc.Rotate(ctx, owner(), "phi", api.RotateKeyRequest{}); err != nil {
			t.Errorf("rotating: %v", err)
		}
	}
	group.Wait()
	active := 0
	for i, v := range h.stored("phi").Versions {
		if v.Number != uint32(i+1) {
			t.Error("the versions aren't dense")
		}
		if v.State == keys.Active {
			active++
		}
	}
	if active != 1 {
		t.Errorf("%d active versions", active)
	}
}
