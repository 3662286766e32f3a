package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// The severities of checks.
const (
	SeverityError   = "error"   // fails the doctor
	SeverityWarning = "warning" // fails it only when asked to be strict
	SeverityInfo    = "info"    // never fails it
)

// Check is one check of the doctor that another room brings: its Run fills in OK and, when it isn't, Detail and Fix. The
// name and the severity are the check's own.
type Check struct {
	Name, Severity string
	Run            func(ctx context.Context) (ok bool, detail, fix string)
}

// checkTimeout bounds one check, so that a master key that doesn't answer doesn't hide what the others found.
const checkTimeout = 20 * time.Second

// Doctor runs every check and says what it found. It changes nothing.
func (s *Service) Doctor(ctx context.Context, c *access.Caller) (api.Doctor, error) {
	var out api.Doctor
	in := gate.Intent{Action: access.SystemRead, Type: audit.ConfigRead, Verb: "doctor", Resource: systemResource}
	err := s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		out = api.Doctor{OK: true, Checks: []api.DoctorCheck{}}
		for _, check := range append(s.ownChecks(), s.cfg.Checks...) {
			found := run(ctx, check)
			out.Checks = append(out.Checks, found)
			if !found.OK {
				ev.Details.Failed++
				out.OK = out.OK && found.Severity != SeverityError
			}
		}
		ev.Details.Items = uint64(len(out.Checks))
		return ctx.Err()
	})
	if err != nil {
		return api.Doctor{}, err
	}
	return out, nil
}

func run(ctx context.Context, check Check) api.DoctorCheck {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	ok, detail, fix := check.Run(ctx)
	if ok {
		fix = ""
	}
	return api.DoctorCheck{Name: check.Name, OK: ok, Severity: check.Severity, Detail: detail, Fix: fix}
}

// ownChecks are the checks of what this room sees.
func (s *Service) ownChecks() []Check {
	return []Check{
		{"master-keys", SeverityError, s.checkMasters},
		{"master-keys-elsewhere", SeverityWarning, s.checkElsewhere},
		{"escrow", SeverityWarning, s.checkEscrow},
		{"store", SeverityError, s.checkStore},
		{"keys", SeverityError, s.checkKeys},
		{"principals", SeverityError, s.checkPrincipals},
		{"incidents", SeverityError, s.checkIncidents},
		{"audit", SeverityError, s.checkAudit},
		{"clock", SeverityError, s.checkClock},
		{"tombstones", SeverityError, s.checkTombstones},
		{"policies", SeverityError, s.checkPolicies},
		{"key-encryption-keys", SeverityWarning, s.checkKEKs},
		{"rotation", SeverityWarning, s.checkOverdue},
		{"active-versions", SeverityWarning, s.checkInactive},
		{"destruction", SeverityWarning, s.checkDestruction},
	}
}

// unknown is the outcome of a check that couldn't be made.
func unknown(err error) (bool, string, string) {
	return false, fault.MessageOf(err), fault.NextOf(err)
}

// checkMasters proves that every key-encryption key opens under every master key.
func (s *Service) checkMasters(ctx context.Context) (bool, string, string) {
	all, _ := s.verifyMasters(ctx)
	var bad, fixes []string
	for _, m := range all {
		if m.OK {
			continue
		}
		bad = append(bad, m.URL+": "+fault.MessageOf(m.Err))
		if next := cure(m.URL, m.Err); !slices.Contains(fixes, next) {
			fixes = append(fixes, next)
		}
	}
	switch {
	case len(all) == 0:
		return false, "no master key is configured", "keyturn master add URL"
	case len(bad) > 0:
		return false, strings.Join(bad, "; "), strings.Join(fixes, "; ")
	}
	return true, fmt.Sprintf("%d key-encryption keys open under each of %d master keys", len(all[0].KEKs), len(all)), ""
}

// checkElsewhere warns of master keys that the store is wrapped under and this node doesn't have: one that nobody needs any
// more is forgotten otherwise, and still opens the store. The escrow key has a check of its own.
func (s *Service) checkElsewhere(ctx context.Context) (bool, string, string) {
	all, err := s.ring.Elsewhere(ctx)
	if err != nil {
		return unknown(err)
	}
	var shown, remove []string
	for _, e := range all {
		if e.URL != keyring.EscrowURL {
			shown, remove = append(shown, e.URL+" (fingerprint "+e.ID+")"), append(remove, "keyturn master remove "+e.Name)
		}
	}
	if len(shown) == 0 {
		return true, "the store is wrapped under no master key that this node doesn't have", ""
	}
	return false, "the store is wrapped under master keys that this node doesn't have: " + listed(shown),
		"add it to masterKeys of this node, so that all nodes have the same list; or give it up: " + listed(remove)
}

func (s *Service) checkStore(ctx context.Context) (bool, string, string) {
	if err := s.st.Durable(ctx); err != nil {
		return unknown(err)
	}
	return true, "what is committed is on disk", ""
}

// checkClock compares the machine's clock, as it is, with what was seen and recorded: that can't lie in the future; and with the
// database's.
func (s *Service) checkClock(ctx context.Context) (bool, string, string) {
	var now clocks
	var newest time.Time
	err := s.st.View(ctx, func(tx store.Tx) (err error) {
		if now, err = s.look(ctx, tx); err == nil {
			newest, err = newestEvent(ctx, tx)
		}
		return err
	})
	if err != nil {
		return unknown(err)
	}
	behind := now.own
	if newest.UnixMicro() > now.state.Distrusted {
		behind = max(behind, newest.Sub(s.time.Wall()))
	}
	apart := s.time.Wall().Sub(now.shared).Abs()
	switch {
	case behind > clock.Slack:
		return false, fmt.Sprintf("the clock stands %s before the latest time that was seen; until it is right nothing is destroyed", behind.Round(time.Second)), setRight
	case now.database > clock.Slack:
		return false, fmt.Sprintf("the database's clock stands %s before the latest time that was seen; until it is right nothing is destroyed", now.database.Round(time.Second)), setRight
	case s.st.Dialect() != store.SQLite && apart > clock.Slack:
		return false, fmt.Sprintf("the clocks of this machine and of the database stand %s apart", apart.Round(time.Second)), "set the clock right that is wrong: have both follow NTP"
	}
	return true, "not before anything that was seen", ""
}

// checkTombstones looks for destroyed versions that an older store brought back.
func (s *Service) checkTombstones(ctx context.Context) (bool, string, string) {
	back, err := s.risen(ctx)
	if err != nil {
		return unknown(err)
	}
	if len(back) == 0 {
		return true, "no destroyed version has come back", ""
	}
	names := make([]string, 0, len(back))
	for _, t := range back {
		names = append(names, fmt.Sprintf("%s version %d", t.Key, t.Version))
	}
	return false, "destroyed, but alive in the store: " + listed(names), "destroy them again, or find out who put an older store back"
}

// checkPolicies looks for policies that somebody wrote into the database: they are not obeyed.
func (s *Service) checkPolicies(ctx context.Context) (bool, string, string) {
	rules, err := s.Rules(ctx)
	if err != nil {
		return unknown(err)
	}
	ours := map[string]bool{}
	for _, p := range rules.All() {
		ours[p.Name] = true
	}
	var forged []string
	err = s.st.View(ctx, func(tx store.Tx) error {
		forged = nil
		if attested, ok := tx.(*attestedTx); ok {
			tx = attested.Tx
		}
		stored, err := tx.Policies(ctx)
		for _, p := range stored {
			if !ours[p.Name] {
				forged = append(forged, p.Name)
			}
		}
		return err
	})
	if err != nil {
		return unknown(err)
	}
	if len(forged) > 0 {
		return false, "not written by keyturn, and not obeyed: policy " + listed(forged), "find out who writes to the database; then keyturn policy remove NAME"
	}
	return true, fmt.Sprintf("%d policies are as they were set", len(rules.All())), ""
}

// checkKEKs looks for what an interrupted rotation of the key-encryption keys left behind.
func (s *Service) checkKEKs(ctx context.Context) (bool, string, string) {
	behind, err := s.behindKEK(ctx)
	if err != nil {
		return unknown(err)
	}
	if behind > 0 {
		return false, fmt.Sprintf("%d versions stand under an older key-encryption key", behind), "a rotation was interrupted: keyturn master rotate --keks makes new ones once more, and moves these too"
	}
	return true, "every version stands under the active key-encryption key", ""
}

func (s *Service) checkOverdue(ctx context.Context) (bool, string, string) {
	now := s.clock()
	rules, err := s.Rules(ctx)
	if err != nil {
		return unknown(err)
	}
	late, err := s.keysThat(ctx, func(k keys.Key) bool { return rules.Times(&k).Overdue(now) })
	if err != nil {
		return unknown(err)
	}
	if len(late) == 0 {
		return true, "no key is older than its cryptoperiod", ""
	}
	return false, "overdue: " + listed(late), "keyturn rotation run, or keyturn key rotate NAME"
}

// checkInactive looks for keys that were to be rotated and have no active version: they protect nothing, and so are never due.
// Retired ones are as they should be.
func (s *Service) checkInactive(ctx context.Context) (bool, string, string) {
	rules, err := s.Rules(ctx)
	if err != nil {
		return unknown(err)
	}
	var inactive []keys.ActiveVersion
	err = s.st.View(ctx, func(tx store.Tx) (err error) {
		inactive, err = tx.InactiveKeys(ctx, false)
		return err
	})
	if err != nil {
		return unknown(err)
	}
	var names []string
	for i := range inactive {
		if times, _ := rules.TimesOf(&inactive[i]); !times.Due.IsZero() {
			names = append(names, inactive[i].Key)
		}
	}
	if len(names) == 0 {
		return true, "every key with a period or a schedule has an active version, or is retired", ""
	}
	return false, "no active version, so they protect nothing and are never due: " + listed(names),
		"keyturn key resume NAME or keyturn key rotate NAME, or have the rest of a key's versions destroyed"
}

// checkDestruction looks for destructions that fell due a day ago and more, and didn't happen.
func (s *Service) checkDestruction(ctx context.Context) (bool, string, string) {
	var late, waiting []string
	var left time.Duration
	err := s.st.View(ctx, func(tx store.Tx) error {
		late, waiting, left = nil, nil, 0
		now, err := s.look(ctx, tx)
		if err != nil {
			return err
		}
		over, err := s.waitOver(ctx, tx, s.clock().Add(-24*time.Hour), now.state.Watched)
		for _, d := range over {
			name := fmt.Sprintf("%s version %d", d.key, d.version)
			if d.left == 0 {
				late = append(late, name)
				continue
			}
			waiting, left = append(waiting, name), max(left, min(d.left, shortestWait))
		}
		return err
	})
	if err != nil {
		return unknown(err)
	}
	switch {
	case len(late) == 0 && len(waiting) > 0:
		return true, fmt.Sprintf("due by the clock, but keyturn didn't run for all of the waiting time, and destroys when it has, in %s at most: %s",
			left.Round(time.Minute), listed(waiting)), ""
	case len(late) == 0:
		return true, "no destruction is late", ""
	}
	return false, "destruction is due and was refused or didn't run: " + listed(late),
		"keyturn key destroy --due, where no server runs; see keyturn audit query --type key_state for a refusal's reason; undestroy the version or move what depends on it"
}

// keysThat lists the names of keys.
func (s *Service) keysThat(ctx context.Context, want func(keys.Key) bool) (names []string, err error) {
	err = s.st.View(ctx, func(tx store.Tx) error {
		names = nil
		return eachKey(ctx, tx, func(k keys.Key) error {
			if want(k) {
				names = append(names, k.Name)
			}
			return nil
		})
	})
	return names, err
}

// listed is at most ten of the names.
func listed(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
