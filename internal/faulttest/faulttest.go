// Package faulttest holds the campaigns that need a machine to misbehave, and what makes it misbehave:
//
//	powercut   a disk that keeps only what was synced: power cuts, torn sectors, a sync that fails
//	diskfull   a disk that is full when the test says so
//
// The failures that need no machine are beside what they test: a statement that fails is storetest.Sweep, a process that
// is killed at a named place is package failpoint, a server that crashes is pgtest's Kill.
//
// Each campaign prints one line with its seed, what it tried and what it found. KEYTURN_SOAK (a duration, for those that count time) makes them long, and
// KEYTURN_SEED repeats one.
package faulttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// nested marks the run inside the namespace.
const nested = "KEYTURN_FAULTTEST_NESTED"

// Main is the TestMain of tests that mount something. For root it just runs them. For other users it runs the test binary
// again in a user and mount namespace of its own, where it is root over nothing but its mounts; that needs a kernel that
// lets users make namespaces. It doesn't return.
func Main(m *testing.M) {
	if os.Geteuid() == 0 || os.Getenv(nested) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), nested+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintf(os.Stderr, "these tests mount file systems: run them as root, or allow user namespaces (%v)\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}
