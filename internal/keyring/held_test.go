package keyring_test

import (
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/material"
)

func TestHeldMasterKey(t *testing.T) {
	secret := func(b byte) func(*testing.T) keyring.MasterKey {
		return func(t *testing.T) keyring.MasterKey {
			m := make([]byte, 32)
			m[0] = b
			return keyringtest.Master(t, "test", m...)
		}
	}
	keyringtest.Exercise(t, keyringtest.Harness{Open: secret(1), Other: secret(2)})
}

// A wrapping as it stands in stores; never to be regenerated.
const (
	frozenFingerprint = "5e475b4556814c694083e00d79498c65"
	frozenWrapping    = "4b5401015e475b4556814c694083e00d79498c6500000001442c7b193124525080a2d9ee6871dfaaa121e4871750858df7da30f69926a1b69b09ec54" +
		"8f6af8d5fa57ca9fde52dc979523e866fc134b30a071d11076c54335a64fb1726443f468903d3942fb2c545a517a5cdb5a1a734737e0da3ff54dc09d" +
		"2b5e9ddf1f1733c934c78ea0b00e3a4bb8077afd289046f3b575f82f"
)

// P4: a wrapping that was stored once keeps opening, and the fingerprint under which it is found stays the same.
func TestFrozenWrapping(t *testing.T) {
	k := keyringtest.Master(t, "frozen", []byte("the master key of a frozen store")...)
	if k.ID() != frozenFingerprint {
		t.Errorf("the fingerprint is %s, it was %s", k.ID(), frozenFingerprint)
	}
	b := keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "00112233445566778899aabbccddeeff", Version: 3, State: "active", Seq: 7}
	m, err := k.Unwrap(t.Context(), unhex(t, frozenWrapping), b)
	if err != nil || string(m.Expose()) != "a key-encryption key, thirty-two" {
		t.Errorf("the frozen wrapping doesn't open: %v", err)
	}
}

func TestHoldRefuses(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		m := material.Random(n)
		if _, err := keyring.Hold("x://y", "x", m); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%d bytes: %v", n, err)
		}
		if m.Len() != 0 {
			t.Errorf("%d bytes: the material was left alive", n)
		}
	}
}
