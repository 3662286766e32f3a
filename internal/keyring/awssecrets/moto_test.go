package awssecrets_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/awsclient"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/mototest"
)

// A server that speaks AWS's protocol and that nobody here wrote: the suite, and the life of a secret on the other side.
func TestMoto(t *testing.T) {
	mototest.Env(t)
	base := mototest.Start(t)
	t.Setenv("AWS_ENDPOINT_URL", base)
	cfg, err := awsclient.Config(t.Context(), "us-east-1", 10*limit)
	if err != nil {
		t.Fatal(err)
	}
	account := secretsmanager.NewFromConfig(cfg)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(account.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("one"), SecretString: aws.String(keyOne)}))
	must(account.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("app/two"), SecretString: aws.String(`{"master":"` + keyTwo + `"}`)}))
	const one = "awssecretsmanager:///one?region=us-east-1"
	t.Run("suite", func(t *testing.T) {
		keyringtest.ExerciseRemote(t, harness(base, one, "awssecretsmanager:///app/two?field=master&region=us-east-1"))
	})
	t.Run("generated", func(t *testing.T) { generates(t, base) })
	t.Run("rotated in AWS", func(t *testing.T) { // it is another master key then, and says so by its fingerprint
		before, err := open(t.Context(), t, base, one)
		if err != nil {
			t.Fatal(err)
		}
		staged := &secretsmanager.PutSecretValueInput{SecretId: aws.String("one"), SecretString: aws.String(keyTwo), VersionStages: []string{"AWSPENDING"}}
		must(account.PutSecretValue(t.Context(), staged))
		pending, err := open(t.Context(), t, base, one)
		if err != nil || pending.ID() != before.ID() {
			t.Errorf("a version that isn't current yet counts: %v", err)
		}
		must(account.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("one"), SecretString: aws.String(keyTwo)}))
		after, err := open(t.Context(), t, base, one)
		if err != nil || after.ID() == before.ID() {
			t.Errorf("the fingerprint didn't change: %v", err)
		}
	})
	t.Run("marked for deletion", func(t *testing.T) {
		must(account.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String("one"), RecoveryWindowInDays: aws.Int64(7)}))
		if _, err := open(t.Context(), t, base, one); fault.CodeOf(err) != api.CodeWrongState && fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%v", err)
		}
		must(account.RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String("one")}))
		if _, err := open(t.Context(), t, base, one); err != nil {
			t.Errorf("restored: %v", err)
		}
	})
}
