package reencrypt

import "sync"

// acks puts the pages of a pass back in order. Pages are acknowledged as their writers finish; only when everything in
// front of a page is acknowledged too does it count, and may the cursor stand at its end. It is safe for concurrent use.
type acks struct {
	mu      sync.Mutex
	next    int             // the first page that isn't acknowledged
	waiting map[int]*result // acknowledged, but not everything in front of them is
	done    Progress        // of the pages in front of next
}

func newAcks(after Key) *acks {
	return &acks{waiting: map[int]*result{}, done: Progress{Cursor: after, Moved: map[VersionOf]int64{}}}
}

// ack takes over the result of one page.
func (a *acks) ack(r *result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[r.seq] = r
	for {
		r, ok := a.waiting[a.next]
		if !ok {
			return
		}
		delete(a.waiting, a.next)
		a.next++
		a.done.Cursor = r.end
		a.done.Counts.add(r.counts, false)
		a.done.Failed = append(a.done.Failed, r.failed...)
		for v, rows := range r.moved {
			a.done.Moved[v] += rows
		}
	}
}

// take answers the progress so far; failures and what was moved are handed over once.
func (a *acks) take() Progress {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.done
	a.done.Failed, a.done.Moved = nil, map[VersionOf]int64{}
	return p
}
