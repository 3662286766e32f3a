package embedded_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/embedded"
)

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if _, err := embedded.Open(dir); keyturn.CodeOf(err) != api.CodeNotFound {
		t.Errorf("where nothing is: %v", err)
	}
	c, err := embedded.Open(dir, embedded.Create())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	sealed, err := c.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := embedded.OpenContext(impatient, dir); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("while it is open: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	if _, err := c.Keys(t.Context(), "", 0); keyturn.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a call after the close: %v", err)
	}
	again, err := embedded.Open(dir, embedded.Create()) // Create is for the first time only
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if opened, err := again.Decrypt(t.Context(), "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext}); err != nil || string(opened.Plaintext) != "x" {
		t.Errorf("%q %v", opened.Plaintext, err)
	}
	who, err := again.WhoAmI(t.Context())
	if err != nil || who.Method != "embedded" || who.Role != "owner" {
		t.Errorf("%+v %v", who, err)
	}
}

// What Go says without a value is an empty one: nil plaintexts and nil batches go through the strict decoder.
func TestNilIsEmpty(t *testing.T) {
	c, err := embedded.Open(t.TempDir(), embedded.Create())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	sealed, err := c.Encrypt(t.Context(), "phi", api.EncryptRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := c.Decrypt(t.Context(), "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext}); err != nil || len(opened.Plaintext) != 0 {
		t.Errorf("%q %v", opened.Plaintext, err)
	}
	items, err := c.EncryptBatch(t.Context(), "phi", []api.EncryptRequest{{}, {Plaintext: []byte("x")}})
	if err != nil || items[0].Error != nil || items[1].Error != nil {
		t.Errorf("%+v %v", items, err)
	}
	none, err := c.DecryptBatch(t.Context(), "phi", nil)
	if err == nil && len(none) != 0 || err != nil && keyturn.CodeOf(err) != api.CodeInvalid {
		t.Errorf("%v %v", none, err)
	}
}

func TestOptions(t *testing.T) {
	t.Setenv("APP_MASTER_KEY", base64.StdEncoding.EncodeToString([]byte("thirty-two bytes of a test's key")))
	dir := t.TempDir()
	var log bytes.Buffer
	c, err := embedded.Open(dir, embedded.Create(), embedded.WithMasterKeys("env://APP_MASTER_KEY"), embedded.WithStore("sqlite"),
		embedded.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.MasterKeys(t.Context())
	if err != nil || len(list.MasterKeys) != 1 || list.MasterKeys[0].URL != "env://APP_MASTER_KEY" {
		t.Errorf("%+v %v", list, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "master.key")); err == nil {
		t.Error("a master key was made beside the one that was named")
	}
	t.Setenv("APP_MASTER_KEY", base64.StdEncoding.EncodeToString([]byte("another thirty-two bytes of key!")))
	if _, err := embedded.Open(dir); keyturn.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("with another master key: %v", err)
	}
}

// A job of an embedded store runs in this process, and following it streams while it does.
func TestStreamsAndManyCallers(t *testing.T) {
	c, err := embedded.Open(t.TempDir(), embedded.Create())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(t.Context())
	defer stop()
	seen := make(chan string, 1)
	go func() {
		for line, err := range c.TailAudit(following, true, keyturn.AuditQuery{Limit: 1}) {
			if err == nil && bytes.Contains(line, []byte(`"action":"encrypt"`)) {
				seen <- string(line)
				return
			}
		}
		close(seen)
	}()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			text := fmt.Sprint(i)
			sealed, err := c.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte(text)})
			if err != nil {
				t.Error(err)
				return
			}
			if opened, err := c.Decrypt(t.Context(), "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext}); err != nil || string(opened.Plaintext) != text {
				t.Errorf("%q %v", opened.Plaintext, err)
			}
		})
	}
	wg.Wait()
	for line := ""; line == ""; { // the follower may have begun after all sixteen
		select {
		case line = <-seen:
			if line == "" {
				t.Fatal("the stream ended without the event")
			}
		default:
			if _, err := c.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte{0}}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
