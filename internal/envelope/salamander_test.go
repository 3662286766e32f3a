package envelope

import (
	"bytes"
	"testing"
)

// salamander makes a GCM ciphertext that opens under both keys, each with its own additional data ("invisible
// salamanders", Dodis, Grubbs, Ristenpart, Woodage 2018). The tag is linear in the ciphertext blocks, so one block is
// chosen to make the tags of both keys agree.
func salamander(key1, aad1, key2, aad2, nonce []byte) []byte {
	ct := append([]byte("one ciphertext, two plaintexts.."), make([]byte, 16)...) // the last block is the free one
	h1, h2 := refEncryptBlock(key1, make([]byte, 16)), refEncryptBlock(key2, make([]byte, 16))
	// In the GHASH the last ciphertext block stands before the lengths: its factor is H squared.
	factor := h1.mul(h1).xor(h2.mul(h2))
	difference := refGCMTag(key1, nonce, aad1, ct).xor(refGCMTag(key2, nonce, aad2, ct))
	free := difference.mul(factor.inverse())
	copy(ct[32:], free[:])
	tag := refGCMTag(key1, nonce, aad1, ct)
	return append(ct, tag[:]...)
}

// CVE-2025-14764, CVE-2020-8897 (row 67): AES-GCM alone lets one ciphertext open to two plaintexts. Here such a one is
// built, by somebody who knows both keys, and the commitment lets it open under one of them at most.
func TestAdvisory_CVE_2025_14764(t *testing.T) {
	ctx1, ctx2 := testContext(t, "patient", "17"), testContext(t, "patient", "18")
	otherKey := bytes.Repeat([]byte{0x42}, 32)
	for _, suite := range []Suite{SuiteStandard, SuiteCompact} {
		for name, second := range map[string]refMessage{
			"another key":     {key: otherKey, purpose: "phi", context: ctx1},
			"another context": {key: testMaterial, purpose: "phi", context: ctx2},
			"another purpose": {key: testMaterial, purpose: "pii", context: ctx1},
		} {
			p := suite.shape()
			header := Header{Format, suite, testID, 7}
			a := refMessage{key: testMaterial, header: header, purpose: "phi", context: ctx1, salt: bytes.Repeat([]byte{3}, p.salt)}
			b := second
			b.header, b.salt = header, a.salt
			nonce := bytes.Repeat([]byte{5}, 12)
			okmA, okmB := a.okm(), b.okm()
			body := salamander(okmA[:32], a.aad(), okmB[:32], b.aad(), nonce)

			// The attack works on the AEAD itself, else this test would show nothing.
			var plain [2][]byte
			for i, m := range []refMessage{a, b} {
				s := &scratch{aad: m.aad(), okm: [64]byte(m.okm())}
				out, err := openGCM(nil, append(bytes.Clone(nonce), body...), s)
				if err != nil {
					t.Fatalf("%v, %s: the salamander is broken: AES-GCM refuses it under key %d", suite, name, i+1)
				}
				plain[i] = out
			}
			if bytes.Equal(plain[0], plain[1]) {
				t.Fatalf("%v, %s: both plaintexts are the same", suite, name)
			}

			keyA := testKey(t, suite, func(m *refMessage) { m.key, m.purpose = a.key, a.purpose })
			keyB := testKey(t, suite, func(m *refMessage) { m.key, m.purpose = b.key, b.purpose })
			for which, com := range [][]byte{okmA[32 : 32+p.com], okmB[32 : 32+p.com]} {
				blob := append(append(header.append(nil), a.salt...), com...)
				blob = append(append(blob, nonce...), body...)
				_, errA := keyA.Open(nil, blob, a.context)
				_, errB := keyB.Open(nil, blob, b.context)
				if (errA == nil) != (which == 0) || (errB == nil) != (which == 1) {
					t.Errorf("%v, %s, with the commitment of key %d: opening gave %v and %v", suite, name, which+1, errA, errB)
				}
			}
		}
	}
}
