package foreign

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"

	"github.com/keyturn/keyturn/internal/material"
)

// A token is 80 | seconds since 1970 u64 | IV 16 | AES-128-CBC | HMAC-SHA-256 over all before it, in base64url with
// padding (https://github.com/fernet/spec). Its key is 16 bytes for the HMAC, then 16 for AES.
const (
	fernetVersion  = 0x80
	fernetHead     = 1 + 8 + blockSize
	fernetShortest = fernetHead + blockSize + sha256.Size
	// fernetSkew is how far the clock that made a token may be ahead of ours; the specification's own number.
	fernetSkew = 60 * time.Second
)

// fernetText is how every token begins until 2106: its version and four bytes of zero.
var fernetText = []byte("gAAAA")

// parseFernet reads a token as strictly as the specification, except that a missing padding is forgiven: some libraries
// cut it off, and it verifies nothing.
func parseFernet(o *Opener, value []byte, text bool) (message, Verdict) {
	raw, ok := value, false
	if !text && o.src.Encoding != encodingBase64 && len(value) > 0 && value[0] == fernetVersion {
		ok = true
	} else if o.src.Encoding == encodingHex {
		raw, ok = decodeHex(bytes.TrimSpace(value))
	} else if o.src.Encoding != encodingRaw {
		raw, ok = decodeBase64Line(bytes.TrimSpace(value), true)
	}
	if !ok || len(raw) < fernetShortest || raw[0] != fernetVersion || (len(raw)-fernetShortest)%blockSize != 0 {
		begins := ok && len(raw) > 5 && raw[0] == fernetVersion && binary.BigEndian.Uint32(raw[1:]) == 0
		return missed(begins || bytes.Contains(value, fernetText))
	}
	end := len(raw) - sha256.Size
	return message{iv: raw[9:fernetHead], body: raw[fernetHead:end], mac: raw[end:], all: raw[:end], verified: true}, Opened
}

// fernetKey is one candidate.
type fernetKey struct{ cbcKey }

func loadFernet(_ *Opener, m *material.Bytes) (candidate, error) {
	key := m.Expose()
	c, err := newCBCKey(key[16:], key[:16])
	return &fernetKey{c}, err
}

// open verifies, then looks at the time, then decrypts. How old a token is doesn't matter: what is kept in a column is
// older than any time to live.
func (k *fernetKey) open(dst []byte, m *message, now time.Time) ([]byte, Verdict) {
	if !k.verifies(m) {
		return dst, NoKey
	}
	made := binary.BigEndian.Uint64(m.all[1:])
	if latest := now.Add(fernetSkew).Unix(); latest < 0 || made > uint64(latest) {
		return dst, Future
	}
	return k.decrypt(dst, m)
}

// keyedMAC is the state of HMAC-SHA-256 over no input yet, only ever cloned: it is kept instead of the key.
func keyedMAC(key []byte) (hash.Cloner, error) {
	mac := hmac.New(sha256.New, key)
	mac.Reset()
	keyed, ok := mac.(hash.Cloner)
	if !ok {
		return nil, errNoClone
	}
	return keyed, nil
}

const blockSize = aes.BlockSize
