package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/internal/vaulttest"
)

// TestVaultScripts are about stores whose master keys lie in a Vault of each script's own: $TRANSIT and $KV are their URLs, and
// the file "token" holds the token, of the policies that docs/providers shows and nothing more.
func TestVaultScripts(t *testing.T) {
	scripts(t, "testdata/vault", func(env *testscript.Env) error {
		v := vaulttest.Own(t, vaulttest.Options{TLS: true})
		env.Values[vaultServer{}] = v
		transit, kv := v.Mount(t, "transit", nil), v.Mount(t, "kv-v2", nil)
		v.Do(t, "POST", transit+"/keys/keyturn", nil)
		v.Do(t, "POST", kv+"/data/keyturn/master", map[string]any{"data": map[string]string{"value": "8uzmGq5FGu4vyvfxmxJFYVNMYFiSvvZ8xh4AmQ3YQ5k="}})
		token := v.Token(t, vaulttest.Policy(t, "vaulttransit.md", 0, `"transit/`, `"`+transit+"/")+vaulttest.Policy(t, "vaultkv.md", 0, "secret/", kv+"/"), "1h")
		file := filepath.Join(env.WorkDir, "token")
		for name, value := range map[string]string{
			"VAULT_ADDR": v.URL, "VAULT_CACERT": v.CA, "VAULT_TOKEN_FILE": file, "TOKEN_OF_VAULT": token,
			"TRANSIT": "vaulttransit:///" + transit + "/keyturn", "KV": "vaultkv:///" + kv + "/keyturn/master?field=value", "TRANSIT_KEY": transit + "/keys/keyturn",
		} {
			env.Setenv(name, value)
		}
		return os.WriteFile(file, []byte(token), 0o600)
	})
}

// vaultServer is the key of a script's own Vault among its values.
type vaultServer struct{}

// vaultCommand does something to the script's Vault, as its administrator: seal, unseal, or a call with a JSON object.
func vaultCommand(ts *testscript.TestScript, neg bool, args []string) {
	v, ok := ts.Value(vaultServer{}).(*vaulttest.Server)
	if !ok || neg || len(args) == 0 {
		ts.Fatalf("usage: vault seal|unseal|METHOD PATH [NAME=VALUE…], in a script with a Vault")
	}
	var err error
	switch args[0] {
	case "seal":
		_, err = v.Call(context.Background(), "PUT", "sys/seal", nil)
	case "unseal":
		err = v.Unsealed(context.Background())
	default:
		fields := map[string]string{}
		for _, pair := range args[2:] {
			name, value, _ := strings.Cut(pair, "=")
			fields[name] = value
		}
		_, err = v.Call(context.Background(), args[0], args[1], fields)
	}
	ts.Check(err)
}
