// Package proctest gives the processes of tests their ports, stands them still, and ends them. A test that tells a server to stop and
// waits for it without an end hides a server that never stops: all that is left of it is a time-out of the whole room, and no word
// of where it stood.
//
//	cmd.Start()
//	…
//	if err := proctest.End(cmd); err != nil { t.Fatalf("%v\n%s", err, log) }
package proctest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Patience is how long a process that was told to stop may take, on a machine that is busy with other tests. A server whose database
// swallows everything takes the longest, about a minute: a commit that was asked for is waited for.
const Patience = 2 * time.Minute

// End tells a process to stop (SIGTERM), waits for it, and gives what its Wait gave. It calls cmd.Wait, which nobody else may.
func End(cmd *exec.Cmd) error {
	exited := make(chan struct{})
	var err error
	go func() {
		defer close(exited)
		err = cmd.Wait()
	}()
	if hung := Tell(cmd.Process, exited); hung != nil {
		return hung
	}
	return err
}

// Tell tells a process to stop and waits until exited is closed, which is whoever waits for the process's to do. One that
// is still there after Patience is made to print what its goroutines do on its standard error (SIGQUIT), and killed: then
// Tell returns an error. A process that has ended by itself is none.
func Tell(p *os.Process, exited <-chan struct{}) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = p.Kill()
		return fmt.Errorf("telling process %d to stop: %w", p.Pid, err)
	}
	if within(Patience, exited) {
		return nil
	}
	_ = p.Signal(syscall.SIGQUIT)
	if !within(10*time.Second, exited) {
		_ = p.Kill()
		<-exited
	}
	return fmt.Errorf("process %d hadn't stopped %v after it was told to; what it was doing is on its standard error", p.Pid, Patience)
}

func within(d time.Duration, exited <-chan struct{}) bool {
	patience := time.NewTimer(d)
	defer patience.Stop()
	select {
	case <-exited:
		return true
	case <-patience.C:
		return false
	}
}
