package keyturntest_test

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyturntest"
)

func TestNew(t *testing.T) {
	c := keyturntest.New(t, keyturntest.WithKey("phi"))
	context := map[string]string{"patient": "17"}
	sealed, err := c.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte("078-05-1120"), Context: context})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := c.Decrypt(t.Context(), "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext, Context: context})
	if err != nil || !bytes.Equal(opened.Plaintext, []byte("078-05-1120")) || opened.Version != 1 {
		t.Errorf("decrypted %q under version %d: %v", opened.Plaintext, opened.Version, err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing early: %v", err)
	}
}
