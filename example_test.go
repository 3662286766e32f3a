package keyturn_test

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	_ "modernc.org/sqlite"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

func ExampleDial() {
	c, err := keyturn.Dial("https://127.0.0.1:8420", keyturn.WithToken("kt_…"))
	if err != nil {
		message, field, _ := keyturn.Explain(err)
		fmt.Println(field+":", message)
		return
	}
	defer c.Close()
	// Output:
	// token: reading the token: it holds blanks or characters that no token has
}

func ExampleCodeOf() {
	c := exampleClient()
	_, err := c.Key(context.Background(), "nobody")
	if keyturn.CodeOf(err) == api.CodeNotFound {
		fmt.Println("no such key")
	}
	var e *keyturn.Error
	if errors.As(err, &e) {
		fmt.Println("next:", e.Next)
	}
	// Output:
	// no such key
	// next: keyturn key list
}

// A value that only few programs may see is sealed by the server, bound to the row that it belongs to.
func ExampleClient_Encrypt() {
	ctx, c := context.Background(), exampleClient()
	bound := map[string]string{"patient": "17"}
	sealed, err := c.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("900-05-1120"), Context: bound})
	if err != nil {
		fmt.Println(err)
		return
	}
	opened, err := c.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: sealed.Ciphertext, Context: bound})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s under version %d\n", opened.Plaintext, opened.Version)
	// Output:
	// 900-05-1120 under version 1
}

// Many or large values are sealed in this process, under data keys that the server hands out.
func ExampleEnvelope() {
	ctx := context.Background()
	env, err := keyturn.NewEnvelope(exampleClient(), keyturn.EnvelopeConfig{Key: "phi"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer env.Close()
	sealed, err := env.Seal(ctx, []byte("a long report"), map[string]string{"report": "2026-01"})
	if err != nil {
		fmt.Println(err)
		return
	}
	opened, err := env.Open(ctx, sealed, map[string]string{"report": "2026-01"})
	fmt.Println(sealed[:5], string(opened), err)
	_, err = env.Open(ctx, sealed, map[string]string{"report": "2026-02"})
	fmt.Println(keyturn.CodeOf(err))
	// Output:
	// kte1. a long report <nil>
	// integrity
}

// A column is ciphertext in the database and plaintext in the program. What is copied into another row doesn't open.
func ExampleColumn() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // an in-memory database lives in its connection
	if _, err := db.ExecContext(ctx, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT)`); err != nil {
		fmt.Println(err)
		return
	}
	env, err := keyturn.NewEnvelope(exampleClient(), keyturn.EnvelopeConfig{Key: "phi"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer env.Close()

	ssn := keyturn.NewColumn[string](env, map[string]string{"table": "patients", "column": "ssn"})
	if _, err := db.ExecContext(ctx, `INSERT INTO patients VALUES (17, $1), (18, NULL)`, ssn.Row(ctx, "id", "17").Of("900-05-1120")); err != nil {
		fmt.Println(err)
		return
	}
	got := ssn.Row(ctx, "id", "17").Empty()
	if err := db.QueryRowContext(ctx, `SELECT ssn FROM patients WHERE id = 17`).Scan(got); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("patient 17:", got.Plain, "but printed as", got)

	if _, err := db.ExecContext(ctx, `UPDATE patients SET ssn = (SELECT ssn FROM patients WHERE id = 17) WHERE id = 18`); err != nil {
		fmt.Println(err)
		return
	}
	other := ssn.Row(ctx, "id", "18").Empty()
	err = db.QueryRowContext(ctx, `SELECT ssn FROM patients WHERE id = 18`).Scan(other)
	fmt.Println("patient 18:", keyturn.CodeOf(err), other.Valid)
	// Output:
	// patient 17: 900-05-1120 but printed as [redacted]
	// patient 18: integrity false
}

// exampleClient stands for keyturn.Dial: these examples run without a server. It "seals" by encoding, which protects
// nothing.
func exampleClient() *keyturn.Client { return keyturn.NewClient(pretend{}) }

type pretend struct{}

func (pretend) RoundTrip(r *http.Request) (*http.Response, error) {
	var in struct {
		Plaintext  []byte
		Ciphertext string
		Context    map[string]string
	}
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			return nil, err
		}
	}
	status, kind, out := 200, "application/json", any(nil)
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/encrypt"):
		out = api.EncryptResponse{Ciphertext: "kt1." + base64.RawURLEncoding.EncodeToString(in.Plaintext), Version: 1}
	case strings.HasSuffix(path, "/datakey"):
		key := make([]byte, 32)
		out = api.DataKeyResponse{Plaintext: key, Ciphertext: "kt1." + base64.RawURLEncoding.EncodeToString(key), Version: 1}
	case strings.HasSuffix(path, "/decrypt"):
		plain, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(in.Ciphertext, "kt1."))
		if err != nil {
			return nil, err
		}
		out = api.DecryptResponse{Plaintext: plain, Version: 1}
	default:
		status, kind = 404, "application/problem+json"
		out = api.Problem{Type: "about:blank", Status: 404, Code: api.CodeNotFound, Title: "no such key", Next: "keyturn key list"}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
}
