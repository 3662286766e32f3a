package server

import (
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// Two nodes on one PostgreSQL: the second joins with the master key, both work at once, and the log that both write
// verifies as one.
func TestTwoNodesOnPostgreSQL(t *testing.T) {
	url := pgtest.Start(t).Database(t)
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	made, err := initIn(t, first, InitOptions{Store: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := initIn(t, filepath.Join(t.TempDir(), "c"), InitOptions{Store: url}); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("joining with another master key: %v", err)
	}
	joined, err := initIn(t, second, InitOptions{Store: url, MasterKeys: []string{made.MasterKey}})
	if err != nil || joined.StoreID != made.StoreID {
		t.Fatalf("joining: %+v, %v", joined, err)
	}
	a := inside(opened(t, first, Options{Set: map[string]any{"node": "a"}}))
	b := inside(opened(t, second, Options{Set: map[string]any{"node": "b"}}))
	a.key(t, "phi")
	var sealed api.EncryptResponse
	b.must(t, "POST", "/v1/keys/phi/encrypt", api.EncryptRequest{Plaintext: []byte("x")}, &sealed)
	b.must(t, "POST", "/v1/keys/phi/rotate", nil, nil)
	var opened api.DecryptResponse
	a.must(t, "POST", "/v1/keys/phi/decrypt", api.DecryptRequest{Ciphertext: sealed.Ciphertext}, &opened)
	if string(opened.Plaintext) != "x" {
		t.Errorf("%q", opened.Plaintext)
	}
	token := a.principal(t, "app", "application")
	c := b
	c.token = token
	c.must(t, "GET", "/v1/whoami", nil, nil)
	for name, node := range map[string]caller{"a": a, "b": b} {
		var check api.AuditVerification
		if node.must(t, "GET", "/v1/audit/verify", nil, &check); !check.OK || len(check.Shards) != 2 {
			t.Errorf("%s: %+v", name, check)
		}
		var doctor api.Doctor
		if node.must(t, "GET", "/v1/doctor", nil, &doctor); !doctor.OK {
			t.Errorf("%s: %+v", name, doctor)
		}
	}
}
