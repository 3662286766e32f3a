package vault_test

import (
	"encoding/json"
	"testing"
)

// field is a text in the data of an answer.
func field(t *testing.T, answer []byte, name string) string {
	t.Helper()
	var a struct{ Data map[string]any }
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatal(err)
	}
	text, ok := a.Data[name].(string)
	if !ok || text == "" {
		t.Fatalf("the answer has no %s", name)
	}
	return text
}
