package keyturn

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// call sends a request and decodes the answer, again while that is safe and may help. repeatable says that sending the
// request twice does no more than sending it once.
func (c *Client) call(ctx context.Context, method, path string, in, out any, repeatable bool) error {
	body, err := encode(in)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		err := c.once(ctx, method, path, body, out)
		if !repeatable || attempt >= c.retries || !mayPass(err) || pause(ctx, attempt) != nil {
			return err
		}
	}
}

// read is a GET: it may be repeated.
func read[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.call(ctx, http.MethodGet, path, nil, &out, true)
	return out, err
}

// post is a POST that changes something: it is sent once.
func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, http.MethodPost, path, in, &out, false)
	return out, err
}

// compute is a POST that changes nothing but counters and the audit log, which records every attempt: it may be repeated.
func compute[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, http.MethodPost, path, in, &out, true)
	return out, err
}

// once is one request and its answer, within the timeout.
func (c *Client) once(ctx context.Context, method, path string, body []byte, out any) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer drain(res.Body)
	return decode(res, out)
}

// send performs the exchange up to the header of a good answer; whoever gets it closes its body.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(ctx, method, err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer drain(res.Body)
	return nil, refusal(res)
}

func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, errName
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, fault.Wrap(api.CodeInvalid, err, "making the request").WithField("path")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func encode(in any) ([]byte, error) {
	if in == nil {
		return nil, nil
	}
	if field, ok := notUTF8(reflect.ValueOf(in), ""); ok {
		return nil, fault.New(api.CodeInvalid, "encoding the request: the text is not UTF-8").WithField(field).WithNext("convert it to UTF-8")
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, fault.Wrap(api.CodeInvalid, err, "encoding the request")
	}
	return b, nil
}

// notUTF8 names the first text of a request that JSON can't carry: the encoder would put U+FFFD in the place of what it can't
// write, and something else than what was said would be kept.
func notUTF8(v reflect.Value, field string) (string, bool) {
	switch v.Kind() {
	case reflect.String:
		return field, !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return notUTF8(v.Elem(), field)
	case reflect.Struct:
		for f, value := range v.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || name == "-" {
				continue
			}
			if bad, ok := notUTF8(value, strings.TrimPrefix(field+"."+name, ".")); ok {
				return bad, true
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() { // whose names are the caller's own: an error doesn't quote them
			for _, part := range []reflect.Value{key, value} {
				if _, ok := notUTF8(part, field); ok {
					return field, true
				}
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 { // goes in base64
			return "", false
		}
		for i := range v.Len() {
			if bad, ok := notUTF8(v.Index(i), field+"["+strconv.Itoa(i)+"]"); ok {
				return bad, true
			}
		}
	}
	return "", false
}

// decode reads a good answer. The text of a JSON error may quote the answer, so it is never passed on.
func decode(res *http.Response, out any) error {
	if out == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fault.Wrap(codeOfTransport(err), err, "reading the server's answer")
	case len(b) > maxAnswer:
		return fault.New(api.CodeInternal, "reading the server's answer: it is longer than 64 MiB")
	}
	defer clear(b) // it may hold a key or a plaintext
	if err := json.Unmarshal(b, out); err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading the server's answer: it isn't the JSON that this client knows").
			WithNext("check that the address is a keyturn server's and as new as this program")
	}
	return nil
}

// refusal reads what a bad answer says of itself.
func refusal(res *http.Response) error {
	if res.StatusCode/100 == 3 {
		return &Error{Code: api.CodeInvalid, Status: res.StatusCode, Field: "server",
			Message: "calling the server: it answered with a redirect, which is never followed",
			Next:    "name the server by its own address"}
	}
	var p api.Problem
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "application/problem+json" {
		_ = json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&p)
	}
	if p.Detail == "" && p.Title == "" {
		p.Title = "calling the server: it answered " + http.StatusText(res.StatusCode)
	}
	return errorOf(p, res.StatusCode)
}

// unreachable is a failure below HTTP. The text of a transport's error names addresses only, but may hold whatever a
// proxy or resolver wrote: it stays the cause.
func unreachable(ctx context.Context, method string, err error) error {
	if cause := ctx.Err(); cause != nil {
		next := "jobs that were begun are not called off by this: keyturn job list"
		if method != http.MethodGet {
			next = "it may be done all the same: look, before asking again; " + next
		}
		return fault.Wrap("", cause, "calling the server").WithNext(next)
	}
	var badCert *tls.CertificateVerificationError
	if errors.As(err, &badCert) {
		return fault.Wrap(api.CodeUnavailable, err, "reaching the server: its certificate isn't trusted").
			WithField("server").WithNext("trust its authority: WithCAFile, or --ca FILE on the command line")
	}
	return fault.Wrap(codeOfTransport(err), err, "reaching the server").
		WithField("server").WithNext("check that it runs and listens at the address that was named")
}

func codeOfTransport(err error) api.Code {
	if errors.Is(err, context.Canceled) {
		return api.CodeCancelled
	}
	return api.CodeUnavailable
}

// mayPass says whether the same request may succeed a moment later.
func mayPass(err error) bool {
	switch CodeOf(err) {
	case api.CodeUnavailable, api.CodeBusy:
		return true
	}
	return false
}

// pause waits 100 ms, then 400 ms, then 1.6 s … before a repetition, or until ctx ends.
func pause(ctx context.Context, attempt int) error {
	timer := time.NewTimer(100 * time.Millisecond << (2 * min(attempt, 4)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// drain reads what is left of an answer, a little, so that the connection can be used again.
func drain(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10))
	_ = body.Close()
}

// route joins a path of fixed words and names. The server takes no percent escapes in a path, so that nothing between
// can read one differently; a name that would need one is no name, and makes the empty path, which request refuses.
func route(parts ...string) string {
	path := "/v1"
	for _, p := range parts {
		if strings.Trim(p, ".") == "" || strings.ContainsFunc(p, notInNames) {
			return ""
		}
		path += "/" + p
	}
	return path
}

func notInNames(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

// errName is what a name that can't be part of a path is refused with.
var errName = fault.New(api.CodeInvalid, "reading a name: it must begin with a lower-case letter or a digit and hold only those, '_', '.' and '-'").
	WithField("name")
