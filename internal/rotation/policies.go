package rotation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/store"
)

func policyResource(name string) access.Resource {
	return access.Resource{Kind: access.KindPolicy, Name: name}
}

// Policies lists every policy that holds on this node and that the caller may see.
func (s *Service) Policies(ctx context.Context, c *access.Caller) (api.PolicyList, error) {
	out := api.PolicyList{Policies: []api.Policy{}}
	in := gate.Intent{Action: access.PolicyRead, Type: audit.ConfigRead, Verb: "listed", Resource: policyResource("")}
	err := s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		rules, err := s.cfg.Keys.Rules(ctx)
		if err != nil {
			return err
		}
		out.Policies = []api.Policy{}
		for _, p := range rules.All() {
			if allowed(c, access.PolicyRead, policyResource(p.Name)) {
				out.Policies = append(out.Policies, policyView(p))
			}
		}
		ev.Details.Items = uint64(len(out.Policies))
		return nil
	})
	if err != nil {
		return api.PolicyList{}, err
	}
	return out, nil
}

// Effective is what holds for a key, and where each part of it comes from.
func (s *Service) Effective(ctx context.Context, c *access.Caller, key string) (api.EffectivePolicy, error) {
	if err := keys.ValidateName(key); err != nil {
		return api.EffectivePolicy{}, fault.Wrap("", err, "reading the key's name").WithField("key")
	}
	var out api.EffectivePolicy
	in := gate.Intent{Action: access.KeyRead, Type: audit.ConfigRead, Verb: "policy_shown", Resource: keyResource(key)}
	err := s.cfg.Gate.Use(ctx, c, in, func(ctx context.Context, _ *audit.Event) error {
		rules, err := s.cfg.Keys.Rules(ctx)
		if err != nil {
			return err
		}
		var k keys.Key
		err = s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
			k, err = tx.KeyByName(ctx, key)
			return err
		})
		out = effectiveView(&k, rules)
		return err
	})
	if err != nil {
		return api.EffectivePolicy{}, err
	}
	return out, nil
}

func effectiveView(k *keys.Key, rules *kms.Rules) api.EffectivePolicy {
	e := rules.Of(k.Name, k.Purpose)
	out := api.EffectivePolicy{
		Key: k.Name, Purpose: string(k.Purpose), Environment: rules.Environment(), From: map[string]string{}, Next: optional(rules.Times(k).Due),
		PolicyRule: api.PolicyRule{
			Period: formatSpan(e.Period), Schedule: e.Schedule, Zone: e.Zone, Grace: formatSpan(e.Grace), Reencrypt: yesNo(e.Reencrypt),
			Concurrency: e.Concurrency, BatchSize: e.BatchSize, Attempts: e.Attempts, Warn: formatSpan(e.Warn),
		},
	}
	for field, policy := range e.From {
		out.From[field] = policy
	}
	if t := rules.Times(k); !t.Due.IsZero() {
		out.Warn = formatSpan(t.Due.Sub(t.Warn).Round(time.Second)) // the shipped one gives way to a short life
	}
	if g := e.GraceOf(k); g != e.Grace {
		out.Grace, out.From["grace"] = formatSpan(g), "key"
	}
	if !k.ByPolicy && !e.Named("period") {
		out.Period, out.From["period"] = formatSpan(k.Cryptoperiod.Period), "key"
		if !e.Named("schedule") {
			out.Schedule = ""
			delete(out.From, "schedule")
		}
	}
	if out.Schedule == "" {
		out.Zone = ""
		delete(out.From, "zone")
	}
	return out
}

// SetPolicy makes a policy, or changes what the request names of one that was set before. A rotation check follows at
// once, since keys may be due now. Errors: invalid; conflict when another policy has the same selector, or when the name is
// that of one that was shipped or configured.
func (s *Service) SetPolicy(ctx context.Context, c *access.Caller, name string, in api.SetPolicyRequest) (api.Policy, error) {
	said, err := ruleOf(in)
	if err != nil {
		_, err = Configured(name, in) // with what else is wrong with it
		return api.Policy{}, fault.Wrap("", err, "setting a policy")
	}
	if err := keys.ValidateName(name); err != nil {
		return api.Policy{}, err
	}
	rules, err := s.cfg.Keys.Rules(ctx)
	if err != nil {
		return api.Policy{}, err
	}
	taken := slices.ContainsFunc(rules.All(), func(p keys.Policy) bool { return p.Name == name && p.Origin != keys.OriginSet })
	var done keys.Policy
	intent := gate.Intent{Action: access.PolicyWrite, Type: audit.ConfigWrite, Verb: "policy_set", Resource: policyResource(name)}
	err = s.cfg.Gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		if taken {
			return fault.New(api.CodeConflict, "setting a policy: one of this name is shipped or stands in keyturn.yaml").WithField("policy").
				WithNext("take another name: a policy that is set wins over it where both are about the same keys")
		}
		set, err := tx.Policies(ctx)
		if err != nil {
			return err
		}
		p := keys.Policy{Name: name}
		if i := slices.IndexFunc(set, func(p keys.Policy) bool { return p.Name == name }); i >= 0 {
			p = set[i]
			if err := governs(c, &p); err != nil {
				return err
			}
		}
		p.Created, p.Actor, p.Origin = s.cfg.Clock().UTC().Truncate(time.Microsecond), c.Principal.Name, keys.OriginSet
		merge(&p, in, said)
		ev.Details.Key, ev.Details.Purpose = p.Key, string(p.Purpose)
		if err := check(p); err != nil {
			return fault.Wrap("", err, "setting a policy")
		}
		if err := governs(c, &p); err != nil {
			return err
		}
		done = p
		if err := tx.PutPolicy(ctx, p); err != nil {
			return err
		}
		return tx.BringForward(ctx, jobs.RotationCheck, p.Created)
	})
	s.cfg.Keys.PoliciesChanged()
	if err != nil {
		return api.Policy{}, err
	}
	view := policyView(done)
	if view.Warnings, err = s.warnings(ctx, c, done); err != nil { // it is set all the same
		view.Warnings = []string{"the policy is set; for which keys it holds could not be looked at: " + fault.MessageOf(err)}
	}
	return view, nil
}

// warnings says what of a policy has no effect as things stand: nothing is selected, or keys were made with a period of their
// own. Keys that the caller may not see are counted and not named.
func (s *Service) warnings(ctx context.Context, c *access.Caller, p keys.Policy) (out []string, err error) {
	rules, err := s.cfg.Keys.Rules(ctx)
	if err != nil {
		return nil, err
	}
	if p.Environment != "" && p.Environment != rules.Environment() {
		out = append(out, "it holds on nodes of environment "+p.Environment+", and this one is of "+rules.Environment())
	}
	plans := p.Rule.Period != nil || p.Rule.Schedule != nil && *p.Rule.Schedule != ""
	selected, own, always := 0, []string(nil), []string(nil)
	look := func(v *keys.ActiveVersion) error {
		if !p.Selects(v.Key, v.Purpose, p.Environment) {
			return nil
		}
		if t, e := rules.TimesOf(v); !t.Due.IsZero() && !t.Warn.After(v.Activated) && (e.From["warn"] == p.Name || e.From["period"] == p.Name || e.From["schedule"] == p.Name) {
			always = append(always, v.Key)
		}
		if selected++; plans && p.Key == "" && !v.ByPolicy && !rules.Of(v.Key, v.Purpose).Named("period") {
			own = append(own, v.Key)
		}
		return nil
	}
	err = s.cfg.Store.View(ctx, func(tx store.Tx) error {
		selected, own, always = 0, nil, nil
		inactive, err := tx.InactiveKeys(ctx, true)
		if err != nil {
			return err
		}
		for i := range inactive {
			if err := look(&inactive[i]); err != nil {
				return err
			}
		}
		return tx.EachActive(ctx, look)
	})
	switch {
	case err != nil:
		return nil, err
	case selected == 0 && p.Key != "":
		out = append(out, "it selects nothing now: there is no key "+p.Key+selector(p, " of purpose "))
	case selected == 0:
		out = append(out, "it selects nothing now: there is no key"+selector(p, " of purpose "))
	case len(own) > 0:
		slices.Sort(own)
		out = append(out, "its period and schedule don't hold for keys that were made with a period of their own: "+s.namesFor(c, own)+
			"; a policy that names such a key (--key) goes before it")
	}
	if len(always) > 0 {
		slices.Sort(always)
		out = append(out, "the time to warn before is longer than the whole life of the active version, which is due soon from its begin: "+s.namesFor(c, always)+
			"; say a shorter one: --warn")
	}
	return out, nil
}

func selector(p keys.Policy, words string) string {
	if p.Purpose == "" {
		return ""
	}
	return words + string(p.Purpose)
}

// namesFor is at most ten names of keys, those that a caller may see.
func (s *Service) namesFor(c *access.Caller, names []string) string {
	const most = 10
	var shown []string
	for _, n := range names {
		if len(shown) < most && allowed(c, access.KeyRead, keyResource(n)) {
			shown = append(shown, n)
		}
	}
	text := strings.Join(shown, ", ")
	switch more := len(names) - len(shown); {
	case more > 0 && len(shown) > 0:
		text += fmt.Sprintf(" and %d more", more)
	case more > 0:
		text = numberOfKeys(more)
	}
	return text
}

// RemovePolicy takes a policy away that was set. Errors: not_found; conflict for one that is shipped or configured.
func (s *Service) RemovePolicy(ctx context.Context, c *access.Caller, name string) error {
	if err := keys.ValidateName(name); err != nil {
		return err
	}
	rules, err := s.cfg.Keys.Rules(ctx)
	if err != nil {
		return err
	}
	var fixed *fault.Error
	for _, p := range rules.All() {
		switch {
		case p.Name == name && p.Origin == keys.OriginConfig:
			fixed = fault.New(api.CodeConflict, "removing a policy: it stands in keyturn.yaml").WithField("policy").
				WithNext("take it out there, on every node, or set one about the same keys, which wins over it: keyturn policy set NAME")
		case p.Name == name && p.Origin == keys.OriginShipped:
			fixed = fault.New(api.CodeConflict, "removing a policy: it is shipped with keyturn").WithField("policy").
				WithNext("set one about the same keys, which wins over it: keyturn policy set NAME; with --period 0 or --schedule none nothing falls due by it")
		}
	}
	in := gate.Intent{Action: access.PolicyWrite, Type: audit.ConfigWrite, Verb: "policy_removed", Resource: policyResource(name)}
	err = s.cfg.Gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		set, err := tx.Policies(ctx)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(set, func(p keys.Policy) bool { return p.Name == name }); i >= 0 {
			ev.Details.Key, ev.Details.Purpose = set[i].Key, string(set[i].Purpose)
			if err := governs(c, &set[i]); err != nil {
				return err
			}
		}
		if err := tx.DeletePolicy(ctx, name); err != nil {
			if fault.CodeOf(err) == api.CodeNotFound && fixed != nil {
				return fixed
			}
			if fault.CodeOf(err) == api.CodeNotFound {
				return fault.Wrap("", err, "removing a policy").WithField("policy").WithNext("only those that were set can be removed: keyturn policy list")
			}
			return err
		}
		return tx.BringForward(ctx, jobs.RotationCheck, s.cfg.Clock())
	})
	s.cfg.Keys.PoliciesChanged()
	return err
}

// governs refuses who writes a policy about keys outside his scope: a policy's own name is whatever he calls it, and what it
// says has keys rotated, and decides how long old versions are kept. One that names no key is about all of them, also those
// to come.
func governs(c *access.Caller, p *keys.Policy) error {
	about := access.Every(access.KindKey)
	if p.Key != "" {
		about = keyResource(p.Key)
	}
	if allowed(c, access.PolicyWrite, about) {
		return nil
	}
	return fault.New(api.CodeDenied, "nobody sets or takes away a policy about keys outside his own scope").WithField("key").
		WithNext("name a key of your scope, or have somebody do it whose scope has all of them")
}

// check says what is wrong with a policy, its schedule included: all of it, see fault.Join.
func check(p keys.Policy) error {
	problems := []error{p.Validate()}
	if s := p.Rule.Schedule; s != nil && *s != "" {
		_, err := jobs.ParseCron(*s, "")
		problems = append(problems, err)
	}
	if p.Rule.Zone != "" {
		_, err := jobs.ParseCron("@daily", p.Rule.Zone)
		problems = append(problems, err)
	}
	return fault.Join(problems...)
}

// Configured is a policy of a configuration, held to the same rules as one that is set. Its error names all that is wrong.
func Configured(name string, in api.SetPolicyRequest) (keys.Policy, error) {
	said, problems := ruleOf(in)
	p := keys.Policy{Name: name, Origin: keys.OriginConfig}
	merge(&p, in, said)
	for _, err := range fault.Each(check(p)) {
		if problems == nil || p.Rule != (keys.Rule{}) || fault.FieldOf(err) != "policy" { // it says something that can't be read
			problems = fault.Join(problems, err)
		}
	}
	return p, problems
}

// noSchedule is how a request says that there is to be none.
const noSchedule = "none"

// ruleOf reads a request's rule, as much of it as can be read.
func ruleOf(in api.SetPolicyRequest) (keys.Rule, error) {
	var problems error
	r := keys.Rule{Zone: in.Zone, Concurrency: in.Concurrency, BatchSize: in.BatchSize, Attempts: in.Attempts}
	for _, span := range []struct {
		field, text string
		read        func(string) (time.Duration, error)
		to          **time.Duration
	}{{"period", in.Period, keys.ParseCryptoperiod, &r.Period}, {"grace", in.Grace, keys.ParsePeriod, &r.Grace}, {"warn", in.Warn, keys.ParsePeriod, &r.Warn}} {
		if span.text == "" {
			continue
		}
		d, err := span.read(span.text)
		switch {
		case err == nil:
			*span.to = &d
		case span.field == "period":
			problems = fault.Join(problems, err)
		default: // it speaks of a period, too
			problems = fault.Join(problems, fault.Wrap("", err, "reading "+span.field).WithField(span.field))
		}
	}
	switch in.Schedule {
	case "":
	case noSchedule:
		none := ""
		r.Schedule = &none
	default:
		r.Schedule = &in.Schedule
	}
	switch in.Reencrypt {
	case "":
	case "yes", "no":
		yes := in.Reencrypt == "yes"
		r.Reencrypt = &yes
	default:
		problems = fault.Join(problems, fault.New(api.CodeInvalid, "whether to re-encrypt is neither yes nor no").WithField("reencrypt").WithNext("say yes or no"))
	}
	return r, problems
}

// merge changes what the request names and leaves the rest.
func merge(p *keys.Policy, in api.SetPolicyRequest, said keys.Rule) {
	replace(&p.Key, in.Key)
	replace(&p.Purpose, keys.Purpose(in.Purpose))
	replace(&p.Environment, in.Environment)
	r := &p.Rule
	replace(&r.Period, said.Period)
	replace(&r.Schedule, said.Schedule)
	replace(&r.Zone, said.Zone)
	replace(&r.Grace, said.Grace)
	replace(&r.Reencrypt, said.Reencrypt)
	replace(&r.Concurrency, said.Concurrency)
	replace(&r.BatchSize, said.BatchSize)
	replace(&r.Attempts, said.Attempts)
	replace(&r.Warn, said.Warn)
}

func replace[T comparable](to *T, by T) {
	var none T
	if by != none {
		*to = by
	}
}

func policyView(p keys.Policy) api.Policy {
	out := api.Policy{
		Policy: p.Name, Key: p.Key, Purpose: string(p.Purpose), Environment: p.Environment, Origin: string(p.Origin), Created: optional(p.Created), Actor: p.Actor,
		PolicyRule: api.PolicyRule{Zone: p.Rule.Zone, Concurrency: p.Rule.Concurrency, BatchSize: p.Rule.BatchSize, Attempts: p.Rule.Attempts},
	}
	for _, span := range []struct {
		from *time.Duration
		to   *string
	}{{p.Rule.Period, &out.Period}, {p.Rule.Grace, &out.Grace}, {p.Rule.Warn, &out.Warn}} {
		if span.from != nil {
			*span.to = formatSpan(*span.from)
		}
	}
	if s := p.Rule.Schedule; s != nil {
		if out.Schedule = *s; *s == "" {
			out.Schedule = noSchedule
		}
	}
	if p.Rule.Reencrypt != nil {
		out.Reencrypt = yesNo(*p.Rule.Reencrypt)
	}
	return out
}

// formatSpan writes 0 as "0", where FormatPeriod writes nothing.
func formatSpan(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	return keys.FormatPeriod(d)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
