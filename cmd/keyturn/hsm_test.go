//go:build pkcs11 && cgo && unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	hsmModule = "/usr/lib/softhsm/libsofthsm2.so"
	hsmPIN    = "4711-canary-pin"
)

// TestHSMScripts are about a store whose master key lies in an HSM: a SoftHSM with tokens of each script's own, in $WORK/tokens.
func TestHSMScripts(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_NO_SOFTHSM") == "1" {
		t.Skip("needs SoftHSM2, and KEYTURN_TEST_NO_SOFTHSM=1")
	}
	if _, err := os.Stat(hsmModule); err != nil {
		t.Fatalf("SoftHSM2 is missing (scripts/test-deps.sh installs it; KEYTURN_TEST_NO_SOFTHSM=1 skips what needs it): %v", err)
	}
	scripts(t, "testdata/hsm", softHSM)
}

// softHSM makes a token "keyturn", the file "pin" with its PIN, and $HSM, the URL of a key that isn't there yet.
func softHSM(env *testscript.Env) error {
	tokens, conf, pin := filepath.Join(env.WorkDir, "tokens"), filepath.Join(env.WorkDir, "softhsm2.conf"), filepath.Join(env.WorkDir, "pin")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{conf: "directories.tokendir = " + tokens + "\nlog.level = ERROR\n", pin: hsmPIN + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	env.Setenv("SOFTHSM2_CONF", conf)
	env.Setenv("HSM", "pkcs11:token=keyturn;object=master?module-path="+hsmModule+"&pin-source=file:"+pin)
	init := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "keyturn", "--pin", hsmPIN, "--so-pin", "so-pin-1")
	init.Env = env.Vars
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("softhsm2-util: %w: %s", err, out)
	}
	return nil
}
