// Package buildinfo says which keyturn this is: the version that the linker wrote in, or what the Go toolchain recorded,
// and how the Go Cryptographic Module runs (FIPS 140-3). Everything that prints a version asks here, so that the command
// line, /health and the audit log never disagree.
package buildinfo

import (
	"crypto/fips140"
	"runtime/debug"
)

// Version is written by the linker (make build); empty in `go run` and `go install`.
var Version string

// String is the version to print: the linker's, else the module's, else the revision, else "dev".
func String() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}

// FIPS says how the Go Cryptographic Module runs: whether FIPS 140-3 mode is on, whether it refuses what is not approved
// (GODEBUG=fips140=only), and which module version was built in ("latest" when no frozen one was chosen with GOFIPS140).
func FIPS() (enabled, enforced bool, module string) {
	return fips140.Enabled(), fips140.Enforced(), fips140.Version()
}
