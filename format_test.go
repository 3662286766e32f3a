package keyturn

import (
	"bytes"
	"context"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/material"
)

// frozenMessage was sealed by the first release, under key material of 32 bytes 0x42, key id 0x11…, version 7, purpose
// phi, tenant a. It must open for ever: a change of the format that breaks it is a defect.
const frozenMessage = "kte1.S1QBAREREREREREREREREREREREAAAAHR6PYbJa2u3WHOPGU2TtL24TIAfbWCmYpyNHBEJL148jl1WXJ1SIyDQOFgvYI9UXbNYcKLynnMewtCI5xH4M" +
	"aALtIRn8Z2Bt5OU4JZZApYrDy3rMToiXrvCSGe8g9Kf9TZIjA5-MH4Guq9lLNazYrghMkCYk-_MeaMpiqPw.S1QBAQo6wi9ymaUWNm7YC1GkkTAAAAABwWKy" +
	"iWW_1OWPeF-fomAhoCtiCmlVPkFSk8szDn03F8q5D0lhhGMEceQugArJK9iuZ3DsY5DDgbK5sXr6KzDT-4HvJfcWi8JWdihdVpU9EpHx-xzWpqgiHMbxWmjY7A6J-GWa9F1UwQ"

// frozenKeys opens data keys as the server did that the message was sealed with.
type frozenKeys struct {
	keyService
	key *envelope.Key
}

func newFrozenKeys(t *testing.T) frozenKeys {
	t.Helper()
	id := envelope.KeyID(bytes.Repeat([]byte{0x11}, 16))
	k, err := envelope.NewKey(id, 7, envelope.SuiteStandard, "phi", material.New(bytes.Repeat([]byte{0x42}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return frozenKeys{key: k}
}

func (f frozenKeys) Decrypt(_ context.Context, _ string, in api.DecryptRequest) (api.DecryptResponse, error) {
	plain, err := (&fakeKeys{key: f.key}).open(in.Ciphertext, in.Context)
	return api.DecryptResponse{Plaintext: plain, Version: 7}, err
}

func TestTheFormatIsFrozen(t *testing.T) {
	e := envelopeOf(t, newFrozenKeys(t), EnvelopeConfig{Context: map[string]string{"tenant": "a"}})
	got, err := e.Open(context.Background(), frozenMessage, map[string]string{"patient": "17", "column": "ssn"})
	if err != nil || string(got) != "900-05-1120" {
		t.Errorf("got %q, %v", got, err)
	}
}
