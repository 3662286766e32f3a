package soak

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestProcessRefusesCoreDumps: a serving process is not dumpable and has no core limit (FAULTS row 16). A process that is
// not dumpable belongs to root in /proc and can't be attached to by its own user.
func TestProcessRefusesCoreDumps(t *testing.T) {
	k := New(t)
	server := k.node("keyturn")
	t.Cleanup(server.Stop)
	if os.Geteuid() == 0 { // as an unprivileged user, so that /proc tells
		uid := 65534
		if err := chown(k.Dir, uid); err != nil {
			t.Fatal(err)
		}
		if err := openPath(k.Dir); err != nil {
			t.Fatal(err)
		}
		server.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	server.Start()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", server.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") {
			if f := strings.Fields(line); f[4] != "0" || f[5] != "0" {
				t.Errorf("core limit is %s/%s, want 0/0", f[4], f[5])
			}
		}
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", server.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("/proc/…/mem belongs to uid %d: the process is dumpable", uid)
	}
}
