package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// A body of up to smallBody bytes whose length is announced is read at once. Every other one first takes one of
// largePlaces, so that however many callers send however much, bodies never hold more than about 40 MB together.
const (
	smallBody   = 16 << 10
	largePlaces = 32
)

var errTooLarge = fault.New(api.CodeTooLarge, "reading the request: the body is longer than 1 MiB").
	WithNext("send less at once: split the batch, or use local envelope encryption for large data")

// readBody reads the request's body into x.body. It is called once, after the caller is known.
func (x *exchange) readBody() error {
	if enc := x.r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return badField("Content-Encoding", "compressed bodies are not accepted")
	}
	n := x.r.ContentLength
	if n > api.MaxBody {
		return x.tooLarge()
	}
	if n < 0 || n > smallBody {
		if err := x.takePlace(); err != nil {
			return err
		}
	}
	if n >= 0 {
		x.body = x.body[:0]
		x.growBody(int(n))
		x.body = x.body[:n]
		_, err := io.ReadFull(x.r.Body, x.body)
		return readingBody(err)
	}
	return x.readUnannounced()
}

// readUnannounced reads a body whose length nobody said (chunked, or a stream of HTTP/2). It stops one byte over the limit.
func (x *exchange) readUnannounced() error {
	x.body = x.body[:0]
	for {
		if len(x.body) == cap(x.body) {
			x.growBody(max(smallBody, min(8*cap(x.body), api.MaxBody+1)))
		}
		n, err := x.r.Body.Read(x.body[len(x.body):min(cap(x.body), api.MaxBody+1)])
		x.body = x.body[:len(x.body)+n]
		switch {
		case len(x.body) > api.MaxBody:
			return x.tooLarge()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return readingBody(err)
		}
	}
}

// growBody gives x.body room for n bytes and overwrites the buffer that it leaves behind.
func (x *exchange) growBody(n int) {
	if cap(x.body) >= n {
		return
	}
	old := x.body
	x.body = append(make([]byte, 0, n), old...)
	clear(old[:cap(old)])
}

// tooLarge also ends the connection: reading the rest only to throw it away would be what the sender wants.
func (x *exchange) tooLarge() error {
	x.w.Header()["Connection"] = []string{"close"}
	return errTooLarge
}

// takePlace waits for a place for a large body; the place is given back when the exchange ends.
func (x *exchange) takePlace() error {
	select {
	case x.api.places <- struct{}{}:
		x.large = true
		return nil
	case <-x.r.Context().Done():
		return fault.Wrap("", context.Cause(x.r.Context()), "waiting to read the request")
	}
}

func (x *exchange) leavePlace() {
	if x.large {
		<-x.api.places
		x.large = false
	}
}

func readingBody(err error) error {
	var tooMany *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooMany):
		return errTooLarge
	}
	return fault.Wrap(api.CodeCancelled, err, "reading the request: the body ended early")
}

// decode reads the body and decodes it strictly into v, a pointer to the row's request type.
func (x *exchange) decode(v any) error {
	if err := x.readBody(); err != nil {
		return err
	}
	return x.decodeRead(v)
}

// decodeRead decodes what was read already.
func (x *exchange) decodeRead(v any) error {
	if len(x.body) == 0 && !x.route.plan.needsBody() {
		return nil
	}
	x.api.decodes.Add(1)
	return decodeStrict(x.body, v, x.route.plan, x.route.maxTokens)
}
