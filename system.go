package keyturn

import (
	"context"

	"github.com/keyturn/keyturn/api"
)

// Status is one screen of the whole store. Needs system.read.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return read[api.Status](ctx, c, route("status"))
}

// Doctor checks the health of the store: it opens every KEK under every master key and the audit log from end to end,
// so it is bounded by ctx and not by the client's timeout. Needs system.read.
func (c *Client) Doctor(ctx context.Context) (api.Doctor, error) {
	return read[api.Doctor](ctx, c.patient(), route("doctor"))
}

// MasterKeys lists the configured master keys. Needs master.read.
func (c *Client) MasterKeys(ctx context.Context) (api.MasterKeyList, error) {
	return read[api.MasterKeyList](ctx, c, route("master-keys"))
}

// AddMasterKey wraps every KEK under one more master key. The URL is opened by the server: env:, file: and pkcs11: name its
// environment and files. Needs master.change, as the two that follow.
func (c *Client) AddMasterKey(ctx context.Context, url string) (api.MasterRotation, error) {
	return post[api.MasterRotation](ctx, c, route("master-keys"), api.MasterKeyRequest{URL: url})
}

// RemoveMasterKey takes away every wrapping under a master key, also of one that only other nodes have, which may be named by
// its fingerprint too; and under those of also, in one step: all that stay must be there. Codes: in_use for the last one that opens the store, and while other nodes run on the store; then
// see RemoveMasterKeyOfNodes.
func (c *Client) RemoveMasterKey(ctx context.Context, url string, also ...string) (api.MasterRotation, error) {
	return post[api.MasterRotation](ctx, c, route("master-keys", "remove"), api.MasterKeyRequest{URL: url, Also: also})
}

// RemoveMasterKeyOfNodes is RemoveMasterKey also while other nodes run on the store. Each of them must have another master
// key that opens it, or it doesn't start again, and stops serving after its keys.masterOutage.
func (c *Client) RemoveMasterKeyOfNodes(ctx context.Context, url string, also ...string) (api.MasterRotation, error) {
	return post[api.MasterRotation](ctx, c, route("master-keys", "remove"), api.MasterKeyRequest{URL: url, Also: also, OtherNodes: true})
}

// RotateMasterKeys wraps the KEKs anew, or makes a new generation of each.
func (c *Client) RotateMasterKeys(ctx context.Context, in api.RotateMasterRequest) (api.MasterRotation, error) {
	return post[api.MasterRotation](ctx, c, route("master-keys", "rotate"), in)
}

// VerifyMasterKeys opens every KEK under every master key and says which fail. Needs master.read.
func (c *Client) VerifyMasterKeys(ctx context.Context) (api.MasterKeyList, error) {
	return compute[api.MasterKeyList](ctx, c, route("master-keys", "verify"), nil)
}

// Escrow is the store's set of escrow shares. Codes: not_found when none were made. Needs master.read.
func (c *Client) Escrow(ctx context.Context) (api.Escrow, error) {
	return read[api.Escrow](ctx, c, route("master-keys", "escrow"))
}

// PrepareEscrow makes a new set of escrow shares: their texts are in the answer this once and nowhere else. The set doesn't
// count yet: write the shares to disk, read them back, wipe them, then CommitEscrow. One that isn't committed within 10
// minutes, or before another is prepared, is forgotten, and its shares never open anything. Needs master.escrow.
// Codes: conflict where there is a set and in.Replace is false.
func (c *Client) PrepareEscrow(ctx context.Context, in api.SplitEscrowRequest) (api.EscrowShares, error) {
	return post[api.EscrowShares](ctx, c, route("master-keys", "escrow", "prepare"), in)
}

// CommitEscrow makes a prepared set the one that counts: the shares of the set before open nothing any more. After an error
// that isn't the server's (an [Error]) it may count all the same: Escrow tells. Needs master.escrow, and the caller who prepared it.
// Codes: not_found where none of that name is prepared.
func (c *Client) CommitEscrow(ctx context.Context, set string) (api.EscrowSplit, error) {
	return post[api.EscrowSplit](ctx, c, route("master-keys", "escrow", "commit"), api.CommitEscrowRequest{Set: set})
}

// EscrowVerified records that enough shares of a set were seen to give its key. Codes: integrity when it isn't the store's
// set. Needs master.change.
func (c *Client) EscrowVerified(ctx context.Context, set string) (api.Escrow, error) {
	return post[api.Escrow](ctx, c, route("master-keys", "escrow", "verified"), api.EscrowVerifiedRequest{Set: set})
}

// CreatePrincipal makes a principal and its first token, shown in the answer this once. Needs principal.write; nobody
// grants what he lacks.
func (c *Client) CreatePrincipal(ctx context.Context, in api.CreatePrincipalRequest) (api.Principal, error) {
	return post[api.Principal](ctx, c, route("principals"), in)
}

// Principals is every principal. Needs principal.read.
func (c *Client) Principals(ctx context.Context) (api.PrincipalList, error) {
	return read[api.PrincipalList](ctx, c, route("principals"))
}

// Principal is one principal by name. Codes: not_found.
func (c *Client) Principal(ctx context.Context, name string) (api.Principal, error) {
	return read[api.Principal](ctx, c, route("principals", name))
}

// DisablePrincipal ends a principal's rights and every token of it, for good. Needs principal.write.
func (c *Client) DisablePrincipal(ctx context.Context, name string) (api.Principal, error) {
	return post[api.Principal](ctx, c, route("principals", name, "disable"), nil)
}

// NewToken makes another token for a principal, shown in the answer this once. Needs principal.write.
func (c *Client) NewToken(ctx context.Context, principal string) (api.Principal, error) {
	return post[api.Principal](ctx, c, route("principals", principal, "token"), nil)
}

// Roles is every role with its actions.
func (c *Client) Roles(ctx context.Context) (api.RoleList, error) {
	return read[api.RoleList](ctx, c, route("roles"))
}

// Role is one role by name. Codes: not_found.
func (c *Client) Role(ctx context.Context, role string) (api.Role, error) {
	return read[api.Role](ctx, c, route("roles", role))
}

// WhoAmI is the caller as the server sees it.
func (c *Client) WhoAmI(ctx context.Context) (api.WhoAmI, error) {
	return read[api.WhoAmI](ctx, c, route("whoami"))
}
