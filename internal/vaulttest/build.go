package vaulttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// errMissing is returned when there is no Vault to start.
var errMissing = errors.New("no Vault server is built: run make vault once (about 8 minutes on 2 cores), " +
	"name a vault or bao binary in KEYTURN_TEST_VAULT, or set KEYTURN_TEST_NO_VAULT=1 to skip these tests")

// Find gives the path of the Vault binary: KEYTURN_TEST_VAULT, or what Build left in the user's cache.
func Find() (string, error) {
	if named := os.Getenv("KEYTURN_TEST_VAULT"); named != "" {
		if _, err := os.Stat(named); err != nil {
			return "", fmt.Errorf("KEYTURN_TEST_VAULT names no file: %w", err)
		}
		return filepath.Abs(named)
	}
	src, err := source()
	if err != nil {
		return "", err
	}
	path, err := cached(src)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", errMissing
	}
	return path, nil
}

// Build builds the module tools/vaultserver into the user's cache, unless Find finds it, and says on log what it does.
// Of several processes one builds and the others wait for it. The binary gets its name when it is whole.
func Build(ctx context.Context, log io.Writer) (string, error) {
	if path, err := Find(); !errors.Is(err, errMissing) {
		return path, err
	}
	src, err := source()
	if err != nil {
		return "", err
	}
	path, err := cached(src)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // another process built it meanwhile
	}
	fmt.Fprintln(log, "building Vault 1.13.2 for the tests, once: about 8 minutes on 2 cores")
	tmp := path + ".tmp"
	defer os.Remove(tmp)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", tmp, ".")
	cmd.Dir, cmd.Stdout, cmd.Stderr = src, log, log
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building Vault in %s: %w", src, err)
	}
	return path, os.Rename(tmp, path)
}

// lock waits until this process alone holds the lock file, which stays.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil // closing lets go of the lock
}

// source is tools/vaultserver of the checkout that the working directory is in.
func source() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		src := filepath.Join(dir, "tools", "vaultserver")
		if _, err := os.Stat(filepath.Join(src, "go.mod")); err == nil {
			return src, nil
		}
		if up := filepath.Dir(dir); up != dir {
			dir = up
			continue
		}
		return "", errors.New("tools/vaultserver isn't above the working directory: run inside a checkout, or name a binary in KEYTURN_TEST_VAULT")
	}
}

// cached is where the binary of these sources lies; other pins give another name.
func cached(src string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: name a binary in KEYTURN_TEST_VAULT", err)
	}
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		text, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	return filepath.Join(base, "keyturn", "vault-"+hex.EncodeToString(sum.Sum(nil)[:8])), nil
}
