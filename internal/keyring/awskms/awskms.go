// Package awskms is the master-key provider for a key in AWS KMS, which wraps and never shows it:
//
//	awskms:///alias/phi-master-key?region=us-east-1
//	awskms:///1234abcd-12ab-34cd-56ef-1234567890ab?region=us-east-1
//	awskms:///arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
//
// The key must be symmetric, for encryption and decryption, and enabled. Opening asks DescribeKey once and pins what it
// answers: from then on that key's ARN stands in every request and must stand in every answer, wherever the alias is
// pointed to. So a blob of another key, which KMS would open by itself if the caller may use that key too, is refused.
//
// Each field of the keyring.Binding is a pair of the EncryptionContext: KMS authenticates it, CloudTrail records it, and
// the key's policy can demand it (kms:EncryptionContext:tenant). Around KMS's ciphertext stands keyring.Commit.
//
// The fingerprint is derived from the key's ARN, so automatic rotation in AWS, which keeps the ARN, needs nothing done here.
// Replicas of a multi-Region key, which open each other's ciphertexts, have one fingerprint in all regions.
//
// Every operation ends within [Driver.Limit], after at most [remote.Tries] requests (and those for credentials). What
// KMS answered stays in memory of the SDK and of net/http for a while, where nobody wipes it.
package awskms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awsclient"
	"github.com/keyturn/keyturn/internal/keyring/remote"
)

const scheme = "awskms"

// Driver opens awskms:// URLs. The zero value is ready.
type Driver struct {
	// Limit is how long one operation takes at most, retries included; zero means [remote.Limit].
	Limit time.Duration
}

// What a key is called, by its users and in answers. The letters need no escaping in a URL.
const (
	idForm = `(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f-]{32,36})`
	arForm = `arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:`
)

var (
	nameForm  = regexp.MustCompile(`^(?:` + idForm + `|(?:` + arForm + `)?alias/[A-Za-z0-9/_-]+|` + arForm + `key/` + idForm + `)$`)
	keyARN    = regexp.MustCompile(`^` + arForm + `key/` + idForm + `$`)
	mrkRegion = regexp.MustCompile(`:kms:[a-z0-9-]+:([0-9]{12}:key/mrk-)`)
)

// Scheme is "awskms".
func (Driver) Scheme() string { return scheme }

// Open finds the key and asks for its state; nothing is wrapped. Errors: invalid for the URL (also without a region) or for
// a key of another sort, not_found, wrong_state for one that isn't enabled, denied, integrity for an answer about another
// key, unavailable.
func (d Driver) Open(ctx context.Context, raw string) (keyring.MasterKey, error) {
	place, err := awsclient.Parse(raw, scheme, nameForm)
	if err != nil {
		return nil, err
	}
	limit := d.Limit
	if limit <= 0 {
		limit = remote.Limit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cfg, err := awsclient.Config(ctx, place.Region, limit)
	if err != nil {
		return nil, fault.Wrap("", err, "opening an AWS KMS key")
	}
	place.Region = cfg.Region
	k := &key{url: place.URL(), limit: limit, client: kms.NewFromConfig(cfg), http: cfg.HTTPClient}
	if err := k.find(ctx, place.Name, cfg.Region); err != nil {
		_ = k.Close()
		return nil, err
	}
	return k, nil
}

// Canonical is the URL with its region.
func (Driver) Canonical(ctx context.Context, raw string) (string, error) {
	return awsclient.Canonical(ctx, raw, scheme, nameForm)
}

// find pins the key that goes by name.
func (k *key) find(ctx context.Context, name, region string) error {
	doing := "opening master key " + k.url
	out, err := k.client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &name})
	if err != nil {
		return awsclient.Fault(ctx, err, doing)
	}
	if out.KeyMetadata == nil || !keyARN.MatchString(aws.ToString(out.KeyMetadata.Arn)) || !answers(*out.KeyMetadata.Arn, name, region) {
		return fault.New(api.CodeIntegrity, doing+": the answer is about another key, or about none")
	}
	k.arn = *out.KeyMetadata.Arn
	return usable(out.KeyMetadata, doing)
}

// answers says whether a key of this ARN can be what was asked for. Where an alias leads to, only AWS knows.
func answers(arn, name, region string) bool {
	parts := strings.SplitN(arn, ":", 6) // arn:aws:kms:REGION:ACCOUNT:key/ID
	asked := strings.SplitN(name, ":", 6)
	switch {
	case parts[3] != region:
		return false
	case len(asked) == 6 && !strings.HasPrefix(asked[5], "alias/"):
		return arn == name
	case len(asked) == 6:
		return parts[1] == asked[1] && parts[4] == asked[4]
	case strings.HasPrefix(name, "alias/"):
		return true
	}
	return parts[5] == "key/"+name
}

// usable refuses a key that would not wrap now.
func usable(m *types.KeyMetadata, doing string) error {
	switch {
	case m.KeySpec != types.KeySpecSymmetricDefault || m.KeyUsage != types.KeyUsageTypeEncryptDecrypt:
		return fault.New(api.CodeInvalid, doing+": the key isn't one for symmetric encryption and decryption").
			WithNext("make one: aws kms create-key (its defaults are right)")
	case m.KeyState == types.KeyStateUnavailable || m.KeyState == types.KeyStateCreating || m.KeyState == types.KeyStateUpdating:
		return fault.New(api.CodeUnavailable, doing+": the key isn't available now").WithNext("try again; look at its key store in AWS")
	case m.KeyState != types.KeyStateEnabled:
		return fault.New(api.CodeWrongState, doing+": the key is disabled, or waits for its deletion or for its material").
			WithNext("aws kms enable-key, or cancel-key-deletion and then enable-key")
	}
	return nil
}

// fingerprint is 16 bytes of a hash of the ARN, in which a multi-Region key has no region.
func fingerprint(arn string) string {
	sum := sha256.Sum256([]byte("keyturn/v1/awskms\x00" + mrkRegion.ReplaceAllString(arn, ":kms::$1")))
	return hex.EncodeToString(sum[:16])
}
