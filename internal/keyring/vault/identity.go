package vault

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	ktapi "github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// maxSecretFile is far more than a token or a secret id takes, in bytes.
const maxSecretFile = 8 << 10

// identity keeps the client's token: where it comes from, and when it must be renewed. The token itself lies in the library's
// client, which is safe for concurrent use.
type identity struct {
	client *Client
	s      *settings

	turn  chan struct{} // holds one value while somebody signs in, which takes calls; guards grant
	grant grant         // of the last AppRole login
}

// grant is how long a token lives, as Vault says.
type grant struct {
	ttl       time.Duration
	renewable bool
}

func (s *settings) identity(c *Client) *identity {
	return &identity{client: c, s: s, turn: make(chan struct{}, 1)}
}

// signIn gets a token in place of stale, which was refused, and says whether there is a fresh one: of several callers who
// were refused together, the first signs in.
func (i *identity) signIn(ctx context.Context, stale string) (fresh bool, err error) {
	if err := i.lock(ctx); err != nil {
		return false, err
	}
	defer i.unlock()
	if now := i.client.api.Token(); now != stale {
		return true, nil
	}
	token := i.s.token
	switch {
	case i.s.tokenFile != "":
		token, err = readSecret(i.s.tokenFile, i.s.names["VAULT_TOKEN_FILE"])
	case i.s.roleID != "":
		if stale != "" && i.lives(ctx, stale) {
			return false, nil // it is the policy that refuses, and would refuse the next token too
		}
		token, err = i.login(ctx)
	}
	if err != nil {
		return false, err
	}
	i.client.api.SetToken(token)
	return !hmac.Equal([]byte(token), []byte(stale)), nil
}

// lock waits for its turn, no longer than ctx.
func (i *identity) lock(ctx context.Context) error {
	select {
	case i.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.Wrap("", ctx.Err(), "signing in to Vault")
	}
}

func (i *identity) unlock() { <-i.turn }

// next is what helps somebody whose token is refused.
func (i *identity) next() string {
	const policy = "; the policy it needs is in docs/providers"
	switch {
	case i.s.tokenFile != "":
		return "put a token that lives into the file that " + i.s.names["VAULT_TOKEN_FILE"] + " names: it is read again at once" + policy
	case i.s.roleID != "":
		return "give the AppRole's policy the path that is asked for" + policy
	}
	return "start keyturn with a token that lives in " + i.s.names["VAULT_TOKEN"] + ": vault token lookup shows whether it does" + policy
}

// login signs in by AppRole. The secret id is read from its file each time, so that it can be exchanged.
func (i *identity) login(ctx context.Context) (string, error) {
	secret, err := readSecret(i.s.secretIDFile, i.s.names["VAULT_SECRET_ID_FILE"])
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]string{"role_id": i.s.roleID, "secret_id": secret})
	if err != nil {
		return "", fault.Wrap(ktapi.CodeInternal, err, "signing in to Vault")
	}
	answer, err := i.client.once(ctx, http.MethodPost, "auth/approle/login", "", body)
	switch code := fault.CodeOf(err); {
	case code == ktapi.CodeInvalid || code == ktapi.CodeDenied || code == ktapi.CodeNotFound:
		return "", fault.New(ktapi.CodeDenied, "signing in to Vault: it refuses the AppRole's role id or secret id").
			WithNext("put a secret id that is valid into the file that " + i.s.names["VAULT_SECRET_ID_FILE"] + " names, and check VAULT_ROLE_ID")
	case err != nil: // Vault 1.13 answers a wrong secret id with status 500
		return "", fault.Wrap("", err, "signing in to Vault by AppRole").WithNext("check that Vault runs, then VAULT_ROLE_ID and the secret id in the file that " + i.s.names["VAULT_SECRET_ID_FILE"] + " names")
	}
	token, g, err := parseAuth(answer)
	if err == nil && token == "" {
		err = errNoAnswer
	}
	if err != nil {
		return "", fault.Wrap("", err, "signing in to Vault")
	}
	i.grant = g
	return token, nil
}

// signOut gives back a token that only this client knows. That it fails leaves a token that expires by itself.
func (i *identity) signOut() {
	if i.s.roleID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _ = i.client.once(ctx, http.MethodPost, "auth/token/revoke-self", i.client.api.Token(), nil)
}

// lives says whether Vault still knows a token.
func (i *identity) lives(ctx context.Context, token string) bool {
	_, err := i.client.once(ctx, http.MethodGet, "auth/token/lookup-self", token, nil)
	return err == nil
}

// readSecret reads a token or secret id from a file that others on this machine can't read or change: the group may, since
// agents write such files for another user (mode 0640 by default).
func readSecret(path, variable string) (string, error) {
	fail := func(code ktapi.Code, why string) error {
		return fault.New(code, "signing in to Vault: the file that "+variable+" names "+why).
			WithNext("write the token or secret id there, and nothing else, with mode 0640 or less, readable by the user that runs keyturn")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fail(ktapi.CodeUnavailable, "can't be read")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSecretFile {
		return "", fail(ktapi.CodeInvalid, "is no file with a token")
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fail(ktapi.CodeWrongState, "can be read or changed by everybody")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return "", fail(ktapi.CodeUnavailable, "can't be read")
	}
	secret := strings.TrimSpace(string(text))
	clear(text)
	if secret == "" {
		return "", fail(ktapi.CodeUnavailable, "is empty")
	}
	if !printable(secret) {
		return "", fail(ktapi.CodeInvalid, "is no file with a token")
	}
	return secret, nil
}
