package vaulttransit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// maxWrapping is more than any wrapped key takes, in bytes.
const maxWrapping = 4 << 10

var wrappingForm = regexp.MustCompile(`^vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+={0,2})$`)

// wrapping reads Vault's text of a ciphertext and gives the version of the key in it. It is strict where Vault isn't (v0 counts
// as v1 there, and loose bits at the end of base64 are skipped), so that a wrapping has one form and none can be changed.
func wrapping(blob []byte) (version uint64, ok bool) {
	if len(blob) > maxWrapping {
		return 0, false
	}
	parts := wrappingForm.FindSubmatch(blob)
	if parts == nil {
		return 0, false
	}
	version, err := strconv.ParseUint(string(parts[1]), 10, 32)
	if err != nil {
		return 0, false
	}
	_, err = base64.StdEncoding.Strict().DecodeString(string(parts[2]))
	return version, err == nil
}

// keyTypes are those that authenticate what they encrypt, with 256 bits.
var keyTypes = []string{"aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"}

// description is what Vault tells of a key, as far as it matters.
type description struct {
	Name                 string `json:"name"`
	Type                 string `json:"type"`
	Derived              bool   `json:"derived"`
	Convergent           bool   `json:"convergent_encryption"`
	SoftDeleted          bool   `json:"soft_deleted"`
	MinDecryptionVersion uint64 `json:"min_decryption_version"`
}

func (k *key) describe(ctx context.Context) (description, error) {
	answer, err := k.client.Read(ctx, k.mount+"/keys/"+k.name)
	if fault.CodeOf(err) == api.CodeNotFound {
		return description{}, fault.New(api.CodeNotFound, "looking at master key "+k.url+": Vault has no such key").
			WithNext("make it: vault write -f " + k.mount + "/keys/" + k.name + " type=aes256-gcm96")
	}
	if err != nil {
		return description{}, fault.Wrap("", err, "looking at master key "+k.url)
	}
	var a struct{ Data description }
	if json.Unmarshal(answer, &a) != nil || a.Data.Type == "" || a.Data.Name != k.name {
		return description{}, k.odd("looking at the key")
	}
	return a.Data, nil
}

func (d description) usable() error {
	why := ""
	switch {
	case !slices.Contains(keyTypes, d.Type):
		why = "its type doesn't authenticate with 256 bits"
	case d.Derived || d.Convergent:
		why = "it is derived or convergent, which gives equal wrappings for equal keys"
	case d.SoftDeleted:
		why = "it is deleted"
	default:
		return nil
	}
	return fault.New(api.CodeWrongState, "opening the master key in Vault: "+why).
		WithNext("make another key of type aes256-gcm96, without derived, and name that one")
}

// fingerprint is 16 public bytes in hexadecimal, of what stays the same for a key. It stands in stores: never to be changed.
func fingerprint(engine, name string) string {
	sum := sha256.Sum256([]byte("keyturn/vaulttransit\x00" + engine + "\x00" + name)) // neither can hold a zero byte
	return hex.EncodeToString(sum[:16])
}

// prove refuses a server that ignores bindings: a random value that is wrapped under one must not open under another.
func (k *key) prove(ctx context.Context) error {
	m := material.Random(32)
	defer m.Destroy()
	bound, other := keyring.Binding{Kind: "probe", Version: 1}, keyring.Binding{Kind: "probe", Version: 2}
	blob, err := k.Wrap(ctx, m, bound)
	if err != nil {
		return err
	}
	again, err := k.Unwrap(ctx, blob, bound)
	if err != nil {
		return err
	}
	again.Destroy() // Uncommit has compared it
	_, err = keyring.Uncommit(blob, bound, func(wrapped []byte) (*material.Bytes, error) { return k.decrypt(ctx, wrapped, other) })
	switch fault.CodeOf(err) {
	case api.CodeInvalid:
		return nil
	case "":
		return fault.New(api.CodeWrongState, "opening the master key in Vault: the server ignores associated_data, so wrappings could be exchanged for one another").
			WithNext("use HashiCorp Vault 1.13 or later, or OpenBao; or a vaultkv:// key, which is wrapped here")
	}
	return err
}
