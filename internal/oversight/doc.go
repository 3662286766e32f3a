// Package oversight is what one sees and steers from above: the jobs that run, and the audit log. Like every service it
// speaks the wire's types, and goes through the one doorway (package gate), so that looking is recorded as doing is.
//
//	jobs := oversight.NewJobs(oversight.JobsConfig{Gate: g, Store: st, Runner: r, …})
//	list, err := jobs.List(ctx, caller, "running", "", 100)
//	log := oversight.NewLog(oversight.LogConfig{Gate: g, …})
//	err = log.Export(ctx, caller, oversight.Query{}, w)
//
// # Streams
//
// Watching a job and following the log go on for as long as the reader wants. The right to do so is looked at again
// while they go on ([recheckEvery]): whoever is disabled or loses the right stops receiving, and doesn't have to be
// caught at his next request.
package oversight

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/store"
)

// Doorway is what these services need of package gate.
type Doorway interface {
	Use(ctx context.Context, c *access.Caller, in gate.Intent, run func(ctx context.Context, ev *audit.Event) error) error
	Change(ctx context.Context, c *access.Caller, in gate.Intent, change func(ctx context.Context, tx store.Tx, ev *audit.Event) error) error
}

// recheckEvery is how old the answer to "may he still?" may be while a stream goes on. It is authn's TTL: a token, too,
// is believed that long on other nodes.
const recheckEvery = 5 * time.Second

// still says whether the caller of a stream may still read it. It belongs to one goroutine.
type still struct {
	st       store.Store
	clock    func() time.Time
	caller   *access.Caller
	action   access.Action
	resource access.Resource
	asked    time.Time
}

func newStill(st store.Store, clock func() time.Time, c *access.Caller, a access.Action, r access.Resource) *still {
	return &still{st, clock, c, a, r, clock()}
}

// allowed looks at the stored principal, at most every recheckEvery. Errors: denied; those of the store.
func (s *still) allowed(ctx context.Context) error {
	now := s.clock()
	if age := now.Sub(s.asked); age >= 0 && age < recheckEvery {
		return nil
	}
	var p access.Principal
	err := s.st.View(ctx, func(tx store.Tx) (err error) {
		p, err = tx.PrincipalByID(ctx, s.caller.Principal.ID)
		return err
	})
	if err != nil && fault.CodeOf(err) != api.CodeNotFound {
		return err
	}
	if d := access.Decide(&p, s.action, s.resource); !d.Allowed {
		return fault.New(api.CodeDenied, "this stream is not allowed any more: "+d.Why)
	}
	s.asked = now
	return nil
}
