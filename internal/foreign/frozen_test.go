package foreign_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/foreign"
)

// frozen are values that pgcrypto of PostgreSQL 15 and openssl 3 wrote, of the plaintext 078-05-1120 and the password pass.
var frozen = map[string]string{
	"pgp":            "ww0EBwMCqn3hrf7RI8kA0jwB9+eZ8a7c9AP4Ngc7gT8wav/K+AcVcCOPLzqxUvMVHlk3NQ1pKz8u\n5NsOkB4SZGswwEvfHgo6R38xG9I=",
	"pgp session":    "wx4EBwMCcDwY2WvLC0wArUMiZ+ZILYq+hLuLH6CavmfSRwFaYMBAWbVDWpbE7D6HWTXiYyEyoILi\n4eTN3zfqD9+qStgRr+6jEzbIhYTYAOoZ6DAOg3W2TpkA7VtUKeP9kbZ+qJkn6Q6Q",
	"pgp armor":      "-----BEGIN PGP MESSAGE-----\n\nww0EBwMCJofvlW/t1igA0jwBoHvdTxKjZBqiZQ4Cn0cvXB0J/MSAsJxjtOU2VI5AtRTu3sZihk5J\ncUO/eTXE5wizMjahHPZtphqGYOg=\n=cqeL\n-----END PGP MESSAGE-----",
	"pgp unverified": "ww0EBwMCRkmfK0BX27oAySWyqFrFEVi32Lw9s3QI+Y4o4Y/Xg7aYKjWZ3vS82q3+zogigRqC",
	"openssl":        "U2FsdGVkX1+Am6i73JDMZh6NHlVv5n/UWjpx+8tqfNg=",
}

func TestFrozenValuesOpen(t *testing.T) {
	messages := opener(t, unverified(foreign.Source{Format: "pgcrypto"}), "word", "pass")
	salted := opener(t, unverified(foreign.Source{Format: "aes-256-cbc", Layout: "openssl", Iterations: 1}), "word", "pass")
	for name, value := range frozen {
		if name == "openssl" {
			opens(t, salted, value, true, "078-05-1120\n", 1)
			continue
		}
		opens(t, messages, value, true, "078-05-1120", 1)
	}
}

const fipsChild = "KEYTURN_TEST_FIPS_CHILD"

// What people have opens where nothing but approved algorithms works, too: this runs tests once more, in a child with
// GODEBUG=fips140=only. Those that need a server of another make are left to the parent.
func TestFIPSOnly(t *testing.T) {
	if os.Getenv(fipsChild) != "" {
		if !fips140.Enabled() || !fips140.Enforced() {
			t.Error("the child isn't in fips140=only")
		}
		return
	}
	child := exec.Command(os.Args[0], "-test.v", "-test.run=^Test(FIPS|Fernet|CBC|Frozen|Ambiguous|Candidates|Encodings)")
	child.Env = append(os.Environ(), fipsChild+"=1", "GODEBUG=fips140=only")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("under fips140=only: %v\n%s", err, out)
	}
	passed := regexp.MustCompile(`(?m)^--- PASS: \w+`).FindAllString(string(out), -1)
	for _, must := range []string{"TestFIPSOnly", "TestFrozenValuesOpen", "TestFernetSpecification", "TestCBCWithMAC"} {
		if !strings.Contains(strings.Join(passed, "\n")+"\n", "--- PASS: "+must+"\n") {
			t.Errorf("under fips140=only %s didn't run; %d tests did", must, len(passed))
		}
	}
}
