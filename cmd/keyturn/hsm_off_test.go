//go:build !(pkcs11 && cgo && unix)

package main

import "testing"

// TestScriptsWithoutHSM: a binary without PKCS#11 says so, whatever is done with a master key in an HSM.
func TestScriptsWithoutHSM(t *testing.T) { scripts(t, "testdata/nohsm", embeddedStore) }
