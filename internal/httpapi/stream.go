package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// streamFlush is the longest that a line waits in the buffer of a stream.
const streamFlush = 100 * time.Millisecond

// patience is how long a reader may take for an answer, or for one write of a stream, before the connection is given up.
const patience = 30 * time.Second

// errDraining ends the streams of a server that stops.
var errDraining = fault.New(api.CodeUnavailable, "the server is stopping").WithNext("ask again when it is back")

// Drain ends every stream. Call it when the server begins to stop: ordinary requests end by themselves, streams don't.
func (a *API) Drain() { a.drain() }

// lineWriter writes the lines of a streamed answer. The status line goes out with the first byte, so that whatever fails
// before it is an ordinary problem document. One goroutine writes.
type lineWriter struct {
	x       *exchange
	rc      *http.ResponseController
	buf     *bufio.Writer
	flushed time.Time
}

// streamTo runs f with a writer of lines. If f fails half way, the last line is the problem document and the connection
// is cut, so that no reader takes a part for the whole.
func (x *exchange) streamTo(f func(context.Context, *lineWriter) error) error {
	w := &lineWriter{x: x, rc: http.NewResponseController(x.w)}
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	defer context.AfterFunc(x.api.draining, func() { cancel(errDraining) })()
	err := f(ctx, w)
	if err == nil && context.Cause(ctx) == error(errDraining) {
		err = errDraining // a follower takes the end of its context for the reader's wish
	}
	if w.buf == nil && err != nil {
		return err
	}
	w.start()
	if err == nil {
		return w.Flush()
	}
	if b, merr := json.Marshal(problem(err, x.caller.RequestID)); merr == nil {
		_, _ = w.Write(append(b, '\n'))
		_ = w.Flush()
	}
	panic(http.ErrAbortHandler)
}

func (w *lineWriter) start() {
	if w.buf != nil {
		return
	}
	h := w.x.w.Header()
	h["Content-Type"] = linesType
	w.x.begin(http.StatusOK, h)
	w.buf = bufio.NewWriterSize(w.x.w, 32<<10)
	w.flushed = w.x.api.clock()
}

// Write takes whole lines, or parts of them. They leave when the buffer is full, or at the first Write after
// streamFlush, or at Flush.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.start()
	if len(b) > w.buf.Available() {
		w.x.limitWriting() // some of it leaves now
	}
	n, err := w.buf.Write(b)
	if now := w.x.api.clock(); err == nil && now.Sub(w.flushed) > streamFlush {
		w.flushed = now
		err = w.Flush()
	}
	return n, err
}

// Flush sends what was written so far. Whoever waits for the next event calls it first.
func (w *lineWriter) Flush() error {
	w.start()
	w.x.limitWriting()
	if err := w.buf.Flush(); err != nil {
		return err
	}
	return w.rc.Flush()
}

// job writes one job as a line, at once.
func (w *lineWriter) job(j api.Job) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return err
	}
	return w.Flush()
}
