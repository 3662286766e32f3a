package server

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/kms"
)

// How often a server makes sure that it can still reach a master key: ten times within the time for which it may do
// without, and at least every few minutes, so that an outage is known long before it is felt.
const (
	reachShare = 10
	reachMost  = 5 * time.Minute
	reachTime  = 30 * time.Second // what one try may take
)

// watchMasters keeps the ring's custody true until ctx ends: it confirms a master key that can be reached, alerts when none
// can, has the ring forget its keys when that has lasted too long, and opens it again when one is back.
func (s *Server) watchMasters(ctx context.Context) {
	every := min(s.cfg.Keys.MasterOutage/reachShare, reachMost)
	tick := time.NewTicker(every)
	defer tick.Stop()
	s.knowAdministrator(ctx)
	for away := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.reachMaster(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && away:
			s.log.Info("a master key can be reached again")
			s.alertMasters(ctx, "master_key_reached", "a master key can be reached again")
		case err != nil && !away:
			s.log.Warn("no master key can be reached", "reason", fault.MessageOf(err), "serving_until", time.Now().Add(s.cfg.Keys.MasterOutage).UTC().Format(time.RFC3339))
			s.alertMasters(ctx, "master_key_unreachable", fault.MessageOf(err))
		case err == nil:
			s.knowAdministrator(ctx)
		}
		if away = err != nil; away && s.ring.Usable() != nil && !s.ring.IsShut() {
			s.log.Error("no master key was reached for too long: every key is forgotten, and nothing is served until one is back")
			s.ring.Shut()
		}
	}
}

// reachMaster is nil when a master key can be fetched now. A ring that was shut is opened with it.
func (s *Server) reachMaster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	if s.ring.IsShut() {
		return s.kms.ReplaceMasters(ctx, func(now []keyring.MasterKey) ([]keyring.MasterKey, error) {
			var urls []string
			for _, m := range now {
				urls = append(urls, m.URL())
			}
			return keyring.OpenMasters(ctx, masterDrivers, urls)
		})
	}
	// One that was away when the server started takes part as soon as it is there.
	err := s.kms.ReplaceMasters(ctx, func(now []keyring.MasterKey) ([]keyring.MasterKey, error) {
		if next, changed := keyring.Reopen(ctx, masterDrivers, now); changed {
			return next, nil
		}
		return nil, nil
	})
	if err != nil {
		s.log.Warn("a master key that was away can be opened and not used", "reason", fault.MessageOf(err))
	}
	return s.kms.ReachMaster(ctx)
}

// knowAdministrator has sign-in know the local administrator while his row can be proven: he may ask what is wrong once it
// can't be any more (authn.Diagnosing).
func (s *Server) knowAdministrator(ctx context.Context) {
	if _, err := s.local.Principal(ctx); err != nil && ctx.Err() == nil {
		s.log.Debug("the local administrator isn't known", "reason", fault.MessageOf(err))
	}
}

// alertMasters records an alert; one that can't be recorded stands in the server's log.
func (s *Server) alertMasters(ctx context.Context, name, reason string) {
	err := s.kms.Alert(ctx, kms.Warning{Name: name, Resource: access.Resource{Kind: access.KindMaster}, Reason: reason})
	if err != nil {
		s.log.Warn("an alert could not be recorded", "alert", name, "reason", fault.MessageOf(err))
	}
}
