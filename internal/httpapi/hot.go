package httpapi

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
)

// hotEncrypt answers …/encrypt without reflection: see hotReader.
func (a *API) hotEncrypt() handler {
	h := shaped[api.EncryptRequest, api.EncryptResponse](MaxTokens)
	h.serve = func(x *exchange) error {
		text, err := x.encryptRequest()
		if err != nil {
			return err
		}
		x.out = append(x.out[:0], `{"ciphertext":"`...)
		out, version, err := a.services.Crypto.Encrypt(x.r.Context(), x.caller, x.params.Name, x.plain, x.context, text, x.out)
		if err != nil {
			return err
		}
		x.out = appendVersion(out, version)
		x.send(http.StatusOK, jsonType, x.out)
		return nil
	}
	return h
}

// encryptRequest reads the body into x.plain and x.context and gives the context's text.
func (x *exchange) encryptRequest() (text string, err error) {
	if err := x.readBody(); err != nil {
		return "", err
	}
	x.api.decodes.Add(1)
	h := &x.hot
	h.b, h.at = x.body, 0
	if value, ok := h.document("plaintext"); ok {
		if x.plain, ok = appendBase64(x.plain[:0], value); ok {
			return x.bind(h.pairs, h.text)
		}
	}
	var in api.EncryptRequest
	if err := decodeStrict(x.body, &in, x.route.plan, x.route.maxTokens); err != nil {
		return "", err
	}
	x.plain = append(x.plain[:0], in.Plaintext...)
	clear(in.Plaintext)
	return x.bindMap(in.Context)
}

// hotDecrypt answers …/decrypt without reflection.
func (a *API) hotDecrypt() handler {
	h := shaped[api.DecryptRequest, api.DecryptResponse](MaxTokens)
	h.serve = func(x *exchange) error {
		ciphertext, text, err := x.decryptRequest()
		if err != nil {
			return err
		}
		plain, version, err := a.services.Crypto.Decrypt(x.r.Context(), x.caller, x.params.Name, ciphertext, x.context, text, x.plain[:0])
		if err != nil {
			return err
		}
		x.plain = plain
		x.out = append(slices.Grow(x.out[:0], base64.StdEncoding.EncodedLen(len(plain))+64), `{"plaintext":"`...)
		x.out = base64.StdEncoding.AppendEncode(x.out, plain)
		x.out = appendVersion(x.out, version)
		x.send(http.StatusOK, jsonType, x.out)
		return nil
	}
	return h
}

// decryptRequest reads the body into x.context and gives the ciphertext and the context's text.
func (x *exchange) decryptRequest() (ciphertext []byte, text string, err error) {
	if err := x.readBody(); err != nil {
		return nil, "", err
	}
	x.api.decodes.Add(1)
	h := &x.hot
	h.b, h.at = x.body, 0
	if value, ok := h.document("ciphertext"); ok {
		text, err = x.bind(h.pairs, h.text)
		return value, text, err
	}
	var in api.DecryptRequest
	if err := decodeStrict(x.body, &in, x.route.plan, x.route.maxTokens); err != nil {
		return nil, "", err
	}
	text, err = x.bindMap(in.Context)
	return []byte(in.Ciphertext), text, err
}

// bind brings the context into canonical form in x.context.
func (x *exchange) bind(pairs []envelope.Pair, text string) (string, error) {
	var err error
	x.context, err = envelope.AppendContext(x.context[:0], pairs)
	return text, err
}

func (x *exchange) bindMap(m map[string]string) (text string, err error) {
	pairs := x.hot.pairs[:0]
	for k, v := range m {
		pairs = append(pairs, envelope.Pair{Key: k, Value: v})
	}
	slices.SortFunc(pairs, byName)
	x.hot.pairs = pairs
	return x.bind(pairs, contextText(pairs))
}

// appendVersion ends an answer whose last member is a string still open.
func appendVersion(dst []byte, version uint32) []byte {
	dst = append(dst, `","version":`...)
	return append(strconv.AppendUint(dst, uint64(version), 10), '}', '\n')
}
