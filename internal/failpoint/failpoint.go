// Package failpoint ends a test build of keyturn at a named place, so that campaigns can look at what a crash exactly
// there leaves behind (FAULTS: kill -9 in the middle of everything):
//
//	failpoint.Hit("runner/before-save")
//
// Without the build tag failpoint, Hit has an empty body and the compiler removes the call: a released binary has no
// failpoints, and no environment variable can bring them back. With it, KEYTURN_FAIL names what happens:
//
//	KEYTURN_FAIL=runner/before-save:3        the third hit ends the process with status 137, as kill -9 would
//	KEYTURN_FAIL=runner/before-save:3:panic  the third hit panics
//	KEYTURN_FAIL=a:1,b:2                     whichever comes first
//
// Nothing is flushed, closed or deferred before the exit. A name is room/place, in lower case; the place says on which
// side of which step it lies ("before-save", "after-save"). The variable is read once, at the first hit; a value that
// isn't understood ends the process with status 2, because a campaign that kills nothing proves nothing.
package failpoint

import (
	"fmt"
	"strconv"
	"strings"
)

// action is what one entry of KEYTURN_FAIL asks for.
type action struct {
	nth    int // the hit that fires, from 1
	panics bool
}

// parse reads the value of KEYTURN_FAIL: entries name:n or name:n:panic, separated by commas.
func parse(value string) (map[string]action, error) {
	plan := map[string]action{}
	for entry := range strings.SplitSeq(value, ",") {
		if entry == "" {
			continue
		}
		parts := strings.Split(entry, ":")
		if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
			return nil, fmt.Errorf("reading KEYTURN_FAIL: %q is not name:n or name:n:panic", entry)
		}
		n, err := strconv.Atoi(parts[1])
		if err != nil || n < 1 {
			return nil, fmt.Errorf("reading KEYTURN_FAIL: %q: the count is not a number from 1", entry)
		}
		if len(parts) == 3 && parts[2] != "panic" {
			return nil, fmt.Errorf("reading KEYTURN_FAIL: %q: only panic may follow the count", entry)
		}
		plan[parts[0]] = action{nth: n, panics: len(parts) == 3}
	}
	return plan, nil
}
