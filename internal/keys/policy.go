package keys

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Policy says how the keys that it selects are rotated. Several may select one key: each field of the rule is then taken
// from the most specific policy that says it, see Resolve.
type Policy struct {
	Name string

	// The selector. An empty field selects all; what is said must all hold.
	Key         string
	Purpose     Purpose
	Environment string // of the node that asks, see configuration

	Rule    Rule
	Origin  Origin // not stored: where the policy came from
	Created time.Time
	Actor   string
	MAC     string // of the stored row, made and checked by package kms
}

// Rule is what a policy says; a nil pointer, an empty zone or a zero number says nothing.
type Rule struct {
	// Period is the cryptoperiod by age; 0 = rotated on demand only.
	Period *time.Duration `json:"period,omitempty"`
	// Schedule is a cron expression, at whose times the keys are rotated whatever their age; "" takes away what a less
	// specific policy schedules. Zone is its time zone: a schedule brings its own, UTC if its policy says none, and a policy
	// that says only a zone changes that of the schedule which it inherits.
	Schedule *string `json:"schedule,omitempty"`
	Zone     string  `json:"zone,omitempty"`
	// Grace is how long a version that was followed by another still counts as in use: until then its destruction can't be
	// asked for. Compromised versions have none.
	Grace *time.Duration `json:"grace,omitempty"`
	// Reencrypt says whether the datasets of a key are moved to the new version after a rotation that keyturn makes by
	// itself or by `rotation run`.
	Reencrypt *bool `json:"reencrypt,omitempty"`
	// Concurrency is how many re-encryptions that follow rotations run at once, BatchSize how many rows a page of theirs
	// has, and Attempts how many chunks of a rotation or of a re-encryption may fail in a row.
	Concurrency int `json:"concurrency,omitempty"`
	BatchSize   int `json:"batchSize,omitempty"`
	Attempts    int `json:"attempts,omitempty"`
	// Warn is how long before its end a version is called due soon. Only the shipped one gives way to short lives, see Times.
	Warn *time.Duration `json:"warn,omitempty"`
}

// Origin is where a policy came from. Of two with an equally specific selector the later origin wins.
type Origin string

// The origins, in their order.
const (
	OriginShipped Origin = "shipped"
	OriginConfig  Origin = "keyturn.yaml"
	OriginSet     Origin = "set"
)

// Limits of rules beside those of the period, which are MinCryptoperiod and MaxCryptoperiod.
const (
	MaxGrace       = 365 * day
	MaxConcurrency = 16
	MaxBatchSize   = 10_000
	MaxAttempts    = 20
)

// DefaultBatchSize is how many rows make a page of work on a dataset that is gentle with its database, as what follows a rotation
// is. The shipped policies say it, so that whoever looks at them sees what holds.
const DefaultBatchSize = 200

// Validate checks name, selector and bounds; its error names all that is wrong, see fault.Join. That a schedule is a cron
// expression which comes true is for package jobs to say.
func (p Policy) Validate() error {
	problems := []error{ValidateName(p.Name)}
	if p.Key != "" {
		if err := ValidateName(p.Key); err != nil {
			problems = append(problems, fault.Wrap("", err, "reading the policy's key").WithField("key"))
		}
	}
	if p.Purpose != "" {
		problems = append(problems, p.Purpose.Validate())
	}
	if len(p.Environment) > 64 {
		problems = append(problems, badPolicy("environment", "the environment's name is longer than 64 bytes"))
	}
	if strings.ContainsFunc(p.Environment, func(r rune) bool { return r < ' ' || r > '~' }) {
		problems = append(problems, badPolicy("environment", "the environment's name has a form that isn't accepted").
			WithNext("write it as keyturn.yaml has it: letters, digits and signs of ASCII"))
	}
	return fault.Join(append(problems, p.Rule.problems()...)...)
}

func (r Rule) problems() (found []error) {
	bad := func(is bool, field, msg, next string) {
		if is {
			found = append(found, badPolicy(field, msg).WithNext(next))
		}
	}
	if r.Period != nil {
		found = append(found, checkLife(*r.Period))
	}
	bad(r.Grace != nil && (*r.Grace < 0 || *r.Grace > MaxGrace), "grace",
		"the grace period is not between 0 and 365 days", `write it like "7d" or "12h", or "0" for none`)
	bad(r.Warn != nil && (*r.Warn < 0 || *r.Warn > MaxCryptoperiod), "warn",
		"the time to warn before is not between 0 and 730 days", `write it like "7d" or "12h", or "0" for no warning`)
	bad(r.Warn != nil && r.Period != nil && *r.Period > 0 && *r.Warn >= *r.Period, "warn",
		"the time to warn before is not shorter than the period", "give one at which a new version isn't due soon yet, or leave it out for the default")
	bad(r.Concurrency < 0 || r.Concurrency > MaxConcurrency, "concurrency", "the concurrency is not between 1 and 16", "leave it out for the default")
	bad(r.BatchSize < 0 || r.BatchSize > MaxBatchSize, "batchSize", "the batch size is not between 1 and 10000", "leave it out for the default")
	bad(r.Attempts < 0 || r.Attempts > MaxAttempts, "attempts", "the number of attempts is not between 1 and 20", "leave it out for the default")
	bad(r == (Rule{}), "policy", "the policy says nothing", "give it a period, a schedule or another rule")
	return found
}

func badPolicy(field, msg string) *fault.Error {
	return fault.New(api.CodeInvalid, msg).WithField(field)
}

// ShippedPolicies are those that a store comes with. Whoever wants others sets them.
func ShippedPolicies() []Policy {
	days := func(n int) *time.Duration { d := time.Duration(n) * day; return &d }
	yes, monthly := true, "0 0 1 * *"
	return []Policy{
		{Name: "default", Origin: OriginShipped, Rule: Rule{
			Period: days(90), Grace: days(0), Concurrency: 5, BatchSize: DefaultBatchSize, Attempts: 3, Warn: days(7)}},
		{Name: "staging", Environment: "staging", Origin: OriginShipped, Rule: Rule{Period: days(30)}},
		{Name: "development", Environment: "development", Origin: OriginShipped, Rule: Rule{Period: days(0)}},
		{Name: "phi", Purpose: PurposePHI, Origin: OriginShipped, Rule: Rule{
			Schedule: &monthly, Grace: days(7), Reencrypt: &yes, Concurrency: 5, Attempts: 3}},
	}
}

// Selects says whether the policy is about a key in an environment.
func (p Policy) Selects(name string, purpose Purpose, environment string) bool {
	return (p.Key == "" || p.Key == name) && (p.Purpose == "" || p.Purpose == purpose) &&
		(p.Environment == "" || p.Environment == environment)
}

// rank orders policies from the least to the most specific: one for a key beats one for a purpose, which beats one for an
// environment; where both say the same, what was set beats keyturn.yaml beats what was shipped.
func (p Policy) rank() int {
	r := slices.Index([]Origin{OriginShipped, OriginConfig, OriginSet}, p.Origin)
	for i, said := range []bool{p.Environment != "", p.Purpose != "", p.Key != ""} {
		if said {
			r += 4 << i
		}
	}
	return r
}

// Effective is what holds for one key: every field of every policy that selects it, the most specific first. From names
// for each field the policy that said it.
type Effective struct {
	Period, Grace, Warn              time.Duration
	Schedule, Zone                   string
	Reencrypt                        bool
	Concurrency, BatchSize, Attempts int
	From                             map[string]string

	named   map[string]bool // fields that were said by a policy which names the key
	shipped map[string]bool // fields that nobody but the shipped policies said
}

// Resolve finds what holds for a key of a name and purpose in an environment. The order of policies doesn't matter.
func Resolve(policies []Policy, name string, purpose Purpose, environment string) Effective {
	var mine []Policy
	for _, p := range policies {
		if p.Selects(name, purpose, environment) {
			mine = append(mine, p)
		}
	}
	slices.SortStableFunc(mine, func(a, b Policy) int { return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Name, b.Name)) })
	e := Effective{From: map[string]string{}, named: map[string]bool{}, shipped: map[string]bool{}}
	for _, p := range mine {
		e.take(p)
	}
	return e
}

// take lets what a policy says replace what less specific ones said.
func (e *Effective) take(p Policy) {
	r := p.Rule
	say(e, p, "period", r.Period, &e.Period)
	zone := said(r.Zone)
	if r.Schedule != nil {
		own := cmp.Or(r.Zone, "UTC")
		zone = &own
	}
	say(e, p, "schedule", r.Schedule, &e.Schedule)
	say(e, p, "zone", zone, &e.Zone)
	say(e, p, "grace", r.Grace, &e.Grace)
	say(e, p, "reencrypt", r.Reencrypt, &e.Reencrypt)
	say(e, p, "concurrency", said(r.Concurrency), &e.Concurrency)
	say(e, p, "batchSize", said(r.BatchSize), &e.BatchSize)
	say(e, p, "attempts", said(r.Attempts), &e.Attempts)
	say(e, p, "warn", r.Warn, &e.Warn)
}

func say[T any](e *Effective, p Policy, field string, value *T, to *T) {
	if value != nil {
		*to, e.From[field], e.named[field], e.shipped[field] = *value, p.Name, p.Key != "", p.Origin == OriginShipped
	}
}

// said is nil for a zero value: nothing said.
func said[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}

// GraceOf is the grace period of a key's versions. Who made a key with a cryptoperiod of its own took it out of the shipped
// arrangement, whose grace goes with its schedule; what people say in policies of theirs counts for every key.
func (e Effective) GraceOf(k *Key) time.Duration {
	if !k.ByPolicy && e.shipped["grace"] {
		return 0
	}
	return e.Grace
}

// Named says whether a field was said by a policy that names the key itself.
func (e Effective) Named(field string) bool { return e.named[field] }
