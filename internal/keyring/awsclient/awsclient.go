// Package awsclient is what the AWS providers share: the reading of their URLs, a configured client, and the codes of what
// AWS answers.
//
//	place, err := awsclient.Parse(raw, "awskms", keyForm)          // awskms:///alias/phi?region=us-east-1
//	cfg, err := awsclient.Config(ctx, place.Region, limit)         // credentials are there
//	…
//	return awsclient.Fault(ctx, err, "unwrapping under "+k.url)    // never with the text that AWS sent
//
// Credentials come from the SDK's default chain: environment, shared files and profiles, web identity, container and
// instance roles. Nothing of them stands in a URL or in keyturn.yaml. Where requests go isn't said there either: a URL with
// an endpoint in it would have the server hand what it wraps to whoever it names. An endpoint of one's own (a VPC endpoint,
// a test server) is set beside the credentials, by AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KMS or AWS_ENDPOINT_URL_SECRETS_MANAGER.
package awsclient

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/remote"
)

// Config is the SDK's configuration for one provider: region as given or, when empty, from the environment; credentials
// that could be had; requests that are tried [remote.Tries] times within limit. The search for credentials takes half of
// limit at most, so that a machine without any is told soon, whatever its network does with the address of an
// instance's metadata.
func Config(ctx context.Context, region string, limit time.Duration) (aws.Config, error) {
	ctx, cancel := context.WithTimeout(ctx, limit/2)
	defer cancel()
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}), // it would warn on stderr
		config.WithRetryer(func() aws.Retryer { return retryer(limit) }),
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, fault.Wrap(api.CodeInvalid, err, "reading the AWS configuration").
			WithNext("check AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and the files in ~/.aws of the user that keyturn runs as")
	}
	if cfg.Region == "" {
		return cfg, fault.New(api.CodeInvalid, "reading a master key's URL: neither it nor the environment names a region").
			WithField(keyring.FieldURL).WithNext("add ?region=us-east-1, say, or set AWS_REGION")
	}
	if !regionForm.MatchString(cfg.Region) {
		return cfg, errRegion
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return cfg, remote.Fault(ctx, err, "looking for AWS credentials: none could be had").WithField("credentials").
			WithNext("give the machine a role, or the process AWS_PROFILE or the other variables that AWS's own tools read")
	}
	// For the service only: the chain asks an instance's metadata, which has no TLS.
	cfg.HTTPClient = remote.Client(limit / remote.Tries)
	return cfg, nil
}

// retryer tries again what may pass: throttling, 5xx, connections. Its pauses are short, as somebody waits. It has no
// account of failures of the past (ratelimit.None): a provider is asked rarely, and each operation stands for itself.
func retryer(limit time.Duration) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = remote.Tries
		o.MaxBackoff = limit / 20
		o.RateLimiter = ratelimit.None
	})
}
