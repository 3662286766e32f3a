package env_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/env"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
)

const key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" // 32 bytes

func TestEnv(t *testing.T) {
	t.Setenv("KEYTURN_TEST_ONE", key+"\n")
	t.Setenv("KEYTURN_TEST_TWO", base64.RawURLEncoding.EncodeToString([]byte("another key of 32 bytes for tests")[:32]))
	open := func(url string) func(*testing.T) keyring.MasterKey {
		return func(t *testing.T) keyring.MasterKey {
			k, err := env.Driver{}.Open(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			if k.URL() != url || k.Provider() != "env" || k.Kind() != keyring.Holds {
				t.Errorf("%s opens as %s, %s, %s", url, k.URL(), k.Provider(), k.Kind())
			}
			return k
		}
	}
	keyringtest.Exercise(t, keyringtest.Harness{Open: open("env://KEYTURN_TEST_ONE"), Other: open("env://KEYTURN_TEST_TWO")})
}

func TestEnvRefuses(t *testing.T) {
	vars := map[string]string{"KEY": key, "EMPTY": "", "SHORT": key[:20], "CANARY": "canary-in-a-variable-that-is-no-key"}
	d := env.Driver{Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
	for url, want := range map[string]api.Code{
		"env://KEY": "", "env://NONE": api.CodeNotFound, "env://EMPTY": api.CodeNotFound, "env://SHORT": api.CodeInvalid, "env://CANARY": api.CodeInvalid,
		"env://": api.CodeInvalid, "env:KEY": api.CodeInvalid, "env:///KEY": api.CodeInvalid, "env://KEY/x": api.CodeInvalid, "env://KEY?x=y": api.CodeInvalid,
		"env://KEY?": api.CodeInvalid, "env://KEY#x": api.CodeInvalid, "env://a:b@KEY": api.CodeInvalid, "env://1KEY": api.CodeInvalid, "env://K-Y": api.CodeInvalid,
		"env://K%45Y": api.CodeInvalid, "env://KEY:80": api.CodeInvalid, "file:///KEY": api.CodeInvalid, "": api.CodeInvalid, "env://\x00": api.CodeInvalid,
	} {
		_, err := d.Open(t.Context(), url)
		if fault.CodeOf(err) != want {
			t.Errorf("%q: %v, want code %q", url, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "canary") || fault.NextOf(err) == "") {
			t.Errorf("%q: %v, next %q", url, err, fault.NextOf(err))
		}
		if isURL := fault.FieldOf(err) == keyring.FieldURL; isURL != (want == api.CodeInvalid && url != "env://SHORT" && url != "env://CANARY") {
			t.Errorf("%q: field %q", url, fault.FieldOf(err))
		}
	}
}
