package envelope

import (
	"crypto/aes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"testing"
)

// The reference: the format of CRYPTO.md a second time, straight from the specifications, slow, and sharing no code with
// the package. Only the block cipher and the plain hashes come from the standard library; HMAC, HKDF, GCM and CBC are
// written out. TestReference checks it against published vectors, the rest of the tests check the package against it.

// refHMAC is RFC 2104 section 2 for keys of at most one block.
func refHMAC(sum func([]byte) []byte, block int, key, message []byte) []byte {
	inner, outer := make([]byte, block), make([]byte, block)
	copy(inner, key)
	copy(outer, key)
	for i := range block {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	return sum(append(outer, sum(append(inner, message...))...))
}

func refHMAC512(key, message []byte) []byte { return refHMAC(sum512, 128, key, message) }
func refHMAC256(key, message []byte) []byte { return refHMAC(sum256, 64, key, message) }
func sum512(b []byte) []byte                { h := sha512.Sum512(b); return h[:] }
func sum256(b []byte) []byte                { h := sha256.Sum256(b); return h[:] }

// refExpand is RFC 5869 section 2.3.
func refExpand(mac func(key, message []byte) []byte, prk, info []byte, n int) (okm []byte) {
	var last []byte
	for i := byte(1); len(okm) < n; i++ {
		last = mac(prk, append(append(append([]byte{}, last...), info...), i))
		okm = append(okm, last...)
	}
	return okm[:n]
}

// block128 is an element of GCM's field: bit 0 of SP 800-38D is the most significant bit here.
type block128 [16]byte

func (a block128) xor(b block128) (c block128) {
	for i := range a {
		c[i] = a[i] ^ b[i]
	}
	return c
}

// mul is SP 800-38D section 6.3, algorithm 1.
func (a block128) mul(b block128) block128 {
	z, v := new(big.Int), new(big.Int).SetBytes(b[:])
	r := new(big.Int).Lsh(big.NewInt(0xe1), 120)
	for i := range 128 {
		if a[i/8]>>(7-i%8)&1 == 1 {
			z.Xor(z, v)
		}
		odd := v.Bit(0) == 1
		v.Rsh(v, 1)
		if odd {
			v.Xor(v, r)
		}
	}
	var out block128
	z.FillBytes(out[:])
	return out
}

// inverse is a^(2^128 - 2).
func (a block128) inverse() block128 {
	out := block128{0x80} // one
	square := a
	for range 127 {
		square = square.mul(square)
		out = out.mul(square)
	}
	return out
}

func refEncryptBlock(key, in []byte) (out block128) {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	b.Encrypt(out[:], in)
	return out
}

// refGHASH is SP 800-38D section 6.4 over the padded additional data, the padded ciphertext and their lengths.
func refGHASH(h block128, aad, ciphertext []byte) (y block128) {
	var lengths [16]byte
	binary.BigEndian.PutUint64(lengths[:8], uint64(len(aad))*8)
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(ciphertext))*8)
	for _, part := range [][]byte{aad, ciphertext, lengths[:]} {
		for ; len(part) > 0; part = part[min(16, len(part)):] {
			var x block128
			copy(x[:], part)
			y = y.xor(x).mul(h)
		}
	}
	return y
}

func refCounter(nonce []byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{}, nonce...), n)
}

func refCTR(key, nonce, in []byte) []byte {
	out := append([]byte{}, in...)
	for i := range out {
		if i%16 == 0 {
			pad := refEncryptBlock(key, refCounter(nonce, uint32(i/16)+2))
			for j := i; j < min(i+16, len(out)); j++ {
				out[j] ^= pad[j-i]
			}
		}
	}
	return out
}

func refGCMTag(key, nonce, aad, ciphertext []byte) block128 {
	h := refEncryptBlock(key, make([]byte, 16))
	return refGHASH(h, aad, ciphertext).xor(refEncryptBlock(key, refCounter(nonce, 1)))
}

func refGCM(key, nonce, aad, plaintext []byte) []byte {
	ciphertext := refCTR(key, nonce, plaintext)
	tag := refGCMTag(key, nonce, aad, ciphertext)
	return append(ciphertext, tag[:]...)
}

func refCBC(key, iv, plaintext []byte) (out []byte) {
	last := block128(iv)
	for ; len(plaintext) > 0; plaintext = plaintext[16:] {
		x := last.xor(block128(plaintext[:16]))
		last = refEncryptBlock(key, x[:])
		out = append(out, last[:]...)
	}
	return out
}

// refMessage is everything that a ciphertext is made of.
type refMessage struct {
	key       []byte
	header    Header
	purpose   string
	context   []byte
	salt, iv  []byte
	plaintext []byte
}

func (m refMessage) headerBytes() []byte {
	b := []byte{'K', 'T', 1, byte(m.header.Suite)}
	b = append(b, m.header.KeyID[:]...)
	return append(b, byte(m.header.Version>>24), byte(m.header.Version>>16), byte(m.header.Version>>8), byte(m.header.Version))
}

func (m refMessage) aad() []byte { return append(m.headerBytes(), m.context...) }

func (m refMessage) okm() []byte {
	label := "keyturn/v1/aead"
	if m.header.Suite == SuiteCBC {
		label = "keyturn/v1/cbc"
	}
	info := []byte(label + "\x00" + m.purpose + "\x00")
	info = append(append(info, m.salt...), sum256(m.aad())...)
	return refExpand(refHMAC512, m.key, info, 64)
}

func (m refMessage) seal() []byte {
	okm := m.okm()
	blob := append(m.headerBytes(), m.salt...)
	switch m.header.Suite {
	case SuiteStandard:
		blob = append(append(blob, okm[32:64]...), m.iv...)
		return append(blob, refGCM(okm[:32], m.iv, m.aad(), m.plaintext)...)
	case SuiteCompact:
		blob = append(append(blob, okm[32:48]...), m.iv...)
		return append(blob, refGCM(okm[:32], m.iv, m.aad(), m.plaintext)...)
	case SuiteCBC:
		pad := 16 - len(m.plaintext)%16
		padded := append([]byte{}, m.plaintext...)
		for range pad {
			padded = append(padded, byte(pad))
		}
		ct := refCBC(okm[:32], m.iv, padded)
		input := append(m.aad(), m.salt...)
		input = append(append(input, m.iv...), ct...)
		input = binary.BigEndian.AppendUint64(input, uint64(len(m.aad()))*8)
		return append(append(append(blob, m.iv...), ct...), refHMAC256(okm[32:], input)...)
	}
	panic("no such suite")
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The reference itself against what the standards print.
func TestReference(t *testing.T) {
	x := func(s string) []byte { return unhex(t, s) }
	cbcKey := x("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
	gcmKey := x("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
	for _, c := range []struct {
		source string
		got    []byte
		want   string
	}{
		{"RFC 4231 section 4.2", refHMAC512(x("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"), []byte("Hi There")),
			"87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		{"RFC 4231 section 4.3", refHMAC512([]byte("Jefe"), []byte("what do ya want for nothing?")),
			"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
		{"RFC 4231 section 4.3, SHA-256", refHMAC256([]byte("Jefe"), []byte("what do ya want for nothing?")),
			"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"RFC 5869 appendix A.1", refExpand(refHMAC256, x("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"), x("f0f1f2f3f4f5f6f7f8f9"), 42),
			"3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
		{"SP 800-38A F.2.5", refCBC(cbcKey, x("000102030405060708090a0b0c0d0e0f"),
			x("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")),
			"f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"},
		{"GCM specification, test case 16", refGCM(gcmKey, x("cafebabefacedbaddecaf888"), x("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
			x("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")),
			"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
				"76fc6ece0f4e1768cddf8853bb2d551b"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.source, got, c.want)
		}
	}
	a := block128{3, 1, 4, 1, 5, 9, 2, 6}
	if a.mul(a.inverse()) != (block128{0x80}) {
		t.Error("an element times its inverse isn't one")
	}
}
