package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/fault"
)

// InProcess calls the very handler that the listeners call, without a network: what the SDK's client gets for an embedded
// store. Its caller is the local administrator. Answers stream: what a handler flushes can be read at once, and closing
// the answer's body ends the handler.
func (s *Server) InProcess() http.RoundTripper { return &inProcess{s} }

type inProcess struct{ s *Server }

// RoundTrip answers one request. It keeps to the contract of http.RoundTripper.
func (t *inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.s.enter() {
		closeBody(req)
		return nil, fault.New(api.CodeUnavailable, "calling the store: it is closed")
	}
	ctx, cancel := context.WithCancel(context.WithValue(req.Context(), embeddedKey{}, true))
	r := req.WithContext(ctx)
	r.RemoteAddr, r.RequestURI = "", ""
	if r.Body == nil {
		r.Body = http.NoBody
	} else if r.ContentLength == 0 && r.Body != http.NoBody {
		r.ContentLength = -1 // a client's way to say that it doesn't know
	}
	a := newAnswer(cancel)
	go func() {
		defer t.s.leave()
		defer closeBody(req)
		a.serve(t.s.Handler(), r)
		cancel()
	}()
	select {
	case <-a.begun:
		return a.response(req), nil
	case <-req.Context().Done():
		cancel()
		return nil, req.Context().Err()
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// embeddedKey marks the context of a request that came in process. Nothing that arrives by a listener can carry it.
type embeddedKey struct{}

// embedded is the authn.Method of requests in process.
type embedded struct{ local *authn.Local }

// Name is "embedded".
func (embedded) Name() string { return authn.MethodEmbedded }

// Authenticate finds the mark of InProcess.
func (m embedded) Authenticate(ctx context.Context, r *http.Request) (*access.Principal, bool, error) {
	if r.Context().Value(embeddedKey{}) == nil || len(r.Header["Authorization"]) > 0 {
		return nil, false, nil
	}
	p, err := m.local.Principal(ctx)
	return p, true, err
}

// answer is the http.ResponseWriter of a request in process. What is written before the first Flush is gathered; from
// then on every Write waits for the reader, as on a slow connection.
type answer struct {
	header http.Header
	cancel context.CancelFunc
	begun  chan struct{} // closed when status and header are final: at the first Flush, or when the handler returned
	once   sync.Once

	// Owned by the handler's goroutine until begun is closed, by the reader of the response after that.
	status int
	sent   http.Header
	buf    bytes.Buffer

	pr *io.PipeReader
	pw *io.PipeWriter // nil until the first Flush; the handler's goroutine's
}

func newAnswer(cancel context.CancelFunc) *answer {
	return &answer{header: http.Header{}, cancel: cancel, begun: make(chan struct{})}
}

// serve runs the handler. A panic is http.ErrAbortHandler by then, and cuts the answer short as it would a connection.
func (a *answer) serve(h http.Handler, r *http.Request) {
	whole := false
	defer func() {
		if !whole {
			_ = recover() // the handler logged and recorded it
			a.fail()
		}
	}()
	h.ServeHTTP(a, r)
	whole = true
	a.begin()
	if a.pw != nil {
		_ = a.pw.Close()
	}
}

func (a *answer) fail() {
	if a.pw == nil {
		a.Flush() // so that the reader gets what there is, and then the error
	}
	_ = a.pw.CloseWithError(io.ErrUnexpectedEOF)
}

// Header is what the handler fills in.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader fixes status and header.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.sent = status, a.header.Clone()
	}
}

// Write gathers, or hands over to the reader.
func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.pw != nil {
		return a.pw.Write(b)
	}
	return a.buf.Write(b)
}

// Flush lets the reader begin.
func (a *answer) Flush() {
	if a.pw != nil {
		return
	}
	a.pr, a.pw = io.Pipe()
	a.begin()
}

func (a *answer) begin() {
	a.WriteHeader(http.StatusOK)
	a.once.Do(func() { close(a.begun) })
}

func (a *answer) response(req *http.Request) *http.Response {
	res := &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Request: req, ContentLength: -1,
	}
	var body io.Reader = &a.buf
	if a.pr != nil {
		body = io.MultiReader(&a.buf, a.pr)
	} else {
		res.ContentLength = int64(a.buf.Len())
	}
	res.Body = &answerBody{Reader: body, answer: a}
	return res
}

// answerBody ends the handler when it is closed.
type answerBody struct {
	io.Reader
	answer *answer
}

// Close tells the handler that nobody reads on.
func (b *answerBody) Close() error {
	b.answer.cancel()
	if b.answer.pr != nil {
		_ = b.answer.pr.CloseWithError(context.Canceled)
	}
	return nil
}
