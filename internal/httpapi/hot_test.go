package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
)

// hotEncryptOf reads a body as the hot route does before it falls back.
func hotEncryptOf(x *exchange, body []byte) (in api.EncryptRequest, text string, ok bool) {
	h := &x.hot
	h.b, h.at = body, 0
	value, ok := h.document("plaintext")
	if !ok {
		return in, "", false
	}
	if in.Plaintext, ok = appendBase64([]byte{}, value); !ok {
		return in, "", false
	}
	in.Context = contextMap(h.pairs)
	return in, h.text, true
}

func TestHotReaderTakesTheUsualShape(t *testing.T) {
	for body, want := range map[string]string{
		`{"plaintext":"aGk="}`:                                                      "",
		`{"plaintext":"aGk=","context":{"patient":"17"}}`:                           `{"patient":"17"}`,
		`{"plaintext": "aGk=", "context": {"patient": "17"}}`:                       `{"patient":"17"}`,
		"{\n  \"context\": {\"b\":\"2\",\"a\":\"<&>\"},\n\"plaintext\":\"aGk=\"}\n": `{"a":"<&>","b":"2"}`,
		`{"plaintext":"aGk=","context":{}}`:                                         "",
		`{"plaintext":"aGk=","context":{"":""}}`:                                    `{"":""}`,
	} {
		in, text, ok := hotEncryptOf(&exchange{}, []byte(body))
		if !ok || string(in.Plaintext) != "hi" || text != want {
			t.Errorf("%s: %v, %q, %q", body, ok, in.Plaintext, text)
		}
	}
}

func TestHotReaderLeavesTheRest(t *testing.T) {
	for _, body := range []string{
		``, `{}`, `[]`, `{"plaintext":"aGk=",}`, `{"plaintext":"aGk="} x`, `{"plaintext":"aGk=","plaintext":"aGk="}`, `{"plaintext":"aGk"}`,
		`{"plaintext":"aGk=","nonce":"AAAA"}`, `{"plaintext":"aGk=","context":{"a":"1","a":"2"}}`, `{"plaintext":"aGk=","context":{"a":1}}`,
		`{"plaintext":"aGk=","context":null}`, `{"plaintext":"\u0061Gk="}`, `{"plaintext":"aGk=","context":{"é":"1"}}`, `{"Plaintext":"aGk="}`,
		`{"plaintext":"aGk=","context":{"a":"1",}}`, `{"plaintext":"aGk=","context":{},"context":{}}`, "{\"plaintext\":\"aG\nk=\"}", `{"plaintext":"aGk=`,
	} {
		if in, _, ok := hotEncryptOf(&exchange{}, []byte(body)); ok {
			t.Errorf("%s: accepted as %+v", body, in)
		}
	}
}

// FuzzHotAgainstStrict: what the hot reader accepts, the strict decoder accepts and reads the same, for single requests
// and for batches; and the text for the audit record is the context as encoding/json writes it.
func FuzzHotAgainstStrict(f *testing.F) {
	for _, seed := range []string{
		`{"plaintext":"aGk=","context":{"patient":"17","a":"b"}}`, `{"context":{"b":"2","a":"1"},"plaintext":""}`, `{ "plaintext" : "AAE=" }`,
		`{"plaintext":"aGk=","context":{"":"","x":"<&>"}}`, `{"plaintext":"AAF="}`, `{"plaintext":"aGk=","context":{"a":"1","a":"1"}}`,
		`{"ciphertext":"kt1.AAAA","context":{"a":"1"}}`,
	} {
		f.Add([]byte(seed))
	}
	single, many := planOf(reflect.TypeFor[api.EncryptRequest]()), planOf(reflect.TypeFor[api.EncryptBatchRequest]())
	f.Fuzz(func(t *testing.T, body []byte) {
		x := &exchange{}
		got, text, ok := hotEncryptOf(x, body)
		if ok {
			var want api.EncryptRequest
			if err := decodeStrict(body, &want, single, MaxTokens); err != nil {
				t.Fatalf("%q: hot accepts what strict refuses: %v", body, err)
			}
			if string(got.Plaintext) != string(want.Plaintext) || len(got.Context) != len(want.Context) || len(want.Context) > 0 && !reflect.DeepEqual(got.Context, want.Context) {
				t.Fatalf("%q: hot %+v, strict %+v", body, got, want)
			}
			checkText(t, text, want.Context)
		}
		batch := []byte(`{"items":[` + string(body) + `,` + string(body) + `]}`)
		x.body, x.hot.b, x.hot.at = batch, batch, 0
		var hot, strict api.EncryptBatchRequest
		if !x.encryptItems(&hot) {
			return
		}
		if err := decodeStrict(batch, &strict, many, MaxBatchTokens); err != nil {
			t.Fatalf("%q: hot accepts what strict refuses: %v", batch, err)
		}
		if len(hot.Items) != len(strict.Items) {
			t.Fatalf("%q: %d items, strict %d", batch, len(hot.Items), len(strict.Items))
		}
		for i, item := range hot.Items {
			if string(item.Plaintext) != string(strict.Items[i].Plaintext) || len(item.Context) != len(strict.Items[i].Context) {
				t.Fatalf("%q: item %d differs", batch, i)
			}
		}
	})
}

func checkText(t *testing.T, text string, context map[string]string) {
	if len(context) == 0 {
		if text != "" {
			t.Fatalf("the text of no context is %q", text)
		}
		return
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(text), &back); err != nil || !reflect.DeepEqual(back, context) {
		t.Fatalf("the text %q isn't the context %v", text, context)
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(context); err != nil || strings.TrimSuffix(b.String(), "\n") != text {
		t.Fatalf("the text is %q, encoding/json writes %q", text, b.String())
	}
}

// The two ways to read a body lead to the same call and the same answer.
func TestHotAndStrictAnswerAlike(t *testing.T) {
	r := newRig(t)
	for _, verb := range []string{"encrypt", "decrypt"} {
		member, value := "plaintext", "aGk="
		if verb == "decrypt" {
			member, value = "ciphertext", "kt1.AAAA"
		}
		usual := `{"` + member + `":"` + value + `","context":{"b":"2","a":"1"}}`
		odd := `{"` + strings.Replace(member, "text", `te\u0078t`, 1) + `":"` + value + `","context":{"\u0061":"1","b":"2"}}`
		for _, path := range []string{"/v1/keys/phi/" + verb, "/v1/keys/phi/" + verb + "/batch"} {
			one, two := usual, odd
			if strings.HasSuffix(path, "batch") {
				one, two = `{"items":[`+usual+`,`+usual+`,`+usual+`]}`, `{"items":[`+odd+`,`+usual+`,`+odd+`]}`
			}
			a, b := r.call("POST", path, one, goodToken), r.call("POST", path, two, goodToken)
			if a.Code != 200 || b.Code != 200 || a.Body.String() != b.Body.String() {
				t.Errorf("%s:\n%d %s\n%d %s", path, a.Code, a.Body, b.Code, b.Body)
			}
		}
	}
}

// What the append code writes is what encoding/json would read back.
func TestHotAnswersAreJSON(t *testing.T) {
	r := newRig(t)
	var one api.EncryptResponse
	decodeAnswer(t, r.call("POST", encryptPath, `{"plaintext":"aGk=","context":{"a":"1"}}`, goodToken), &one)
	bound, _ := envelope.NewContext(map[string]string{"a": "1"})
	if one.Version != 7 || one.Ciphertext != seal([]byte("hi"), bound, `{"a":"1"}`) {
		t.Errorf("%+v", one)
	}
	var opened api.DecryptResponse
	decodeAnswer(t, r.call("POST", "/v1/keys/phi/decrypt", `{"ciphertext":"kt1.AAAA"}`, goodToken), &opened)
	if opened.Version != 3 || !strings.HasPrefix(string(opened.Plaintext), "kt1.") {
		t.Errorf("%+v", opened)
	}
	item := `{"plaintext":"` + base64.StdEncoding.EncodeToString([]byte{0, 255, '"'}) + `"}`
	var many api.EncryptBatchResponse
	decodeAnswer(t, r.call("POST", encryptPath+"/batch", `{"items":[`+item+","+item+","+item+`]}`, goodToken), &many)
	if len(many.Items) != 3 || many.Items[1].Version != 1 || many.Items[2].Error == nil || many.Items[2].Error.Message != `"quoted" & <odd>` {
		t.Errorf("%+v", many)
	}
	var none api.DecryptBatchResponse
	decodeAnswer(t, r.call("POST", "/v1/keys/phi/decrypt/batch", `{"items":[]}`, goodToken), &none)
	if none.Items == nil || len(none.Items) != 0 {
		t.Errorf("%+v", none)
	}
	var failed api.DecryptBatchResponse
	decodeAnswer(t, r.call("POST", "/v1/keys/phi/decrypt/batch", `{"items":[{"ciphertext":"a"},{"ciphertext":"b"},{"ciphertext":"c"}]}`, goodToken), &failed)
	if len(failed.Items) != 3 || failed.Items[2].Error == nil || failed.Items[2].Error.Code != api.CodeIntegrity || failed.Items[0].Error != nil {
		t.Errorf("%+v", failed)
	}
}

func decodeAnswer(t *testing.T, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	dec := json.NewDecoder(w.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
}

// A pooled exchange carries nothing of the request before it.
func TestPoolCarriesNothingOver(t *testing.T) {
	r := newRig(t)
	r.call("POST", encryptPath, `{"plaintext":"`+base64.StdEncoding.EncodeToString([]byte("CANARY CANARY"))+`","context":{"CANARY":"CANARY"}}`, goodToken)
	x := r.pool.Get().(*exchange)
	for _, b := range [][]byte{x.body, x.plain, x.out} {
		if strings.Contains(string(b[:cap(b)]), "CANARY") || strings.Contains(string(b[:cap(b)]), "Q0FOQVJZ") {
			t.Errorf("a buffer still holds %q", b[:cap(b)])
		}
	}
	for _, p := range x.hot.pairs[:cap(x.hot.pairs)] {
		if p != (envelope.Pair{}) {
			t.Errorf("a pair is left: %v", p)
		}
	}
	if x.r != nil || x.w != nil || x.route != nil || x.caller != nobody || x.hot.b != nil {
		t.Errorf("%+v", x)
	}
}

func BenchmarkHotEncrypt(b *testing.B) {
	r := newRig(b)
	body := `{"plaintext":"` + base64.StdEncoding.EncodeToString(make([]byte, 64)) + `","context":{"patient":"17"}}`
	b.ReportAllocs()
	for b.Loop() {
		r.call("POST", encryptPath, body, goodToken)
	}
}
