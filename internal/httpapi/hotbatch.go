package httpapi

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
)

// hotEncryptBatch answers …/encrypt/batch without reflection: see hotReader.
func (a *API) hotEncryptBatch() handler {
	h := shaped[api.EncryptBatchRequest, api.EncryptBatchResponse](MaxBatchTokens)
	h.serve = func(x *exchange) error {
		var in api.EncryptBatchRequest
		if err := x.batchRequest(&in, func() bool { return x.encryptItems(&in) }); err != nil {
			return err
		}
		out, err := a.services.Crypto.EncryptBatch(x.r.Context(), x.caller, x.params.Name, in)
		if err != nil {
			return err
		}
		x.out = appendEncryptItems(x.out[:0], out.Items)
		x.send(http.StatusOK, jsonType, x.out)
		return nil
	}
	return h
}

// hotDecryptBatch answers …/decrypt/batch without reflection.
func (a *API) hotDecryptBatch() handler {
	h := shaped[api.DecryptBatchRequest, api.DecryptBatchResponse](MaxBatchTokens)
	h.serve = func(x *exchange) error {
		var in api.DecryptBatchRequest
		if err := x.batchRequest(&in, func() bool { return x.decryptItems(&in) }); err != nil {
			return err
		}
		out, err := a.services.Crypto.DecryptBatch(x.r.Context(), x.caller, x.params.Name, in)
		if err != nil {
			return err
		}
		x.out = appendDecryptItems(x.out[:0], out.Items)
		x.send(http.StatusOK, jsonType, x.out)
		return nil
	}
	return h
}

// batchRequest reads the body and decodes it into in: by hot, or else strictly.
func (x *exchange) batchRequest(in any, hot func() bool) error {
	if err := x.readBody(); err != nil {
		return err
	}
	x.api.decodes.Add(1)
	x.hot.b, x.hot.at = x.body, 0
	if hot() {
		return nil
	}
	switch in := in.(type) {
	case *api.EncryptBatchRequest:
		*in = api.EncryptBatchRequest{}
	case *api.DecryptBatchRequest:
		*in = api.DecryptBatchRequest{}
	}
	return decodeStrict(x.body, in, x.route.plan, x.route.maxTokens)
}

// encryptItems reads a batch. The plaintexts are parts of x.plain, which is overwritten when the exchange ends; it is
// made long enough at once, since what base64 stands for is never longer than its text.
func (x *exchange) encryptItems(in *api.EncryptBatchRequest) bool {
	in.Items = make([]api.EncryptRequest, 0, itemsIn(x.body))
	x.plain = slices.Grow(x.plain[:0], len(x.body))
	return x.hot.items(func() bool {
		value, ok := x.hot.request("plaintext")
		if !ok {
			return false
		}
		from := len(x.plain)
		if x.plain, ok = appendBase64(x.plain, value); ok {
			in.Items = append(in.Items, api.EncryptRequest{Plaintext: x.plain[from:len(x.plain):len(x.plain)], Context: contextMap(x.hot.pairs)})
		}
		return ok
	})
}

func (x *exchange) decryptItems(in *api.DecryptBatchRequest) bool {
	in.Items = make([]api.DecryptRequest, 0, itemsIn(x.body))
	return x.hot.items(func() bool {
		value, ok := x.hot.request("ciphertext")
		if ok {
			in.Items = append(in.Items, api.DecryptRequest{Ciphertext: string(value), Context: contextMap(x.hot.pairs)})
		}
		return ok
	})
}

// itemsIn guesses the number of items, to make room for them at once.
func itemsIn(body []byte) int {
	return min(api.MaxBatchItems, bytes.Count(body, []byte(`text"`)))
}

func contextMap(pairs []envelope.Pair) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		m[p.Key] = p.Value
	}
	return m
}

// appendEncryptItems writes an api.EncryptBatchResponse. Ciphertexts are our own base64url, which needs no escapes.
func appendEncryptItems(dst []byte, items []api.EncryptBatchItem) []byte {
	dst = append(dst, `{"items":[`...)
	for i := range items {
		if item := &items[i]; item.Error != nil {
			dst = appendItemError(dst, item.Error)
		} else {
			dst = append(append(dst, `{"ciphertext":"`...), item.Ciphertext...)
			dst = appendItemVersion(dst, item.Version)
		}
	}
	return endItems(dst, len(items))
}

func appendDecryptItems(dst []byte, items []api.DecryptBatchItem) []byte {
	size := 16
	for i := range items {
		size += base64.StdEncoding.EncodedLen(len(items[i].Plaintext)) + 64
	}
	dst = append(slices.Grow(dst, size), `{"items":[`...) // at once: a buffer that is left behind wouldn't be overwritten
	for i := range items {
		if item := &items[i]; item.Error != nil {
			dst = appendItemError(dst, item.Error)
		} else {
			dst = base64.StdEncoding.AppendEncode(append(dst, `{"plaintext":"`...), item.Plaintext)
			dst = appendItemVersion(dst, item.Version)
			clear(item.Plaintext)
		}
	}
	return endItems(dst, len(items))
}

func appendItemVersion(dst []byte, version uint32) []byte {
	return append(strconv.AppendUint(append(dst, `","version":`...), uint64(version), 10), '}', ',')
}

// endItems closes the list over the last item's comma.
func endItems(dst []byte, n int) []byte {
	if n > 0 {
		dst = dst[:len(dst)-1]
	}
	return append(dst, ']', '}', '\n')
}

func appendItemError(dst []byte, e *api.BatchError) []byte {
	dst = append(append(append(dst, `{"error":{"code":"`...), e.Code...), '"')
	if e.Message != "" {
		var text bytes.Buffer
		writeText(&text, e.Message)
		dst = append(append(dst, `,"message":`...), text.Bytes()...)
	}
	return append(dst, '}', '}', ',')
}
