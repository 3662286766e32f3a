package proctest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Pause stops a process where it stands (SIGSTOP) and returns when every thread of it has: the signal is only on its way when it was
// sent, and a thread that runs may still answer somebody. SIGCONT lets it go on. Linux only, as it reads /proc.
func Pause(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !paused(pid) {
		select {
		case <-look.C:
		case <-deadline.C:
			return fmt.Errorf("process %d hadn't stopped %v after SIGSTOP", pid, Patience)
		}
	}
	return nil
}

// paused reads the state of every thread, which stands behind the name in parentheses.
func paused(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if i := bytes.LastIndexByte(text, ')'); err != nil || i < 0 || !bytes.HasPrefix(text[i:], []byte(") T")) {
			return false
		}
	}
	return true
}
