// Package awssecrets is the master-key provider for a key in AWS Secrets Manager, which hands it over:
//
//	awssecretsmanager:///keyturn/master?region=us-east-1
//	awssecretsmanager:///arn:aws:secretsmanager:us-east-1:111122223333:secret:keyturn/master-AbCdEf
//	awssecretsmanager:///app/settings?field=master_key&region=us-east-1
//
// The secret is 32 bytes in base64 as its string (see keyring.ParseKeyText), or the 32 bytes themselves as its binary; with
// field, its string is a JSON object that has the base64 under that name. A name that begins with a slash is written with
// four: awssecretsmanager:////app/master. The key is fetched once, when it is opened, and works from then on whether or not
// AWS can be reached.
//
// The version at stage AWSCURRENT counts. The fingerprint is the key's own, so a rotation of the secret in AWS makes another
// master key of it: a store that was wrapped under the one before isn't opened by it, and keyturn says so rather than going
// on (kms.VerifyMasters, doctor). Such secrets must not be under automatic rotation; docs/providers/awssecretsmanager.md has
// the way to rotate one.
//
// Every operation ends within [Driver.Limit], after at most [remote.Tries] requests (and those for credentials). The SDK
// gives the secret as a Go string, which nobody can wipe: it stays in memory until the garbage collector reuses it. Who
// minds takes awskms, which never shows its key.
package awssecrets

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awsclient"
	"github.com/keyturn/keyturn/internal/keyring/remote"
	"github.com/keyturn/keyturn/internal/material"
)

const scheme = "awssecretsmanager"

// current is the stage whose version is the key.
const current = "AWSCURRENT"

// Driver opens and generates awssecretsmanager:// master keys. The zero value is ready.
type Driver struct {
	// Limit is how long one operation takes at most, retries included; zero means [remote.Limit].
	Limit time.Duration
}

// What a secret and a field are called. The letters of a name need no escaping in a URL.
var (
	nameForm  = regexp.MustCompile(`^(?:[A-Za-z0-9/_+=.@!-]+|arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+)$`)
	fieldForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

// Scheme is "awssecretsmanager".
func (Driver) Scheme() string { return scheme }

// Open fetches the key; nothing is written. Errors: invalid for the URL (also without a region) or the secret's form,
// not_found, wrong_state for a secret that waits for its deletion, denied, integrity for an answer about another secret,
// unavailable.
func (d Driver) Open(ctx context.Context, raw string) (keyring.MasterKey, error) {
	var k keyring.MasterKey
	err := d.with(ctx, raw, "opening", func(ctx context.Context, client *secretsmanager.Client, place awsclient.Place) error {
		doing := "opening master key " + place.URL()
		out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &place.Name, VersionStage: aws.String(current)})
		if err != nil {
			return awsclient.Fault(ctx, err, doing)
		}
		defer clear(out.SecretBinary)
		if !answers(out, place.Name) {
			return fault.New(api.CodeIntegrity, doing+": the answer is about another secret or version, or about none")
		}
		m, err := parse(out, place.Field)
		if err != nil {
			return fault.Wrap("", err, doing)
		}
		k, err = keyring.Hold(place.URL(), scheme, m)
		return err
	})
	return k, err
}

// Canonical is the URL with its region, and its parameters in their order.
func (Driver) Canonical(ctx context.Context, raw string) (string, error) {
	return awsclient.Canonical(ctx, raw, scheme, nameForm, "field")
}

// with has f use a client for the place that raw names, within the limit.
func (d Driver) with(ctx context.Context, raw, verb string, f func(context.Context, *secretsmanager.Client, awsclient.Place) error) error {
	place, err := awsclient.Parse(raw, scheme, nameForm, "field")
	if err != nil {
		return err
	}
	if place.Field != "" && (len(place.Field) > 128 || !fieldForm.MatchString(place.Field)) {
		return fault.New(api.CodeInvalid, "reading a master key's URL: the name of the field has another form").
			WithField(keyring.FieldURL).WithNext("name a member of the secret's JSON object: letters, digits, _ . -")
	}
	limit := d.Limit
	if limit <= 0 {
		limit = remote.Limit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cfg, err := awsclient.Config(ctx, place.Region, limit)
	if err != nil {
		return fault.Wrap("", err, verb+" a key in AWS Secrets Manager")
	}
	place.Region = cfg.Region
	defer closeIdle(cfg.HTTPClient)
	return f(ctx, secretsmanager.NewFromConfig(cfg), place)
}

func closeIdle(client aws.HTTPClient) {
	if c, ok := client.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// answers says whether out is the current version of the secret that was asked for.
func answers(out *secretsmanager.GetSecretValueOutput, name string) bool {
	named := aws.ToString(out.Name) == name
	if strings.HasPrefix(name, "arn:") {
		named = aws.ToString(out.ARN) == name
	}
	return named && slices.Contains(out.VersionStages, current)
}

// parse reads the key in a secret.
func parse(out *secretsmanager.GetSecretValueOutput, field string) (*material.Bytes, error) {
	switch {
	case out.SecretString == nil && field == "" && len(out.SecretBinary) == envelope.KeySize:
		return keyring.ParseKeyText(base64.StdEncoding.AppendEncode(nil, out.SecretBinary)) // which refuses keys that nobody drew
	case out.SecretString == nil:
		return nil, fault.New(api.CodeInvalid, "reading the secret: its binary must be the 32 bytes of a key, and have no field").
			WithNext("store the key in base64 as the secret's string")
	case field == "" && strings.HasPrefix(strings.TrimSpace(*out.SecretString), "{"):
		return nil, fault.New(api.CodeInvalid, "reading the secret: it is a JSON object").WithNext("say which member is the key: add field=NAME to the URL")
	case field == "":
		return keyring.ParseKeyText([]byte(*out.SecretString))
	}
	var members map[string]json.RawMessage
	var text string
	if json.Unmarshal([]byte(*out.SecretString), &members) != nil || json.Unmarshal(members[field], &text) != nil {
		return nil, fault.New(api.CodeInvalid, "reading the secret: it isn't a JSON object with the text "+field+" in it").
			WithNext("name the member that holds the key with field=NAME")
	}
	return keyring.ParseKeyText([]byte(text))
}

// Generate makes a secret with a new random key, encrypted by AWS under the account's key for Secrets Manager. It never
// writes to a secret that is there (conflict), also not to one that waits for its deletion (wrong_state). A request that is
// repeated, as its answer was lost, makes no second one.
func (d Driver) Generate(ctx context.Context, raw string) error {
	return d.with(ctx, raw, "making", func(ctx context.Context, client *secretsmanager.Client, place awsclient.Place) error {
		if strings.HasPrefix(place.Name, "arn:") {
			return fault.New(api.CodeInvalid, "making a master key: AWS makes the ARN of a new secret").WithField(keyring.FieldURL).
				WithNext("name the secret, in place of an ARN")
		}
		m := material.Random(envelope.KeySize)
		defer m.Destroy()
		text := string(keyring.AppendText(nil, m))
		if place.Field != "" {
			text = `{"` + place.Field + `":"` + text + `"}` // neither has a letter that JSON would escape
		}
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{
			Name: &place.Name, SecretString: &text, Description: aws.String("Master key of keyturn. Without it the store can't be opened: don't rotate or delete it here."),
		})
		if err == nil {
			return nil
		}
		f := awsclient.Fault(ctx, err, "making master key "+place.URL())
		if f.Code == api.CodeConflict {
			f = f.WithNext("choose another name; replacing a master key that is in use would lock the store")
		}
		return f
	})
}
