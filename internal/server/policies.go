package server

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Policies are the rotation policies of a configuration, in the order of their names.
type Policies []keys.Policy

// policiesKey is their key in keyturn.yaml.
const policiesKey = "policies"

// policiesOf reads a mapping from names to mappings. Its errors name the policy and the member, never a value.
func policiesOf(raw any) (Policies, error) {
	if raw == nil || raw == "" {
		return nil, nil
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
	for _, name := range names {
		in, err := policyRequest(named[name])
		if err != nil {
			return nil, formError("of the name " + strconv.QuoteToASCII(name) + " " + err.Error())
		}
		p, err := rotation.Configured(name, in)
		if err != nil {
			return nil, formError("of the name " + strconv.QuoteToASCII(name) + " can't be used: " + fault.FieldOf(err) + ": " + fault.MessageOf(err))
		}
		if err := alone(p, append(out, keys.ShippedPolicies()...)); err != nil {
			return nil, formError("of the name " + strconv.QuoteToASCII(name) + " " + err.Error())
		}
		out = append(out, p)
	}
	return out, nil
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

// policyRequest reads the members of one policy.
func policyRequest(raw any) (in api.SetPolicyRequest, err error) {
	members, ok := raw.(map[string]any)
	if !ok {
		return in, formError("must be a mapping")
	}
	texts := map[string]*string{"key": &in.Key, "purpose": &in.Purpose, "environment": &in.Environment, "period": &in.Period, "schedule": &in.Schedule,
		"zone": &in.Zone, "grace": &in.Grace, "warn": &in.Warn}
	numbers := map[string]*int{"concurrency": &in.Concurrency, "batchSize": &in.BatchSize, "attempts": &in.Attempts}
	for member, value := range members {
		if to := texts[member]; to != nil {
			*to = fmt.Sprint(value)
			continue
		}
		if to := numbers[member]; to != nil {
			if *to, err = strconv.Atoi(fmt.Sprint(value)); err != nil {
				return in, formError("has a " + member + " that is not a whole number")
			}
			continue
		}
		if member != "reencrypt" {
			return in, formError("has a member " + strconv.QuoteToASCII(member) + ", which no policy has")
		}
		in.Reencrypt = map[string]string{"true": "yes", "false": "no"}[fmt.Sprint(value)]
		if in.Reencrypt == "" {
			in.Reencrypt = fmt.Sprint(value)
		}
	}
	return in, nil
}
