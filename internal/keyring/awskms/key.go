package awskms

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awsclient"
	"github.com/keyturn/keyturn/internal/material"
)

// key is one key of KMS, pinned by its ARN. Nothing but closed changes after it was opened.
type key struct {
	url, arn string
	limit    time.Duration
	client   *kms.Client
	http     aws.HTTPClient
	closed   atomic.Bool
}

func (k *key) URL() string        { return k.url }
func (k *key) Provider() string   { return scheme }
func (k *key) Kind() keyring.Kind { return keyring.Wraps }
func (k *key) ID() string         { return fingerprint(k.arn) }

// Close lets go of the connections.
func (k *key) Close() error {
	k.closed.Store(true)
	if c, ok := k.http.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	return nil
}

// Wrap has KMS encrypt m, which is 4096 bytes at most.
func (k *key) Wrap(ctx context.Context, m *material.Bytes, b keyring.Binding) ([]byte, error) {
	ctx, cancel, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	out, err := k.client.Encrypt(ctx, &kms.EncryptInput{
		KeyId: &k.arn, Plaintext: m.Expose(), EncryptionContext: b.Map(), EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
	})
	if err != nil {
		return nil, awsclient.Fault(ctx, err, "wrapping under master key "+k.url)
	}
	if aws.ToString(out.KeyId) != k.arn || len(out.CiphertextBlob) == 0 {
		return nil, k.wrongAnswer("wrapping")
	}
	return keyring.Commit(out.CiphertextBlob, m, b)
}

// Unwrap has KMS decrypt, under this key and no other.
func (k *key) Unwrap(ctx context.Context, blob []byte, b keyring.Binding) (*material.Bytes, error) {
	ctx, cancel, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return keyring.Uncommit(blob, b, func(wrapped []byte) (*material.Bytes, error) {
		out, err := k.client.Decrypt(ctx, &kms.DecryptInput{
			KeyId: &k.arn, CiphertextBlob: wrapped, EncryptionContext: b.Map(), EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
		})
		if err != nil {
			return nil, undecryptable(ctx, err, "unwrapping under master key "+k.url)
		}
		m := material.New(out.Plaintext)
		if aws.ToString(out.KeyId) != k.arn {
			m.Destroy()
			return nil, k.wrongAnswer("unwrapping")
		}
		return m, nil
	})
}

// undecryptable turns into an integrity failure what KMS calls a malformed request (everything in it but the blob is
// ours), and its way of not saying whether the key exists whose name it reads in a blob. Who may not decrypt is told
// otherwise: "… is not authorized to perform: kms:Decrypt …".
func undecryptable(ctx context.Context, err error, doing string) error {
	f := awsclient.Fault(ctx, err, doing)
	foreign := false
	var answer smithy.APIError
	if errors.As(err, &answer) && answer.ErrorCode() == "AccessDeniedException" {
		text := answer.ErrorMessage() // "UnknownError" is what the SDK makes of an answer without one
		foreign = text == "" || text == "UnknownError" || strings.Contains(text, "ciphertext refers to a customer master key that does not exist")
	}
	if foreign || f.Code == api.CodeInvalid {
		return fault.Wrap(api.CodeIntegrity, f, "opening a wrapped key")
	}
	return f
}

func (k *key) wrongAnswer(doing string) error {
	return fault.New(api.CodeIntegrity, doing+" under master key "+k.url+": the answer is of another key, or of none")
}

// begin bounds an operation.
func (k *key) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if k.closed.Load() {
		return nil, nil, fault.New(api.CodeUnavailable, "using master key "+k.url+": it is closed")
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fault.Wrap("", err, "using master key "+k.url)
	}
	ctx, cancel := context.WithTimeout(ctx, k.limit)
	return ctx, cancel, nil
}
