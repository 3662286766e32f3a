package server

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/kms"
)

func tombstone(key string, n uint32) kms.Tombstone {
	return kms.Tombstone{KeyID: envelope.KeyID{1}, Key: key, Version: n, At: time.Unix(1700000000, 0).UTC()}
}

func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(t.Context(), dir, "keyturn dataset reencrypt", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockDir(t.Context(), dir, "keyturn key list", time.Millisecond)
	want := fmt.Sprintf("process %d (keyturn dataset reencrypt) holds it", os.Getpid())
	if fault.CodeOf(err) != api.CodeBusy || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockDir(gone, dir, "x", time.Hour); fault.CodeOf(err) != api.CodeCancelled {
		t.Errorf("interrupted while waiting: %v", err)
	}
	waiting := make(chan error, 1)
	go func() {
		l, err := lockDir(t.Context(), dir, "keyturn key list", time.Hour)
		l.release()
		waiting <- err
	}()
	first.release()
	if err := <-waiting; err != nil {
		t.Errorf("once it is free: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, LockFile), []byte("12 \x1b[2Jevil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, LockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text := held(f).Error(); strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
}

// A second opening of a store in use waits, and is then told who holds it; a killed holder's lock is gone with it.
func TestLockOfAKilledProcess(t *testing.T) {
	if dir := os.Getenv("KEYTURN_TEST_HOLD"); dir != "" {
		if _, err := Open(context.Background(), dir, Options{Embedded: true, Command: "the first"}); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println("holding")
		select {} // until it is killed
	}
	dir := made(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestLockOfAKilledProcess$") // it never ends by itself
	cmd.Env = append(os.Environ(), "KEYTURN_TEST_HOLD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "holding\n" {
		t.Fatalf("%q %v", line, err)
	}
	_, err = Open(t.Context(), dir, Options{Embedded: true, LockWait: time.Millisecond})
	if fault.CodeOf(err) != api.CodeBusy || !strings.Contains(err.Error(), fmt.Sprintf("process %d (the first)", cmd.Process.Pid)) {
		t.Errorf("%v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	inside(opened(t, dir, Options{})).key(t, "phi")
}
