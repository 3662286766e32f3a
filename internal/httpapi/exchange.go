package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
)

// exchange is one request and its answer. It belongs to the goroutine that serves the request and goes back to a pool
// afterwards, with everything that could hold a secret overwritten.
type exchange struct {
	api    *API
	w      http.ResponseWriter
	r      *http.Request
	route  *Route         // nil until it was found
	caller *access.Caller // nobody until authenticate; not from the pool, so that a service may keep it
	params Params
	status int // of the answer; 0 until it was begun

	body    []byte // what was read of the request
	plain   []byte // hot routes: the plaintext, or the ciphertext's text
	out     []byte // the answer
	context envelope.Context
	hot     hotReader // its buffers
	large   bool      // holds one of the places for large bodies
}

// nobody is the caller of a public route.
var nobody = &access.Caller{}

// keptBuffer is the most bytes that a buffer may have and still go back to the pool.
const keptBuffer = 256 << 10

// Header values that never change, shared by all answers: net/http only reads them.
var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
	linesType   = []string{"application/x-ndjson"}
	noStore     = []string{"no-store"}
	noSniff     = []string{"nosniff"}
)

// reset makes the exchange ready for the pool. The buffers are cleared to their end: they held plaintexts.
func (x *exchange) reset() {
	pairs, spans := x.hot.pairs[:cap(x.hot.pairs)], x.hot.spans[:0]
	clear(pairs)
	*x = exchange{
		api: x.api, caller: nobody, body: wiped(x.body), plain: wiped(x.plain), out: wiped(x.out), context: x.context[:0],
		hot: hotReader{pairs: pairs[:0], spans: spans},
	}
}

func wiped(b []byte) []byte {
	if cap(b) > keptBuffer {
		clear(b)
		return nil
	}
	clear(b)
	return b[:0]
}

// json answers with v.
func (x *exchange) json(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	x.send(status, jsonType, append(b, '\n'))
	clear(b) // it may hold a data key
	return nil
}

// send writes the whole answer.
func (x *exchange) send(status int, contentType []string, body []byte) {
	h := x.w.Header()
	h["Content-Type"] = contentType
	x.begin(status, h)
	_, _ = x.w.Write(body) // whoever asked has gone; there is nobody to tell
}

// limitWriting gives whoever reads the answer patience, counted from now. Nothing lifts the limit at the answer's end: net/http
// flushes after the handler has returned, and even the smallest of pipelined answers waits once the kernel's buffers are
// full. The next request of the connection begins with a limit of its own.
func (x *exchange) limitWriting() {
	if w, ok := x.w.(interface{ SetWriteDeadline(time.Time) error }); ok { // in process there is no such limit
		_ = w.SetWriteDeadline(x.api.clock().Add(patience))
	}
}

// begin sends the status line and the headers that every answer has. The body is done with: its place is free for the
// next one, however slowly this answer is read.
func (x *exchange) begin(status int, h http.Header) {
	x.limitWriting()
	if x.large {
		x.body = wiped(x.body)
		x.leavePlace()
	}
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	if x.caller.RequestID != "" && x.caller.Principal != nil {
		h["X-Request-Id"] = []string{x.caller.RequestID}
	}
	x.status = status
	x.w.WriteHeader(status)
}

// Params is what a request says beside its body.
type Params struct {
	Name  string     // what stands in the place of the pattern's {…}
	query url.Values // each at most once, and declared by the row
}

// parseQuery reads the query strictly: every parameter must be declared by the row and appear once.
func parseQuery(raw string, declared []Param) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil || strings.Contains(raw, ";") {
		return nil, badField("query", "the query is not well-formed")
	}
	for name, values := range q {
		if !isDeclared(declared, name) {
			return nil, badField("query", "it has an unknown parameter; known are "+namesOf(declared))
		}
		if len(values) != 1 {
			return nil, badField(name, "the parameter appears twice")
		}
	}
	return q, nil
}

func isDeclared(declared []Param, name string) bool {
	for _, p := range declared {
		if p.Name == name {
			return true
		}
	}
	return false
}

func namesOf(declared []Param) string {
	if len(declared) == 0 {
		return "none"
	}
	var names []string
	for _, p := range declared {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}
