package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// canary stands for whatever is secret; no output may hold it in any of its spellings.
const canary = "CANARY-7f3a9c51-s3cret"

// leaks names the spelling of the canary that a text holds, empty for none.
func leaks(text string) string {
	for name, spelling := range map[string]string{
		"plain":     canary,
		"part":      "7f3a9c51",
		"base64":    base64.StdEncoding.EncodeToString([]byte(canary))[:20],
		"base64url": base64.URLEncoding.EncodeToString([]byte(canary))[:20],
		"hex":       hex.EncodeToString([]byte(canary))[:20],
		"reversed":  "15c9a3f7",
	} {
		if strings.Contains(text, spelling) {
			return name
		}
	}
	return ""
}

// TestAdvisory_GHSA_444v_8vxr_p36h: a command that fails after it was handed a secret prints nothing of it (promise P3),
// and no failing command prints a stack or ends without a word.
func TestAdvisory_GHSA_444v_8vxr_p36h(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KEYTURN_DIR", filepath.Join(dir, "kt"))
	for _, name := range []string{"KEYTURN_SERVER", "KEYTURN_TOKEN", "KEYTURN_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(stdin string, args ...string) (out, errs string, status int) {
		var o, e bytes.Buffer
		status = newApp(strings.NewReader(stdin), &o, &e).run(context.Background(), args)
		return o.String(), e.String(), status
	}
	for _, args := range [][]string{{"init"}, {"key", "create", "phi"}} {
		if _, errs, status := try("", args...); status != 0 {
			t.Fatalf("keyturn %v: %s", args, errs)
		}
	}
	cases := []struct {
		env   map[string]string
		stdin string
		line  string
	}{
		{nil, canary, "encrypt absent"},
		{nil, canary, "encrypt phi --context " + canary},
		{nil, canary, "encrypt phi " + canary},
		{nil, canary, "encrypt phi --lines --suite " + canary},
		{nil, canary, "decrypt phi"},
		{nil, canary + "\n" + canary, "decrypt phi --lines"},
		{nil, canary, "rewrap phi --lines --json"},
		{nil, "kt1." + canary, "inspect"},
		{nil, canary, "key import legacy"},
		{nil, "", "key import legacy --in " + file},
		{nil, "", "key create " + canary},
		{nil, "", "key create x --period " + canary},
		{nil, "", "principal create x --role " + canary},
		{nil, "", "dataset add d --db postgres://app:" + canary + "@127.0.0.1:1/x --table t --column c=phi"},
		{nil, "postgres://app:" + canary + "@127.0.0.1:1/x", "dataset add d --db-file - --table t --column c=phi"},
		{nil, "", "dataset add d --db-file " + file + " --table t --column c=phi"},
		{map[string]string{"KEYTURN_DATASET_D": "postgres://app:" + canary + "@127.0.0.1:1/x"}, "", "dataset add d --db-env KEYTURN_DATASET_D --table t --column c=phi"},
		{map[string]string{"M": canary}, "", "master add env://M"},
		{nil, "", "master add file://" + file},
		{map[string]string{"KEYTURN_TOKEN": canary}, "", "--server http://127.0.0.1:1 key list"},
		{nil, "", "--server http://127.0.0.1:1 --token-file " + file + " key list"},
		{nil, "", "--server https://app:" + canary + "@127.0.0.1:1 key list"},
		{map[string]string{"KEYTURN_STORE": "postgres://app:" + canary + "@127.0.0.1:1/x"}, "", "key list"},
		{map[string]string{"KEYTURN_LISTEN": canary}, "", "key list"},
		{nil, "", "audit verify " + file + " --key " + file},
		{nil, "", "audit query --type " + canary},
	}
	for _, tc := range cases {
		t.Run(tc.line, func(t *testing.T) {
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			out, errs, status := try(tc.stdin, strings.Fields(tc.line)...)
			if status == api.ExitDone {
				t.Errorf("ended well: %s", out)
			}
			if found := leaks(out + errs); found != "" {
				t.Errorf("printed the secret (%s):\n%s%s", found, out, errs)
			}
			if strings.Contains(errs, "goroutine ") || strings.TrimSpace(errs) == "" {
				t.Errorf("stderr: %q", errs)
			}
		})
	}
	log, _, status := try("", "audit", "query", "--json", "--limit", "0")
	if found := leaks(log); status != 0 || found != "" {
		t.Errorf("the audit log holds the secret (%s), status %d", found, status)
	}
}

// TestTheScannerFindsACanary shows that the test above could fail.
func TestTheScannerFindsACanary(t *testing.T) {
	for _, text := range []string{canary, "x " + hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary))} {
		if leaks("before "+text+" after") == "" {
			t.Errorf("%q is not found", text)
		}
	}
}
