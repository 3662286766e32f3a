package vaulttransit

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/keyring"
)

// A wrapping has one form: what Vault would take for the same one isn't taken.
func TestWrappingIsStrict(t *testing.T) {
	for text, want := range map[string]uint64{
		"vault:v1:AAAA": 1, "vault:v4294967295:AAAA": 4294967295, "vault:v12:cDv3Fc/CEuAVIKW2k1QSBXUY5rvhuDeDQtR1w6cl": 12, "vault:v1:AA==": 1,
		"vault:v0:AAAA": 0, "vault:v01:AAAA": 0, "vault:v4294967296:AAAA": 0, "vault:v99999999999:AAAA": 0, "vault:v-1:AAAA": 0, "vault:v+1:AAAA": 0, "vault:v:AAAA": 0,
		"vault:v1:": 0, "vault:v1:AAA": 0, "vault:v1:AB==": 0, "vault:v1:AAAA\n": 0, "vault:v1:AA\nAA": 0, "vault:v1:AA-_": 0, " vault:v1:AAAA": 0, "Vault:v1:AAAA": 0,
		"vault:v1:AAAA:v1:AAAA": 0, `vault:v1:AAAA","x":"`: 0, "": 0, "vault:v1:" + strings.Repeat("AAAA", 1<<10): 0,
	} {
		version, ok := wrapping([]byte(text))
		if ok != (want != 0) || ok && version != want {
			t.Errorf("%.40q: %d, %v, want %d", text, version, ok, want)
		}
	}
}

func FuzzWrapping(f *testing.F) {
	f.Add([]byte("vault:v1:cDv3Fc/CEuAVIKW2k1QSBXUY5rvhuDeDQtR1w6cl"))
	f.Add([]byte("vault:v0:AA=="))
	f.Add([]byte(`vault:v1:","a":"`))
	f.Fuzz(func(t *testing.T, blob []byte) {
		version, ok := wrapping(blob)
		if ok && (version == 0 || strings.ContainsAny(string(blob), "\"\\\n \x00") || len(blob) > maxWrapping) {
			t.Fatalf("%q is taken as a wrapping of version %d", blob, version)
		}
	})
}

// P4: what wrappings are bound to, and the fingerprint that they are found by, stand in stores and in Vault. Never to be changed.
func TestFrozenForms(t *testing.T) {
	k := key{}
	body, err := k.body(`{"ciphertext":"`, func(b []byte) []byte { return append(b, "vault:v1:AAAA"...) },
		keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "0011", Version: 3, State: "active", Seq: 7})
	// {"id":"0011","kind":"kek/data","seq":"7","state":"active","tenant":"store-1","version":"3"} in base64
	const want = `{"ciphertext":"vault:v1:AAAA","associated_data":"eyJpZCI6IjAwMTEiLCJraW5kIjoia2VrL2RhdGEiLCJzZXEiOiI3Iiwic3RhdGUiOiJhY3RpdmUiLCJ0ZW5hbnQiOiJzdG9yZS0xIiwidmVyc2lvbiI6IjMifQ=="}`
	if err != nil || string(body) != want {
		t.Errorf("the request is %s, %v", body, err)
	}
	if got := fingerprint("03066f90-406d-4b9a-2504-bc30854856e2", "keyturn"); got != frozenFingerprint {
		t.Errorf("the fingerprint is %s", got)
	}
}

const frozenFingerprint = "a173c0e390a1b48162372e3f68f6eef4"
