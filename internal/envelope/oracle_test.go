package envelope

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha512"
	"io"
	"testing"

	aead "github.com/tink-crypto/tink-go/v2/aead/subtle"
	mac "github.com/tink-crypto/tink-go/v2/mac/subtle"
	kdf "github.com/tink-crypto/tink-go/v2/subtle"
	"golang.org/x/crypto/hkdf"
	"pgregory.net/rapid"
)

// Independent implementations of each primitive, over ciphertexts that the package made. Their names end in Oracle: the
// run under fips140=only leaves them out, because the oracles ask for what that mode refuses.

// HKDF: golang.org/x/crypto's reader expands to the same 64 bytes. tink's HKDF, which extracts first, agrees with
// x/crypto on the whole function, so three implementations stand behind the one step that is used.
func TestHKDFOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
		info := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "info")
		k := testKey(t, SuiteStandard, func(m *refMessage) { m.key = key })
		_, s, err := k.begin(nil)
		if err != nil {
			t.Fatal(err)
		}
		s.expand(bytes.Clone(info))
		var want [64]byte
		if _, err := io.ReadFull(hkdf.Expand(sha512.New, key, info), want[:]); err != nil || s.okm != want {
			t.Fatalf("expanded to %x, x/crypto to %x, %v", s.okm, want, err)
		}
		whole := make([]byte, 64)
		if _, err := io.ReadFull(hkdf.New(sha512.New, key, nil, info), whole); err != nil {
			t.Fatal(err)
		}
		if tink, err := kdf.ComputeHKDF("SHA512", key, nil, info, 64); err != nil || !bytes.Equal(tink, whole) {
			t.Fatalf("tink's HKDF gives %x, x/crypto's %x, %v", tink, whole, err)
		}
	})
}

// AES-256-GCM: tink opens the last part of a blob with the derived key, and what tink seals, with its own header in
// front, the package opens.
func TestGCMOracle(t *testing.T) {
	for _, suite := range []Suite{SuiteStandard, SuiteCompact} {
		p := suite.shape()
		rapid.Check(t, func(t *rapid.T) {
			plain := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "plaintext")
			m := refMessage{key: testMaterial, header: Header{Format, suite, testID, 7}, purpose: "phi", context: testContext(t, "a", "b")}
			k := testKey(t, suite)
			blob, err := k.Seal(nil, plain, m.context)
			if err != nil {
				t.Fatal(err)
			}
			m.salt = blob[HeaderSize : HeaderSize+p.salt]
			front := HeaderSize + p.salt + p.com
			tink, err := aead.NewAESGCM(m.okm()[:32])
			if err != nil {
				t.Fatal(err)
			}
			if out, err := tink.Decrypt(blob[front:], m.aad()); err != nil || !bytes.Equal(out, plain) {
				t.Fatalf("tink opens it to %x, %v", out, err)
			}
			sealed, err := tink.Encrypt(plain, m.aad())
			if err != nil {
				t.Fatal(err)
			}
			if out, err := k.Open(nil, append(bytes.Clone(blob[:front]), sealed...), m.context); err != nil || !bytes.Equal(out, plain) {
				t.Fatalf("what tink sealed opens to %x, %v", out, err)
			}
		})
	}
}

// cbcOnly is AES-CBC as tink's EncryptThenAuthenticate wants it; tink itself brings AES-CTR only.
type cbcOnly struct {
	key  []byte
	salt int
}

func (c cbcOnly) Encrypt([]byte) ([]byte, error) { panic("opening only") }

func (c cbcOnly) Decrypt(payload []byte) ([]byte, error) {
	block, err := newAES(&scratch{okm: [64]byte(append(bytes.Clone(c.key), make([]byte, 32)...))})
	if err != nil {
		return nil, err
	}
	body := bytes.Clone(payload[c.salt+16:])
	cipher.NewCBCDecrypter(block, payload[c.salt:c.salt+16]).CryptBlocks(body, body)
	return body[:len(body)-int(body[len(body)-1])], nil
}

// Suite 4: tink's encrypt-then-authenticate (additional data, ciphertext, bit length of the additional data under
// HMAC-SHA-256) accepts our ciphertexts, so the MAC covers what RFC 7518 section 5.2.2.1 says, in its order.
func TestEncryptThenMACOracle(t *testing.T) {
	for n := range 50 {
		plain := bytes.Repeat([]byte{7}, n)
		m := refMessage{key: testMaterial, header: Header{Format, SuiteCBC, testID, 7}, purpose: "phi", context: testContext(t, "a", "b")}
		blob := mustSeal(t, testKey(t, SuiteCBC), plain, m.context)
		m.salt = blob[HeaderSize : HeaderSize+32]
		okm := m.okm()
		authenticator, err := mac.NewHMAC("SHA256", okm[32:], 32)
		if err != nil {
			t.Fatal(err)
		}
		tink, err := aead.NewEncryptThenAuthenticate(cbcOnly{okm[:32], 32}, authenticator, 32)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := tink.Decrypt(blob[HeaderSize:], m.aad()); err != nil || !bytes.Equal(out, plain) {
			t.Errorf("%d bytes: tink opens it to %x, %v", n, out, err)
		}
		blob[len(blob)-40] ^= 1
		if _, err := tink.Decrypt(blob[HeaderSize:], m.aad()); err == nil {
			t.Errorf("%d bytes: tink accepts a changed one", n)
		}
	}
}
