package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	ktapi "github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// minRenewal keeps a token of a tiny life from being renewed without pause.
const minRenewal = time.Second

var errNoAnswer = fault.New(ktapi.CodeUnavailable, "reading Vault's answer: it isn't one of Vault's")

// keepAlive renews the token after two thirds of its life, until ctx ends, Vault grants no more (it has a longest life, or
// can't be renewed), or it has expired. It doesn't touch what somebody else renews: a token file's. An AppRole signs in anew
// when its token is refused; renewing only makes that rare.
func (i *identity) keepAlive(ctx context.Context) {
	if i.s.tokenFile != "" {
		return
	}
	g := i.granted(ctx)
	for g.renewable && g.ttl > 0 {
		expires := time.Now().Add(g.ttl)
		for wait := g.ttl * 2 / 3; ; wait = time.Until(expires) / 3 {
			if !sleep(ctx, max(wait, minRenewal)) {
				return
			}
			renewed, err := i.renew(ctx)
			if err == nil {
				g = renewed
				break
			}
			if time.Until(expires) < minRenewal {
				return // expired, whatever is tried; calls say so
			}
		}
	}
}

// granted is what remains of the token's life: as the login said, else as Vault says now. A token that may not look itself up
// isn't renewed.
func (i *identity) granted(ctx context.Context) grant {
	if i.lock(ctx) != nil {
		return grant{}
	}
	g := i.grant
	i.unlock()
	if g.ttl > 0 {
		return g
	}
	answer, err := i.client.once(ctx, http.MethodGet, "auth/token/lookup-self", i.client.api.Token(), nil)
	if err != nil {
		return grant{}
	}
	defer clear(answer)
	var a struct {
		Data struct {
			TTL       int64
			Renewable bool
		}
	}
	if json.Unmarshal(answer, &a) != nil {
		return grant{}
	}
	return grant{seconds(a.Data.TTL), a.Data.Renewable}
}

// renew asks for more life for the token in use.
func (i *identity) renew(ctx context.Context) (grant, error) {
	answer, err := i.client.once(ctx, http.MethodPost, "auth/token/renew-self", i.client.api.Token(), nil)
	if err != nil {
		return grant{}, err
	}
	_, g, err := parseAuth(answer)
	return g, err
}

// parseAuth reads the answer to a login or a renewal, and wipes it.
func parseAuth(answer []byte) (string, grant, error) {
	defer clear(answer)
	var a struct {
		Auth *struct {
			ClientToken   string `json:"client_token"`
			LeaseDuration int64  `json:"lease_duration"`
			Renewable     bool   `json:"renewable"`
		} `json:"auth"`
	}
	if json.Unmarshal(answer, &a) != nil || a.Auth == nil {
		return "", grant{}, errNoAnswer
	}
	return a.Auth.ClientToken, grant{seconds(a.Auth.LeaseDuration), a.Auth.Renewable}, nil
}

// seconds reads a duration of Vault's; what can't be one counts as none, never as for ever.
func seconds(n int64) time.Duration {
	if n <= 0 || n > int64((100*365*24*time.Hour)/time.Second) {
		return 0
	}
	return time.Duration(n) * time.Second
}

// sleep waits, and says whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
