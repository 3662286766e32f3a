package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// canary is a password that must appear nowhere; it needs percent-encoding, so that both of its forms are searched for.
const (
	canary  = "C4n4ry/p@ss"
	encoded = "C4n4ry%2Fp%40ss"
)

// TestAdvisory_CVE_2024_6104_CVE_2023_46255_CVE_2026_40091: no way of printing an address prints its password.
func TestAdvisory_CVE_2024_6104_CVE_2023_46255_CVE_2026_40091(t *testing.T) {
	for _, text := range []string{
		"postgres://ann:" + encoded + "@db.example:5432/app?sslmode=verify-full",
		"postgres://:" + encoded + "@db.example/app",
		"postgres://ann@db.example/app?password=" + encoded,
		"postgres://ann@db.example/app?PassWord=" + encoded + "&sslpassword=" + encoded + "&passfile=/" + encoded,
		"postgres://ann@db.example/app#" + encoded,
	} {
		d, err := store.ParseDSN(text)
		if err != nil {
			t.Fatal(err)
		}
		if d.Reveal() != text {
			t.Error("Reveal isn't what was parsed")
		}
		for how, printed := range printings(t, d) {
			if strings.Contains(printed, "C4n4ry") || !strings.Contains(printed, "db.example") && !strings.Contains(how, "%w") {
				t.Errorf("%s gives %q", how, printed)
			}
		}
	}
	for _, text := range []string{"", "host=db user=ann password=" + canary, "postgres:" + canary, canary, "postgres://ann:" + canary + "%zz@db/app",
		"postgres://ann:" + encoded + "@db:port/app", "://" + encoded} {
		_, err := store.ParseDSN(text)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "url" || fault.NextOf(err) == "" {
			t.Errorf("a malformed address: %v, want invalid, its field and a next step", err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %s", err, err, fault.NextOf(err)), "C4n4ry") {
			t.Errorf("the error quotes the address: %v", err)
		}
	}
}

func printings(t *testing.T, d store.DSN) map[string]string {
	t.Helper()
	out := map[string]string{"String": d.String()}
	type wrapped struct{ D store.DSN }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%w"} {
		out[verb] = fmt.Sprintf(verb, d)
		out[verb+" of a struct"] = fmt.Sprintf(verb, wrapped{d})
		out[verb+" of a pointer"] = fmt.Sprintf(verb, &d)
	}
	for _, v := range []any{d, wrapped{d}, map[string]any{"d": d}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprintf("JSON of a %T", v)] = string(b)
	}
	var text, jsonLog bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "d", d, "w", wrapped{d})
	slog.New(slog.NewJSONHandler(&jsonLog, nil)).Info("m", "d", d, "w", wrapped{d})
	out["slog text"], out["slog JSON"] = text.String(), jsonLog.String()
	return out
}
