package keyturn

import (
	"context"
	"net/http"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Encrypt seals a plaintext under the key's active version, bound to the context. Needs key.encrypt. Codes: invalid,
// too_large over api.MaxPlaintext, wrong_state without an active version, limit.
func (c *Client) Encrypt(ctx context.Context, key string, in api.EncryptRequest) (api.EncryptResponse, error) {
	return sealed[api.EncryptResponse](ctx, c, route("keys", key, "encrypt"), notNil(in), in.Context)
}

// notNil makes the empty plaintext of a nil one: the wire tells the two apart, and refuses null.
func notNil(in api.EncryptRequest) api.EncryptRequest {
	if in.Plaintext == nil {
		in.Plaintext = []byte{}
	}
	return in
}

// Decrypt opens a ciphertext of any version that may still open. Needs key.decrypt. Codes: integrity for one that was
// changed or belongs to another key or context, wrong_state for a version that may not open.
func (c *Client) Decrypt(ctx context.Context, key string, in api.DecryptRequest) (api.DecryptResponse, error) {
	return sealed[api.DecryptResponse](ctx, c, route("keys", key, "decrypt"), in, in.Context)
}

// Rewrap moves a ciphertext to the active version; the plaintext never leaves keyturn. Needs key.rewrap. Codes as
// Decrypt.
func (c *Client) Rewrap(ctx context.Context, key string, in api.RewrapRequest) (api.RewrapResponse, error) {
	return sealed[api.RewrapResponse](ctx, c, route("keys", key, "rewrap"), in, in.Context)
}

// EncryptBatch is Encrypt of up to api.MaxBatchItems items in one call and one audit event. An item that fails says so
// in its place; the error is for the call as a whole.
func (c *Client) EncryptBatch(ctx context.Context, key string, items []api.EncryptRequest) ([]api.EncryptBatchItem, error) {
	contexts, whole := make([]map[string]string, len(items)), make([]api.EncryptRequest, len(items))
	for i := range items {
		contexts[i], whole[i] = items[i].Context, notNil(items[i])
	}
	out, err := sealed[api.EncryptBatchResponse](ctx, c, route("keys", key, "encrypt", "batch"), api.EncryptBatchRequest{Items: whole}, contexts...)
	return sameLength(out.Items, len(items), err)
}

// DecryptBatch is Decrypt of many: see EncryptBatch.
func (c *Client) DecryptBatch(ctx context.Context, key string, items []api.DecryptRequest) ([]api.DecryptBatchItem, error) {
	contexts := make([]map[string]string, len(items))
	for i := range items {
		contexts[i] = items[i].Context
	}
	out, err := sealed[api.DecryptBatchResponse](ctx, c, route("keys", key, "decrypt", "batch"), api.DecryptBatchRequest{Items: append([]api.DecryptRequest{}, items...)}, contexts...)
	return sameLength(out.Items, len(items), err)
}

// RewrapBatch is Rewrap of many: see EncryptBatch.
func (c *Client) RewrapBatch(ctx context.Context, key string, items []api.RewrapRequest) ([]api.RewrapBatchItem, error) {
	contexts := make([]map[string]string, len(items))
	for i := range items {
		contexts[i] = items[i].Context
	}
	out, err := sealed[api.RewrapBatchResponse](ctx, c, route("keys", key, "rewrap", "batch"), api.RewrapBatchRequest{Items: append([]api.RewrapRequest{}, items...)}, contexts...)
	return sameLength(out.Items, len(items), err)
}

// Inspect is what a ciphertext says of itself; nobody has authenticated it. Codes: integrity for what isn't one.
func (c *Client) Inspect(ctx context.Context, ciphertext string) (api.Inspection, error) {
	return compute[api.Inspection](ctx, c, route("inspect"), api.InspectRequest{Ciphertext: ciphertext})
}

// sealed is compute for requests that carry contexts. JSON would replace what isn't UTF-8 without a word, and bind the
// ciphertext to something else than the caller said.
func sealed[T any](ctx context.Context, c *Client, path string, in any, contexts ...map[string]string) (T, error) {
	for _, m := range contexts {
		for k, v := range m {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				var zero T
				return zero, errUTF8
			}
		}
	}
	return compute[T](ctx, c, path, in)
}

var errUTF8 = fault.New(api.CodeInvalid, "reading the context: names and values must be valid UTF-8").WithField("context")

// sameLength guards against pairing items with the wrong answers.
func sameLength[T any](items []T, n int, err error) ([]T, error) {
	if err == nil && len(items) != n {
		return nil, &Error{Code: api.CodeInternal, Message: "reading the answer to a batch: it holds another number of items", Status: http.StatusOK}
	}
	if err != nil {
		return nil, err
	}
	return items, nil
}
