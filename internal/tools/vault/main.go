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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := vaulttest.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
