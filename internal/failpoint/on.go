//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"sync"
)

// Enabled reports whether this is a build with failpoints.
const Enabled = true

// exitStatus is what a shell reports of a process that SIGKILL ended: 128 + 9.
const exitStatus = 137

// state counts the hits of the names in the plan; mu guards both.
var state struct {
	once sync.Once
	mu   sync.Mutex
	plan map[string]action
	hits map[string]int
}

// Hit counts a visit of the named place and ends the process, or panics, if KEYTURN_FAIL says so.
func Hit(name string) {
	state.once.Do(load)
	a, due := count(name)
	switch {
	case !due:
	case a.panics:
		panic("failpoint " + name)
	default:
		fmt.Fprintf(os.Stderr, "failpoint %s: exit %d\n", name, exitStatus)
		os.Exit(exitStatus)
	}
}

func load() {
	plan, err := parse(os.Getenv("KEYTURN_FAIL"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	state.plan, state.hits = plan, map[string]int{}
}

func count(name string) (action, bool) {
	state.mu.Lock()
	defer state.mu.Unlock()
	a, planned := state.plan[name]
	if !planned {
		return a, false
	}
	state.hits[name]++
	return a, state.hits[name] == a.nth
}
