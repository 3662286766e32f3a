package keyturn

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/keyturn/keyturn/api"
)

// Policies lists the rotation policies that hold on the node that answers. Needs policy.read.
func (c *Client) Policies(ctx context.Context) (api.PolicyList, error) {
	return read[api.PolicyList](ctx, c, route("policies"))
}

// SetPolicy makes a policy, or changes what in names of one that was set before. Needs policy.write. Codes: invalid,
// conflict when another policy is about the same keys.
func (c *Client) SetPolicy(ctx context.Context, name string, in api.SetPolicyRequest) (api.Policy, error) {
	return post[api.Policy](ctx, c, route("policies", name), in)
}

// RemovePolicy takes away a policy that was set. Needs policy.write. Codes: not_found.
func (c *Client) RemovePolicy(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, route("policies", name), nil, nil, false)
}

// EffectivePolicy is what the policies say for a key, and which of them says it. Needs key.read.
func (c *Client) EffectivePolicy(ctx context.Context, key string) (api.EffectivePolicy, error) {
	return read[api.EffectivePolicy](ctx, c, route("keys", key, "policy"))
}

// RotationStatus says how the keys stand: overdue ones first. Needs key.read.
func (c *Client) RotationStatus(ctx context.Context) (api.RotationStatus, error) {
	return read[api.RotationStatus](ctx, c, route("rotation"))
}

// RunRotation has rotated what is due now; the answer names the job. Needs key.rotate.
func (c *Client) RunRotation(ctx context.Context, in api.RotationRunRequest) (api.RotationRun, error) {
	return post[api.RotationRun](ctx, c, route("rotation", "run"), in)
}

// RotationHistory is a page of rotations, newest first: of one key, or of all when key is empty. after is the Next of the
// page before, limit 0 the server's default. Needs key.read.
func (c *Client) RotationHistory(ctx context.Context, key, after string, limit int) (api.RotationHistory, error) {
	q := url.Values{}
	set(q, "after", after)
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	path := route("rotation", "history")
	if key != "" {
		path = route("keys", key, "rotations")
	}
	return read[api.RotationHistory](ctx, c, path+query(q))
}
