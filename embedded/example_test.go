package embedded_test

import (
	"context"
	"fmt"
	"os"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/embedded"
)

func Example() {
	dir, err := os.MkdirTemp("", "keyturn-example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	c, err := embedded.Open(dir, embedded.Create())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx := context.Background()
	if _, err := c.CreateKey(ctx, api.CreateKeyRequest{Name: "phi", Purpose: "phi", Period: "90d"}); err != nil {
		fmt.Println(err)
		return
	}
	patient := map[string]string{"patient": "17"}
	sealed, err := c.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("078-05-1120"), Context: patient})
	if err != nil {
		fmt.Println(err)
		return
	}
	opened, err := c.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext, Context: patient})
	fmt.Println(string(opened.Plaintext), opened.Version, err)
	_, err = c.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext, Context: map[string]string{"patient": "18"}})
	fmt.Println(err != nil)
	// Output:
	// 078-05-1120 1 <nil>
	// true
}
