// Command vaultserver is HashiCorp Vault 1.13.2 (MPL-2.0) as its own command line, for keyturn's tests and benchmark. Package
// internal/vaulttest builds it once into the user's cache (make vault) and starts servers from it.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
