package jobs

import (
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The functions of this file are the whole life of a job: each takes it as it stands and answers it as it should be
// saved. None of them looks at a clock, and none touches Cursor, Progress, Done, Total, Epoch or Control.

// New fills what a job must have before it is inserted: the caller gives Kind, Subject, UniqueKey, Args, Actor, Priority
// and perhaps Total.
func New(id string, j Job, now time.Time) (Job, error) {
	switch {
	case j.Kind == "":
		return Job{}, fault.New(api.CodeInvalid, "making a job without a kind").WithField("kind")
	case j.Tries < 0:
		return Job{}, fault.New(api.CodeInvalid, "making a job with a negative number of tries").WithField("tries")
	case j.Priority < 0 || j.Priority > PriorityIdle:
		return Job{}, fault.Newf(api.CodeInvalid, "making a job: priority %d is not between %d and %d", j.Priority, PriorityUrgent, PriorityIdle).WithField("priority")
	}
	if j.Priority == 0 {
		j.Priority = PriorityNormal
	}
	if len(j.Args) == 0 {
		j.Args = []byte("{}")
	}
	j.ID, j.State, j.Control = id, Queued, Run
	j.Created, j.NextAttempt = now, now
	return j, nil
}

// release takes the owner off.
func (j Job) release() Job {
	j.Owner, j.LeaseUntil = "", time.Time{}
	return j
}

// Continue is the job after a good chunk that has more to do: it stays Running, and the lease covers the time until the
// next claim.
func (j Job) Continue(leaseUntil time.Time) Job {
	j.State, j.Attempts, j.Error, j.LeaseUntil = Running, 0, "", leaseUntil
	return j
}

// Requeue is the job put back for anybody to claim at once: its owner stops, or somebody resumed it.
func (j Job) Requeue(now time.Time) Job {
	j = j.release()
	j.State, j.NextAttempt = Queued, now
	return j
}

// Defer is the job put back until a time: a chunk went well and found that what it waits for isn't there yet. Why says, for
// people, what that is.
func (j Job) Defer(until time.Time, why string) Job {
	j = j.Requeue(until)
	j.Attempts, j.Error = 0, why
	return j
}

// Begin is a job that was claimed, as its chunk begins: what it was deferred for is over. How it failed last stays to be read until
// a chunk went well.
func (j Job) Begin() Job {
	if j.Attempts == 0 {
		j.Error = ""
	}
	return j
}

// Finish is the job after its last good chunk.
func (j Job) Finish(now time.Time) Job {
	j = j.release()
	j.State, j.Attempts, j.Error, j.Finished = Done, 0, "", now
	return j
}

// Obey is the job as a wish other than Run wants it. It is called by whoever owns the epoch, or when nobody does.
func (j Job) Obey(c Control, now time.Time) Job {
	switch c {
	case Pause:
		j = j.release()
		j.State = Paused
	case Cancel:
		j = j.release()
		j.State, j.Finished = Cancelled, now
	}
	return j
}

// Fail is the job after a chunk that failed: queued again for later, or failed for good when the code says that time
// won't help or this was attempt number max. Text must be safe for people (fault.MessageOf). A chunk that saved progress
// before it failed starts the count anew: say so by progressed.
func (j Job) Fail(code api.Code, text string, progressed bool, now time.Time, jitter float64, maxAttempts int) Job {
	if j.Tries > 0 {
		maxAttempts = j.Tries
	}
	if maxAttempts <= 0 {
		maxAttempts = DefaultMaxAttempts
	}
	return j.fail(Retryable(code), text, progressed, now, jitter, maxAttempts)
}

func (j Job) fail(again bool, text string, progressed bool, now time.Time, jitter float64, maxAttempts int) Job {
	if progressed {
		j.Attempts = 0
	}
	j = j.release()
	j.Attempts++
	j.Error = text
	if !again || j.Attempts >= maxAttempts {
		j.State, j.Finished = Failed, now
		return j
	}
	j.State, j.NextAttempt = Queued, now.Add(Backoff(j.Attempts, jitter))
	return j
}

// Wait is the job after a chunk that could not reach what it needs, where somebody decided that this is waited for: it fails
// after PatientTries such chunks in a row.
func (j Job) Wait(text string, progressed bool, now time.Time, jitter float64) Job {
	return j.fail(true, text, progressed, now, jitter, PatientTries)
}

// Retry is an ended job made to run again, its cursor and failures kept for the handler to look at.
func (j Job) Retry(now time.Time) Job {
	j = j.Requeue(now)
	j.Attempts, j.Error, j.Finished = 0, "", time.Time{}
	return j
}

// Waits reports whether a queued job waits for its next attempt, or was deferred. One that failed waits until it is claimed:
// where nothing runs, its time may have passed long ago.
func (j Job) Waits(now time.Time) bool {
	return j.State == Queued && (j.Attempts > 0 || j.NextAttempt.After(now))
}

// MayPause, MayResume, MayCancel and MayRetry answer nil, or a fault with api.CodeWrongState that says what is possible.
// Asking for what is already so is allowed: commands can be repeated.

// MayPause reports whether the job may be asked to pause.
func (j Job) MayPause() error { return j.unlessFinal("pausing") }

// MayResume reports whether the job may be asked to run on: a pause is lifted, a wish to pause taken back, or an attempt that lies
// ahead made now.
func (j Job) MayResume() error { return j.unlessFinal("resuming") }

// MayCancel reports whether the job may be asked to end.
func (j Job) MayCancel() error {
	if j.State == Cancelled {
		return nil
	}
	return j.unlessFinal("cancelling")
}

// MayRetry reports whether the job may run again, or now; failures is the length of its dead-letter list. A job that is done may
// only when it left something behind, and one that hasn't ended only while it waits for its next attempt.
func (j Job) MayRetry(failures int64, now time.Time) error {
	switch {
	case j.Waits(now):
		return nil
	case j.State == Paused:
		return fault.Newf(api.CodeWrongState, "retrying job %s: it has not ended, it is paused", j.ID).WithNext("keyturn job resume " + j.ID)
	case !j.State.Final():
		return fault.Newf(api.CodeWrongState, "retrying job %s: it has not ended, it is %s", j.ID, j.State).WithNext("wait for it: keyturn job watch " + j.ID)
	case j.State == Done && failures == 0:
		return fault.Newf(api.CodeWrongState, "retrying job %s: it is done and nothing failed", j.ID)
	}
	return nil
}

func (j Job) unlessFinal(doing string) error {
	if !j.State.Final() {
		return nil
	}
	e := fault.Newf(api.CodeWrongState, "%s job %s: it is %s", doing, j.ID, j.State)
	if j.State == Failed || j.State == Cancelled {
		e = e.WithNext("keyturn job retry " + j.ID)
	}
	return e
}

// Settled reports whether nothing more happens to the job by itself: it has ended, or waits for a person.
func (j Job) Settled() bool { return j.State.Final() || j.State == Paused }

// Orphaned reports whether the owner of a running job can't be working any more: its lease ran out, or, when the caller
// knows that no other process can hold the store (me is its own name then, else empty), the owner is somebody else.
func (j Job) Orphaned(now time.Time, me string) bool {
	if j.State != Running {
		return false
	}
	return !j.LeaseUntil.After(now) || (me != "" && j.Owner != me)
}

// Due reports whether a queued job should have been claimed by now. A job that waits for a further attempt, or was
// deferred, has no wake-up call before its time, so one that was claimed before is due at NextAttempt; a new one got a
// call when it was queued, so it is due only after patience, when that call must have been lost.
func (j Job) Due(now time.Time, patience time.Duration) bool {
	if j.State != Queued {
		return false
	}
	if j.Attempts > 0 || j.Epoch > 0 {
		patience = 0
	}
	return !j.NextAttempt.Add(patience).After(now)
}
