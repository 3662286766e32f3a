package keyturn

import (
	"context"
	"net/http"
	"net/url"

	"github.com/keyturn/keyturn/api"
)

// AddDataset registers a place in somebody's database. Table, columns and primary key are looked at; nothing there is
// changed. Needs dataset.write. Codes: invalid, naming what doesn't exist or is too narrow, conflict.
func (c *Client) AddDataset(ctx context.Context, in api.AddDatasetRequest) (api.Dataset, error) {
	return post[api.Dataset](ctx, c, route("datasets"), in)
}

// Datasets is every dataset. Needs dataset.read.
func (c *Client) Datasets(ctx context.Context) (api.DatasetList, error) {
	return read[api.DatasetList](ctx, c, route("datasets"))
}

// Dataset is one dataset by name. Codes: not_found.
func (c *Client) Dataset(ctx context.Context, dataset string) (api.Dataset, error) {
	return read[api.Dataset](ctx, c, route("datasets", dataset))
}

// RemoveDataset forgets a dataset; its rows stay as they are. Codes: in_use while a job works on it, while values are left in it
// that stand under a key version, and while that can't be counted.
func (c *Client) RemoveDataset(ctx context.Context, dataset string) error {
	return c.call(ctx, http.MethodDelete, route("datasets", dataset), nil, nil, false)
}

// RemoveDatasetAnyway forgets a dataset although values are left in it, or nobody knows: they no longer keep a key version from
// being destroyed. Needs key.force-destroy on its keys, and a reason; it is an alert.
func (c *Client) RemoveDatasetAnyway(ctx context.Context, dataset, reason string) error {
	return c.call(ctx, http.MethodDelete, route("datasets", dataset)+query(url.Values{"force": {"true"}, "reason": {reason}}), nil, nil, false)
}

// Census counts what a dataset's values stand under now. It reads the whole table, so it isn't bounded by the client's
// timeout but by ctx.
func (c *Client) Census(ctx context.Context, dataset string) (api.Census, error) {
	return read[api.Census](ctx, c.patient(), route("datasets", dataset, "census"))
}

// EncryptDataset starts the job that seals every plaintext value. Follow it with WatchJob. Needs dataset.run. Codes:
// conflict while another job works on the dataset; wrong_state without in.From for one that was added with Foreign, unless
// in.Plaintext says that nothing of the other system's is left.
//
// With in.From the values are ciphertexts of another system (Fernet, AES-256-CBC, pgcrypto), which the job opens under the
// candidate keys that are given and seals anew; that also needs key.encrypt and key.decrypt on the columns' keys. The caller
// clears the candidates afterwards. They are erased from the store when the job ends, so it can't be retried: start another.
func (c *Client) EncryptDataset(ctx context.Context, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return c.runDataset(ctx, dataset, "encrypt", in)
}

// ReencryptDataset starts the job that brings every value under its key's active version.
func (c *Client) ReencryptDataset(ctx context.Context, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return c.runDataset(ctx, dataset, "reencrypt", in)
}

// VerifyDataset starts the job that opens the dataset's values and counts those that don't open.
func (c *Client) VerifyDataset(ctx context.Context, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return c.runDataset(ctx, dataset, "verify", in)
}

// DecryptDataset starts the job that puts every value back into clear. Needs dataset.decrypt.
func (c *Client) DecryptDataset(ctx context.Context, dataset string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return c.runDataset(ctx, dataset, "decrypt", in)
}

func (c *Client) runDataset(ctx context.Context, dataset, verb string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return post[api.DatasetRun](ctx, c, route("datasets", dataset, verb), in)
}

// patient is the same client without a timeout.
func (c *Client) patient() *Client {
	p := *c
	p.timeout = 0
	return &p
}
