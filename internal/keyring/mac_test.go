package keyring_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
)

// A MAC holds for one store, purpose, label and message, and outlives the generation of the KEK that it was made under.
func TestMAC(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src, keyringtest.Master(t, "one", make([]byte, 32)...))
	ctx := t.Context()
	mac, err := ring.MAC(ctx, keys.KEKAudit, "tokens", []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := ring.NewKEKs(ctx, []keys.KEKPurpose{keys.KEKAudit})
	if err != nil {
		t.Fatal(err)
	}
	src.PutKEKs(made...)
	if err := ring.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if again, err := ring.MAC(ctx, keys.KEKAudit, "tokens", []byte("message")); err != nil || again == mac {
		t.Errorf("under the next generation: the same again, or %v", err)
	}
	if err := ring.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("message"), mac); err != nil {
		t.Fatalf("under the generation before: %v", err)
	}
	other := keyring.New("store-2", []keyring.MasterKey{keyringtest.Master(t, "one", make([]byte, 32)...)}, src)
	id, code, _ := strings.Cut(mac, ":")
	for name, err := range map[string]error{
		"another purpose": ring.CheckMAC(ctx, keys.KEKData, "tokens", []byte("message"), mac),
		"another label":   ring.CheckMAC(ctx, keys.KEKAudit, "keys", []byte("message"), mac),
		"another message": ring.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("messag"), mac),
		"another store":   other.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("message"), mac),
		"another KEK":     ring.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("message"), strings.Repeat("0", 32)+":"+code),
		"no code":         ring.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("message"), id+":"),
		"half a code":     ring.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("message"), mac[:len(mac)-1]),
		"nothing":         ring.CheckMAC(ctx, keys.KEKAudit, "tokens", []byte("message"), ""),
	} {
		if fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.MAC(ctx, keys.KEKAudit, "tokens", nil); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("after closing: %v", err)
	}
}
