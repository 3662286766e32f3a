package awsclient

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// Place is where a master-key URL leads to.
type Place struct {
	Name   string // what stands after the third slash: a name or an ARN
	Region string // of the URL or the ARN; empty when the environment is to say
	Field  string // the parameter field, where the driver knows one
	scheme string
}

// regionForm keeps a region from being part of a host name of somebody's choice.
var regionForm = regexp.MustCompile(`^[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}$`)

// maxName is more than the longest name in its ARN takes, in bytes. Not in the forms, as counted repetitions would make them
// large, and every command of keyturn compiles them at its start.
const maxName = 640

// Parse reads SCHEME:///NAME?region=REGION. The name must have the form, whose letters need no escaping in a URL; an
// ARN's region is its own. params are other parameters that the driver knows.
func Parse(raw, scheme string, form *regexp.Regexp, params ...string) (Place, error) {
	u, err := keyring.ParseURL(raw, scheme)
	if err != nil {
		return Place{}, err
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Place{}, badPlace("its parameters can't be read", scheme)
	}
	for name, values := range q {
		switch {
		case strings.HasPrefix(strings.ToLower(name), "endpoint"):
			return Place{}, badPlace("the endpoint isn't part of it", scheme).WithNext("set AWS_ENDPOINT_URL in the environment of keyturn")
		case name != "region" && !slices.Contains(params, name):
			return Place{}, badPlace("it has a parameter that isn't known", scheme)
		case len(values) != 1 || values[0] == "":
			return Place{}, badPlace("a parameter is empty or given twice", scheme)
		}
	}
	p := Place{Name: strings.TrimPrefix(u.Path, "/"), Region: q.Get("region"), Field: q.Get("field"), scheme: scheme}
	if u.Opaque != "" || u.Host != "" || len(p.Name) > maxName || !form.MatchString(p.Name) {
		return Place{}, badPlace("what stands after the third slash has another form", scheme)
	}
	if p.Region != "" && !regionForm.MatchString(p.Region) {
		return Place{}, errRegion
	}
	if of := regionOf(p.Name); of != "" {
		if p.Region != "" && p.Region != of {
			return Place{}, badPlace("its region isn't the one in the ARN", scheme)
		}
		p.Region = of
	}
	return p, nil
}

// URL is the place in canonical form, once the region is known.
func (p Place) URL() string {
	q := url.Values{}
	if p.Field != "" {
		q.Set("field", p.Field)
	}
	if regionOf(p.Name) == "" {
		q.Set("region", p.Region)
	}
	out := p.scheme + ":///" + p.Name
	if len(q) > 0 {
		out += "?" + q.Encode()
	}
	return out
}

// Canonical is the URL of the place that raw names, with the region that the environment says where raw doesn't. Nobody is
// asked. Its arguments are those of Parse.
func Canonical(ctx context.Context, raw, scheme string, form *regexp.Regexp, params ...string) (string, error) {
	p, err := Parse(raw, scheme, form, params...)
	if err != nil {
		return "", err
	}
	if p.Region == "" {
		cfg, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}), config.WithCredentialsProvider(aws.AnonymousCredentials{}))
		if err != nil || !regionForm.MatchString(cfg.Region) {
			return "", errRegion
		}
		p.Region = cfg.Region
	}
	return p.URL(), nil
}

// regionOf is the region in an ARN (arn:PARTITION:SERVICE:REGION:ACCOUNT:…), empty for anything else.
func regionOf(name string) string {
	parts := strings.SplitN(name, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return ""
	}
	return parts[3]
}

var errRegion = fault.New(api.CodeInvalid, "reading a master key's URL: the region has another form").
	WithField(keyring.FieldURL).WithNext("write it as AWS does: us-east-1")

func badPlace(why, scheme string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading a master key's URL: "+why).WithField(keyring.FieldURL).
		WithNext("write " + examples[scheme])
}

// examples are the forms of the URLs, by scheme.
var examples = map[string]string{
	"awskms":            "awskms:///alias/NAME?region=us-east-1, or a key's id or ARN in place of alias/NAME",
	"awssecretsmanager": "awssecretsmanager:///NAME?region=us-east-1, with &field=NAME for a secret that is JSON",
}
