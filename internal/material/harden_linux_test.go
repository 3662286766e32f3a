package material_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/material"
)

// Harden changes the whole process for good, so it runs in a child: this test binary, started again with the variable
// below set, which answers on stdout.
const childVariable = "KEYTURN_TEST_HARDENED_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	before, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	err := material.Harden()
	after, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var core unix.Rlimit
	limitErr := unix.Getrlimit(unix.RLIMIT_CORE, &core)
	fmt.Printf("dumpable %d -> %d, core %d/%d, errors %v %v\n", before, after, core.Cur, core.Max, err, limitErr)
}

// FAULTS row 16: nobody of the same user gets at the memory.
func TestHardenForbidsDumps(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("running the child: %v: %s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "dumpable 1 -> 0, core 0/0, errors <nil> <nil>" {
		t.Errorf("the hardened child says: %s", got)
	}
}
