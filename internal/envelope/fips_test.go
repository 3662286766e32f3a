package envelope

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const fipsChild = "KEYTURN_TEST_FIPS_CHILD"

// The suites work where nothing but approved algorithms does: this runs the package's own tests once more, in a child
// with GODEBUG=fips140=only, except the oracles (which ask for what that mode refuses), the campaigns and itself.
func TestFIPSOnly(t *testing.T) {
	if os.Getenv(fipsChild) != "" {
		if !fips140.Enabled() || !fips140.Enforced() {
			t.Error("the child isn't in fips140=only")
		}
		return
	}
	child := exec.Command(os.Args[0], "-test.v", "-test.run=^Test", "-test.skip=Oracle|Campaign|Allocations")
	child.Env = append(os.Environ(), fipsChild+"=1", "GODEBUG=fips140=only")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("under fips140=only: %v\n%s", err, out)
	}
	passed := regexp.MustCompile(`(?m)^--- PASS: \w+`).FindAllString(string(out), -1)
	for _, must := range []string{"TestFIPSOnly", "TestSealOpen", "TestFrozenCiphertextsOpen", "TestEveryBitCounts", "TestDeriveAgreesWithReference"} {
		if !strings.Contains(strings.Join(passed, "\n")+"\n", "--- PASS: "+must+"\n") {
			t.Errorf("under fips140=only %s didn't run; %d tests did", must, len(passed))
		}
	}
}
