package keyturn

import (
	"context"
	"iter"
	"net/url"
	"strconv"

	"github.com/keyturn/keyturn/api"
)

// CreateKey makes a key with its first version, active at once. Needs key.create. Codes: invalid, conflict for a name
// that is taken.
func (c *Client) CreateKey(ctx context.Context, in api.CreateKeyRequest) (api.Key, error) {
	return post[api.Key](ctx, c, route("keys"), in)
}

// Keys is one page of the keys that the caller may know of, in name order: those after the name or cursor after (empty
// for the first page), at most limit (0 for the server's default).
func (c *Client) Keys(ctx context.Context, after string, limit int) (api.KeyList, error) {
	q := url.Values{}
	set(q, "after", after)
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return read[api.KeyList](ctx, c, route("keys")+query(q))
}

// AllKeys goes through every page of Keys. The first error ends it.
func (c *Client) AllKeys(ctx context.Context) iter.Seq2[api.Key, error] {
	return func(yield func(api.Key, error) bool) {
		for after := ""; ; {
			page, err := c.Keys(ctx, after, 0)
			if err != nil {
				yield(api.Key{}, err)
				return
			}
			for _, k := range page.Keys {
				if !yield(k, nil) {
					return
				}
			}
			if after = page.Next; after == "" {
				return
			}
		}
	}
}

// Key is one key by name, with its versions. Codes: not_found.
func (c *Client) Key(ctx context.Context, key string) (api.Key, error) {
	return read[api.Key](ctx, c, route("keys", key))
}

// RotateKey makes a new active version; the one before goes on opening what it sealed. Needs key.rotate. Codes:
// wrong_state, conflict when IfVersion isn't the active version any more.
func (c *Client) RotateKey(ctx context.Context, key string, in api.RotateKeyRequest) (api.Key, error) {
	return post[api.Key](ctx, c, route("keys", key, "rotate"), in)
}

// SuspendKey stops a version for a while. Needs key.state. Codes: wrong_state.
func (c *Client) SuspendKey(ctx context.Context, key string, in api.VersionStateRequest) (api.Key, error) {
	return c.moveKey(ctx, key, "suspend", in)
}

// ResumeKey ends a suspension. Needs key.state. Codes: wrong_state, conflict when another version became active.
func (c *Client) ResumeKey(ctx context.Context, key string, in api.VersionStateRequest) (api.Key, error) {
	return c.moveKey(ctx, key, "resume", in)
}

// DisableKey deactivates a version: it opens and never seals again. Needs key.state. Codes: wrong_state.
func (c *Client) DisableKey(ctx context.Context, key string, in api.VersionStateRequest) (api.Key, error) {
	return c.moveKey(ctx, key, "disable", in)
}

// CompromiseKey marks a version as known to others: it opens only for callers with key.decrypt-compromised. There is no
// way back. Needs key.compromise and a reason.
func (c *Client) CompromiseKey(ctx context.Context, key string, in api.VersionStateRequest) (api.Key, error) {
	return c.moveKey(ctx, key, "compromise", in)
}

// DestroyDue has executed what is due of the scheduled destructions. A server does it by itself; a store without one waits for
// this. Follow the Job with WatchJob. Needs key.destroy.
func (c *Client) DestroyDue(ctx context.Context, in api.DestroyDueRequest) (api.DestroyDue, error) {
	return post[api.DestroyDue](ctx, c, route("destructions", "run"), in)
}

// DestroyKey schedules the destruction of a version after WaitDays; it opens nothing from now on. Needs key.destroy.
// Codes: in_use, saying where and how many, while a registered dataset holds values under it or it was used within the
// quiet hour; wrong_state for the active version.
func (c *Client) DestroyKey(ctx context.Context, key string, in api.VersionStateRequest) (api.Key, error) {
	return c.moveKey(ctx, key, "destroy", in)
}

// UndestroyKey takes a version back out of scheduled destruction. Needs key.destroy. Codes: wrong_state.
func (c *Client) UndestroyKey(ctx context.Context, key string, in api.VersionStateRequest) (api.Key, error) {
	return c.moveKey(ctx, key, "undestroy", in)
}

func (c *Client) moveKey(ctx context.Context, key, verb string, in api.VersionStateRequest) (api.Key, error) {
	return post[api.Key](ctx, c, route("keys", key, verb), in)
}

// ImportKey makes a key, or a key's next version, of material from elsewhere. Needs key.import. The caller clears
// in.Material afterwards.
func (c *Client) ImportKey(ctx context.Context, key string, in api.ImportKeyRequest) (api.Key, error) {
	return post[api.Key](ctx, c, route("keys", key, "import"), in)
}

// ExportKey is the material of a version in clear. Needs key.export and a reason. The caller clears it when done.
func (c *Client) ExportKey(ctx context.Context, key string, in api.ExportKeyRequest) (api.ExportKeyResponse, error) {
	return post[api.ExportKeyResponse](ctx, c, route("keys", key, "export"), in)
}

// DataKey is a fresh random key, in clear and sealed; Decrypt opens the latter again. Needs key.datakey. Envelope uses
// it; a program seldom must.
func (c *Client) DataKey(ctx context.Context, key string, in api.DataKeyRequest) (api.DataKeyResponse, error) {
	return sealed[api.DataKeyResponse](ctx, c, route("keys", key, "datakey"), in, in.Context)
}

// DeriveKey is a key that label, version and context determine, the same every time. Needs key.derive.
func (c *Client) DeriveKey(ctx context.Context, key string, in api.DeriveRequest) (api.DeriveResponse, error) {
	return sealed[api.DeriveResponse](ctx, c, route("keys", key, "derive"), in, in.Context)
}
