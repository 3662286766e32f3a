//go:build !goexperiment.runtimesecret

package material

// Secretly runs f. Built with GOEXPERIMENT=runtimesecret (Linux on amd64 and arm64) it also has the runtime erase the
// registers, the stack and the dead allocations that f leaves behind; this build only runs f. It is meant for the rare
// steps that see a raw key, as unwrapping does: a hot path would pay for it in garbage collection.
func Secretly(f func()) { f() }
