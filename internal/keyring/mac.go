package keyring

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// labelMAC separates the keys of MACs from everything else that is derived from a KEK.
const labelMAC = "keyturn/v1/mac/"

// MAC is the authentication code of a message, as text: the KEK's id, a colon and HMAC-SHA-256 in base64url, under a key
// that HKDF-Expand-SHA-512 derives from the active KEK of the purpose, for the label and this store alone. The label is
// 1 to 113 bytes without a zero byte. Errors: unavailable while no such KEK is open.
func (r *Ring) MAC(_ context.Context, purpose keys.KEKPurpose, label string, message []byte) (string, error) {
	kek, err := r.activeKEK(purpose)
	if err != nil {
		return "", err
	}
	return r.mac(kek, label, message)
}

// CheckMAC is nil when MAC made mac for the same purpose, label and message, under whichever generation of the KEK.
// Errors: integrity when it didn't; those of the store while it looks for a KEK that another node made.
func (r *Ring) CheckMAC(ctx context.Context, purpose keys.KEKPurpose, label string, message []byte, mac string) error {
	id, _, ok := strings.Cut(mac, ":")
	if !ok {
		return errMAC
	}
	kek, err := r.kek(ctx, keys.KEKID(id))
	if err != nil {
		return err
	}
	if kek.purpose != purpose {
		return errMAC
	}
	want, err := r.mac(kek, label, message)
	if err == nil && !hmac.Equal([]byte(want), []byte(mac)) {
		err = errMAC
	}
	return err
}

var errMAC = fault.New(api.CodeIntegrity, "checking an authentication code: it isn't one of this store's")

func (r *Ring) mac(kek *openKEK, label string, message []byte) (string, error) {
	c, err := Binding{Tenant: r.tenant, Kind: "mac", ID: label}.Context()
	if err != nil {
		return "", err
	}
	key, err := kek.key.AppendDerived(nil, labelMAC+label, c, sha256.Size)
	if err != nil {
		return "", fault.Wrap("", err, "making an authentication code")
	}
	defer clear(key)
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return string(kek.id) + ":" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)), nil
}
