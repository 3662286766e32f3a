package server

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Policies are the rotation policies of a configuration, in the order of their names.
type Policies []keys.Policy

// policiesKey is their key in keyturn.yaml.
const policiesKey = "policies"

// policiesOf reads a mapping from names to mappings. Its errors, all that there are, name the policy and the member, never a value.
func policiesOf(raw any) (Policies, error) {
	if raw == nil || raw == "" {
		return nil, nil
	}
	if text, ok := raw.(string); ok { // the environment has nothing but text
		m, err := yaml.Parser().Unmarshal([]byte(text))
		if err != nil {
			return nil, formError("must be a mapping from names to policies; in the environment in YAML or JSON")
		}
		raw = m
	}
	named, ok := raw.(map[string]any)
	if !ok {
		return nil, formError("must be a mapping from names to policies")
	}
	names := make([]string, 0, len(named))
	for name := range named {
		names = append(names, name)
	}
	slices.Sort(names)
	var out Policies
	var problems []error
	for _, name := range names {
		bad := func(why string) {
			problems = append(problems, formError("of the name "+strconv.QuoteToASCII(name)+" "+why))
		}
		members, ok := named[name].(map[string]any)
		if !ok {
			bad("must be a mapping")
			continue
		}
		in, unread := policyRequest(members)
		for _, why := range unread {
			bad(why)
		}
		p, err := rotation.Configured(name, in)
		for _, err := range fault.Each(err) {
			if len(unread) == 0 || fault.FieldOf(err) != "policy" { // else it says something, and that can't be read
				bad("can't be used: " + fault.FieldOf(err) + ": " + fault.MessageOf(err))
			}
		}
		if err := alone(p, append(out, keys.ShippedPolicies()...)); err != nil {
			bad(err.Error())
		}
		out = append(out, p)
	}
	return out, errors.Join(problems...)
}

// alone holds a policy to what `policy set` holds one to: a name of its own, and keys that no other policy of the configuration
// is about in the same words.
func alone(p keys.Policy, others []keys.Policy) error {
	for _, o := range others {
		switch {
		case o.Name == p.Name:
			return formError("is shipped with keyturn: take another name, it wins over the shipped one where both are about the same keys")
		case o.Origin == p.Origin && o.Key == p.Key && o.Purpose == p.Purpose && o.Environment == p.Environment:
			return formError("is about the same keys as the one of the name " + strconv.QuoteToASCII(o.Name))
		}
	}
	return nil
}

// policyRequest reads the members of one policy, and says what of them it could not read.
func policyRequest(members map[string]any) (in api.SetPolicyRequest, problems []string) {
	texts := map[string]*string{"key": &in.Key, "purpose": &in.Purpose, "environment": &in.Environment, "period": &in.Period, "schedule": &in.Schedule,
		"zone": &in.Zone, "grace": &in.Grace, "warn": &in.Warn}
	numbers := map[string]*int{"concurrency": &in.Concurrency, "batchSize": &in.BatchSize, "attempts": &in.Attempts}
	for _, member := range slices.Sorted(maps.Keys(members)) {
		text := fmt.Sprint(members[member])
		switch {
		case texts[member] != nil && text == "": // nothing said, to who asks for a policy; here somebody wrote it down
			problems = append(problems, "has an empty "+member+emptyNext[member])
		case texts[member] != nil:
			*texts[member] = text
		case numbers[member] != nil:
			n, err := strconv.Atoi(text)
			if err != nil || n == 0 {
				problems = append(problems, "has as "+member+" no whole number from 1 on")
				continue
			}
			*numbers[member] = n
		case member == "reencrypt":
			if in.Reencrypt = map[string]string{"true": "yes", "false": "no"}[text]; in.Reencrypt == "" {
				in.Reencrypt = text
			}
		default:
			problems = append(problems, "has a member "+strconv.QuoteToASCII(member)+", which no policy has")
		}
	}
	return in, problems
}

// emptyNext says what to write where somebody wants none of something.
var emptyNext = map[string]string{"schedule": `: write none to take a schedule away`, "period": `: write 0 for rotation on demand only`}
