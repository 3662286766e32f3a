package keyring

import (
	"context"
	"crypto/hmac"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// A sample is a text of ours, sealed by every version when it is made and kept beside it. Opening it again shows that the
// version still is the key that it was and that this build reads what earlier ones wrote, without anybody's data.

// sampleText is what is sealed. It is no secret.
var sampleText = []byte("keyturn self-check")

// sampleContext keeps samples apart from everything that applications seal: the word is reserved.
func sampleContext() (envelope.Context, error) {
	return envelope.NewContext(map[string]string{"keyturn": "self-check"})
}

// Sample seals the sample of version n of k, whose material may not be stored yet: what seals it isn't kept.
func (r *Ring) Sample(ctx context.Context, k *keys.Key, n uint32) ([]byte, error) {
	v, err := versionOf(k, n)
	if err != nil {
		return nil, err
	}
	key, err := r.loadVersion(ctx, k, *v)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	c, err := sampleContext()
	if err != nil {
		return nil, err
	}
	return key.Seal(nil, sampleText, c)
}

// CheckSample opens the sample of a version, with its material unwrapped anew. A version without one, because it is older
// than samples are, is only unwrapped. Errors: integrity when something doesn't open.
func (r *Ring) CheckSample(ctx context.Context, k *keys.Key, v keys.Version) error {
	key, err := r.loadVersion(ctx, k, v)
	if err != nil {
		return err
	}
	defer key.Destroy()
	if v.Sample == nil {
		return nil
	}
	c, err := sampleContext()
	if err != nil {
		return err
	}
	plain, err := key.Open(nil, v.Sample, c)
	if err == nil && !hmac.Equal(plain, sampleText) {
		err = fault.New(api.CodeIntegrity, "it holds something else")
	}
	if err != nil {
		return fault.Wrapf("", err, "opening the sample of version %d of key %s", v.Number, k.Name)
	}
	return nil
}
