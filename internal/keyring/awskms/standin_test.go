package awskms_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

//go:embed testdata/recorded.json
var recordedJSON []byte

// recorded is what AWS answered to others; see testdata/README.md.
type recorded struct {
	Answers map[string]map[string]any
	Errors  []struct {
		From   string
		Status int
		Body   map[string]string
	}
}

func readRecorded(t *testing.T) recorded {
	t.Helper()
	var r recorded
	if err := json.Unmarshal(recordedJSON, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// standIn answers as recorded, where there is no server that nobody here wrote. Its keys encrypt for real.
type standIn struct {
	t        *testing.T
	recorded recorded
	keys     map[string]string // ARN by name; each ARN is a name too
}

const (
	oneARN = "arn:aws:kms:us-east-1:111111111111:key/11111111-1111-1111-1111-111111111111"
	twoARN = "arn:aws:kms:us-east-1:111111111111:key/22222222-2222-2222-2222-222222222222"
)

func startStandIn(t *testing.T) string {
	s := &standIn{t: t, recorded: readRecorded(t), keys: map[string]string{
		"alias/one": oneARN, "alias/two": twoARN, oneARN: oneARN, twoARN: twoARN, oneARN[len(oneARN)-36:]: oneARN,
	}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

type request struct {
	KeyId, EncryptionAlgorithm string
	Plaintext, CiphertextBlob  []byte
	EncryptionContext          map[string]string
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		s.t.Errorf("%s %s: %v", r.Method, r.Header.Get("Authorization"), err)
	}
	arn, ok := s.keys[in.KeyId]
	if !ok {
		s.fail(w, "NotFoundException")
		return
	}
	switch r.Header.Get("X-Amz-Target") {
	case "TrentService.DescribeKey":
		metadata := maps.Clone(s.recorded.Answers["describe"]["KeyMetadata"].(map[string]any))
		metadata["Arn"], metadata["KeyId"] = arn, arn[len(arn)-36:]
		s.answer(w, "describe", map[string]any{"KeyMetadata": metadata})
	case "TrentService.Encrypt":
		blob := seal(arn, in.Plaintext, in.EncryptionContext)
		s.answer(w, "encrypt", map[string]any{"KeyId": arn, "CiphertextBlob": append(prefix(arn), blob...)})
	case "TrentService.Decrypt":
		if len(in.CiphertextBlob) > 20 && !bytes.HasPrefix(in.CiphertextBlob, prefix(arn)) {
			s.fail(w, "IncorrectKeyException")
			return
		}
		plaintext, err := unseal(arn, in.CiphertextBlob, in.EncryptionContext)
		if err != nil {
			s.fail(w, "InvalidCiphertextException")
			return
		}
		s.answer(w, "decrypt", map[string]any{"KeyId": arn, "Plaintext": plaintext})
	default:
		s.t.Errorf("asked for %s", r.Header.Get("X-Amz-Target"))
	}
}

// answer writes a recorded answer with what matters in it replaced.
func (s *standIn) answer(w http.ResponseWriter, name string, with map[string]any) {
	body := maps.Clone(s.recorded.Answers[name])
	maps.Copy(body, with)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(body)
}

// fail writes the first recorded error of a name.
func (s *standIn) fail(w http.ResponseWriter, name string) {
	for _, e := range s.recorded.Errors {
		if e.Body["__type"] == name {
			writeError(w, e.Status, e.Body)
			return
		}
	}
	s.t.Errorf("no error %s is recorded", name)
}

func writeError(w http.ResponseWriter, status int, body map[string]string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func prefix(arn string) []byte {
	sum := sha256.Sum256([]byte(arn))
	return sum[:4]
}

func sealer(arn string) cipher.AEAD {
	key := sha256.Sum256([]byte("stand-in " + arn))
	block, _ := aes.NewCipher(key[:])
	aead, _ := cipher.NewGCMWithRandomNonce(block)
	return aead
}

func aad(context map[string]string) []byte {
	text, _ := json.Marshal(context) // sorted by key
	return text
}

func seal(arn string, plaintext []byte, context map[string]string) []byte {
	return sealer(arn).Seal(nil, nil, plaintext, aad(context))
}

func unseal(arn string, blob []byte, context map[string]string) ([]byte, error) {
	return sealer(arn).Open(nil, nil, bytes.TrimPrefix(blob, prefix(arn)), aad(context))
}
