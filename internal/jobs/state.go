package jobs

// State is where a job stands. Its zero value is invalid.
type State string

// The closed list of states.
const (
	Queued    State = "queued"    // waits for its turn, or for NextAttempt
	Running   State = "running"   // an owner holds the epoch; stays so between two chunks
	Paused    State = "paused"    // stopped on request; the cursor is kept
	Cancelled State = "cancelled" // ended on request; what was done stays done
	Failed    State = "failed"    // gave up after the attempts were used up, or at once for an error that can't pass
	Done      State = "done"      // ended by itself; items that failed are on its list of failures
)

// States lists every state, in the order in which a job usually meets them.
func States() []State { return []State{Queued, Running, Paused, Cancelled, Failed, Done} }

// transitions is the whole state machine: from -> the states that may follow. A job that is running may be claimed again
// (Running -> Running) when its lease ran out. Ended jobs go back to Queued by a retry only.
var transitions = map[State][]State{
	Queued:    {Running, Paused, Cancelled, Failed},
	Running:   {Running, Queued, Paused, Cancelled, Failed, Done},
	Paused:    {Queued, Cancelled},
	Cancelled: {Queued},
	Failed:    {Queued},
	Done:      {Queued},
}

// Valid reports whether s is one of the list.
func (s State) Valid() bool { _, ok := transitions[s]; return ok }

// Final reports whether the job has ended: nothing runs it any more unless somebody retries it.
func (s State) Final() bool { return s == Cancelled || s == Failed || s == Done }

// MayBecome reports whether the state machine has an edge from s to next.
func (s State) MayBecome(next State) bool {
	for _, to := range transitions[s] {
		if to == next {
			return true
		}
	}
	return false
}

// Control is what somebody wants a job to do. It never changes the state by itself.
type Control string

// The closed list of wishes.
const (
	Run    Control = "run"    // go on; the default
	Pause  Control = "pause"  // stop after the chunk, keep the cursor
	Cancel Control = "cancel" // stop after the chunk for good
)

// Valid reports whether c is one of the list.
func (c Control) Valid() bool { return c == Run || c == Pause || c == Cancel }
