//go:build goexperiment.runtimesecret

package material

import "runtime/secret"

// Secretly runs f and has the runtime erase the registers, the stack and the dead allocations that f leaves behind.
func Secretly(f func()) { secret.Do(f) }
