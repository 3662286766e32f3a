package runner

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// Wait returns when the job is settled: done, failed, cancelled or paused (a paused job waits for a person, so its waiter
// would wait for ever). It calls onProgress, if there is one, with the job as it stands now and after each change that it
// sees; changes of this process at once, those of others within 250 ms. When ctx ends first, the job itself goes on, or
// waits for the next process to take it up, and the error says so. Errors: not_found, cancelled, those of the store.
func (r *Runner) Wait(ctx context.Context, id string, onProgress func(jobs.Job)) (jobs.Job, error) {
	news, leave := r.hub.join(id)
	defer leave()
	signal(r.poke) // whoever waits has usually just committed what it waits for
	poll := time.NewTicker(waitPoll)
	defer poll.Stop()
	var last jobs.Job
	for {
		j, err := r.look(ctx, id)
		if err != nil {
			return last, r.interrupted(ctx, id, err)
		}
		if onProgress != nil && differs(last, j) {
			onProgress(j)
		}
		if last = j; j.Settled() {
			return j, nil
		}
		select {
		case <-ctx.Done():
			return last, r.interrupted(ctx, id, ctx.Err())
		case <-news:
		case <-poll.C:
		}
	}
}

func (r *Runner) look(ctx context.Context, id string) (j jobs.Job, err error) {
	err = r.st.View(ctx, func(tx store.Tx) (err error) {
		j, err = tx.Job(ctx, id)
		return err
	})
	return j, err
}

// interrupted puts the end of a waiter's context into words: it isn't the end of the job.
func (r *Runner) interrupted(ctx context.Context, id string, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fault.Wrapf(api.CodeCancelled, context.Cause(ctx), "waiting for job %s", id).
		WithNext("the job keeps its place: watch it with keyturn job watch " + id + ", or run the command again")
}

// differs reports whether a watcher would see a difference.
func differs(a, b jobs.Job) bool {
	return a.State != b.State || a.Control != b.Control || a.Done != b.Done || a.Total != b.Total || a.Error != b.Error ||
		a.Attempts != b.Attempts || !bytes.Equal(a.Progress, b.Progress)
}

// hub tells waiters of this process that a job has changed. A message says only "look", so it may come before the commit
// and may be dropped when one is waiting already.
type hub struct {
	mu   sync.Mutex // guards subs
	subs map[string]map[chan struct{}]bool
}

func (h *hub) join(id string) (news <-chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[id] == nil {
		h.subs[id] = map[chan struct{}]bool{}
	}
	h.subs[id][c] = true
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs[id], c)
		if len(h.subs[id]) == 0 {
			delete(h.subs, id)
		}
	}
}

func (h *hub) tell(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs[id] {
		signal(c)
	}
}
