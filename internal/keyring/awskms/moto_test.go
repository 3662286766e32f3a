package awskms_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/awsclient"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/mototest"
)

// account is an administrator's hands in the AWS account of a test.
type account struct {
	t *testing.T
	*kms.Client
}

func administer(t *testing.T, base, region string) account {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL", base)
	cfg, err := awsclient.Config(t.Context(), region, 10*limit)
	if err != nil {
		t.Fatal(err)
	}
	return account{t, kms.NewFromConfig(cfg)}
}

func (a account) key(alias string, in kms.CreateKeyInput) (arn string) {
	a.t.Helper()
	if in.KeyUsage == "" { // which AWS does by itself
		in.KeyUsage = types.KeyUsageTypeEncryptDecrypt
	}
	out, err := a.CreateKey(a.t.Context(), &in)
	if err != nil {
		a.t.Fatal(err)
	}
	if alias != "" {
		a.must(a.CreateAlias(a.t.Context(), &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: out.KeyMetadata.KeyId}))
	}
	return *out.KeyMetadata.Arn
}

// id is the last part of an ARN, which is all that moto takes in some calls.
func id(arn string) *string {
	_, id, _ := strings.Cut(arn, ":key/")
	return &id
}

func (a account) must(_ any, err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// A server that speaks AWS's protocol and that nobody here wrote: the suite, and the life of a key on the other side.
func TestMoto(t *testing.T) {
	mototest.Env(t)
	base := mototest.Start(t)
	a := administer(t, base, "us-east-1")
	one := a.key("alias/one", kms.CreateKeyInput{})
	two := a.key("alias/two", kms.CreateKeyInput{})
	t.Run("suite", func(t *testing.T) {
		keyringtest.ExerciseRemote(t, harness(base, "awskms:///alias/one?region=us-east-1", "awskms:///"+two))
	})
	t.Run("an alias that is pointed elsewhere", func(t *testing.T) {
		k, m := mustOpen(t, base, "awskms:///alias/one?region=us-east-1"), material.Random(32)
		blob, err := k.Wrap(t.Context(), m, binding)
		if err != nil {
			t.Fatal(err)
		}
		a.must(a.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String("alias/one"), TargetKeyId: &two}))
		if out, err := k.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) {
			t.Errorf("the key that was pinned: %v", err)
		}
		now := mustOpen(t, base, "awskms:///alias/one?region=us-east-1")
		if now.ID() == k.ID() {
			t.Error("the alias leads to another key, and the fingerprint is the same")
		}
		if _, err := now.Unwrap(t.Context(), blob, binding); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("the blob under what the alias leads to now: %v", err)
		}
		a.must(a.UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: aws.String("alias/one"), TargetKeyId: &one}))
	})
	t.Run("rotated in AWS", func(t *testing.T) {
		k, m := mustOpen(t, base, "awskms:///"+one), material.Random(32)
		blob, err := k.Wrap(t.Context(), m, binding)
		if err != nil {
			t.Fatal(err)
		}
		a.must(a.EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: id(one)}))
		again := mustOpen(t, base, "awskms:///"+one)
		if out, err := again.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) || again.ID() != k.ID() {
			t.Errorf("%v", err)
		}
	})
	t.Run("disabled, and deleted", func(t *testing.T) {
		arn := a.key("", kms.CreateKeyInput{})
		k, m := mustOpen(t, base, "awskms:///"+arn), material.Random(32)
		blob, err := k.Wrap(t.Context(), m, binding)
		if err != nil {
			t.Fatal(err)
		}
		a.must(a.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: id(arn)}))
		if _, err := open(t.Context(), t, base, "awskms:///"+arn); fault.CodeOf(err) != api.CodeWrongState {
			t.Errorf("opening a disabled key: %v", err)
		}
		a.must(a.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: id(arn)}))
		if out, err := k.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) {
			t.Errorf("enabled again: %v", err)
		}
		a.must(a.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: id(arn), PendingWindowInDays: aws.Int32(7)}))
		if _, err := open(t.Context(), t, base, "awskms:///"+arn); fault.CodeOf(err) != api.CodeWrongState {
			t.Errorf("opening a key that waits for its deletion: %v", err)
		}
	})
	t.Run("of another sort", func(t *testing.T) {
		for _, in := range []kms.CreateKeyInput{
			{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeEncryptDecrypt}, {KeySpec: types.KeySpecHmac256, KeyUsage: types.KeyUsageTypeGenerateVerifyMac},
		} {
			if _, err := open(t.Context(), t, base, "awskms:///"+a.key("", in)); fault.CodeOf(err) != api.CodeInvalid {
				t.Errorf("%s: %v", in.KeySpec, err)
			}
		}
	})
	t.Run("replicated to another region", func(t *testing.T) {
		arn := a.key("", kms.CreateKeyInput{MultiRegion: aws.Bool(true)})
		out, err := a.ReplicateKey(t.Context(), &kms.ReplicateKeyInput{KeyId: id(arn), ReplicaRegion: aws.String("eu-west-1")})
		if err != nil {
			t.Fatal(err)
		}
		primary, replica := mustOpen(t, base, "awskms:///"+arn), mustOpen(t, base, "awskms:///"+*out.ReplicaKeyMetadata.Arn)
		// moto's blobs have no room for the ids of such keys, so what one wraps the other's unwrapping isn't tried here.
		if primary.ID() != replica.ID() || primary.URL() == replica.URL() {
			t.Errorf("%s is %s, %s is %s", primary.URL(), primary.ID(), replica.URL(), replica.ID())
		}
	})
}
