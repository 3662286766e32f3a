// Command vault builds the Vault server of the tests into the user's cache, unless it is there, and prints where it is:
// `make vault` runs it before the tests, because a first build takes longer than a test may.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/keyturn/keyturn/internal/vaulttest"
)

func main() {
	if os.Getenv("KEYTURN_TEST_NO_VAULT") == "1" {
		fmt.Fprintln(os.Stderr, "vault: not built, as KEYTURN_TEST_NO_VAULT=1; the tests that need it are skipped by name")
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := vaulttest.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
