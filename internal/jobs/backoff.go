package jobs

import (
	"time"

	"github.com/keyturn/keyturn/api"
)

// The delays between attempts: 1 s, 4 s, 16 s, 64 s, 256 s, then 5 min for ever, each between 80 % and 120 % of it. With
// DefaultMaxAttempts a chunk is tried over about a minute and a half, which outlives the restart of a database.
const (
	backoffBase   = time.Second
	backoffFactor = 4
	backoffCap    = 5 * time.Minute
	backoffSpread = 0.4 // of the delay, centred on it
)

// Backoff is how long to wait after the attempt'th failure in a row (1 = the first). Jitter is a random number in [0, 1)
// that the caller draws, so that many jobs that failed together don't come back together; one out of range is cut to it.
func Backoff(attempt int, jitter float64) time.Duration {
	delay := backoffBase
	for range attempt - 1 {
		if delay *= backoffFactor; delay >= backoffCap {
			delay = backoffCap
			break
		}
	}
	jitter = min(max(jitter, 0), 1)
	return time.Duration(float64(delay) * (1 - backoffSpread/2 + backoffSpread*jitter))
}

// PatientTries is how many chunks in a row may find that what a job needs is away, where the job was told to wait for it:
// with the delays above a day, on average.
const PatientTries = 292

// retryable are the codes of failures that may pass by themselves. Every other is the same tomorrow (wrong input, missing
// right, tampered data), and trying again would only hide it from whoever has to act.
var retryable = map[api.Code]bool{
	api.CodeUnavailable: true,
	api.CodeBusy:        true,
	api.CodeConflict:    true, // somebody was first; the next attempt reads what they wrote
	api.CodeCancelled:   true, // the chunk's time was up
	api.CodeInternal:    true, // unclassified: most are, e.g. a cut connection of a foreign database
}

// Retryable reports whether a chunk that failed with this code is worth another attempt.
func Retryable(code api.Code) bool { return retryable[code] }
