package keyturn

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/url"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// maxLine bounds one line of a stream, in bytes.
const maxLine = 1 << 20

// stream yields the lines of an ndjson answer. The request is sent when the iteration begins; leaving the loop closes
// the connection. A line that holds a problem document ends it with that error: the status line was sent long before.
func stream[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		res, err := c.send(ctx, http.MethodGet, path, nil)
		if err != nil {
			yield(zero, err)
			return
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(make([]byte, 0, 64<<10), maxLine)
		for lines.Scan() {
			item, err := parseLine[T](lines.Bytes())
			if !yield(item, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(zero, broken(ctx, err))
		}
	}
}

func parseLine[T any](line []byte) (item T, err error) {
	if p, ok := problemLine(line); ok {
		return item, errorOf(p, p.Status)
	}
	if err := json.Unmarshal(line, &item); err != nil {
		return item, fault.Wrap(api.CodeInternal, err, "reading a line of the server's answer: it isn't the JSON that this client knows")
	}
	return item, nil
}

// problemLine recognises the problem document that ends a stream which failed half way.
func problemLine(line []byte) (p api.Problem, ok bool) {
	if !bytes.HasPrefix(line, []byte(`{"type":"about:blank"`)) {
		return p, false
	}
	return p, json.Unmarshal(line, &p) == nil && p.Code != ""
}

// copyTo writes an ndjson answer to w as it comes and returns the bytes written. Each line is looked at first, so that
// a failure half way is an error and no part of the file.
func (c *Client) copyTo(ctx context.Context, w io.Writer, path string) (n int64, err error) {
	res, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	out := bufio.NewWriterSize(w, 64<<10)
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		if p, ok := problemLine(lines.Bytes()); ok {
			return n, errorOf(p, p.Status)
		}
		m, err := out.Write(append(lines.Bytes(), '\n'))
		if n += int64(m); err != nil {
			return n, fault.Wrap(api.CodeUnavailable, err, "writing the answer")
		}
	}
	if err := lines.Err(); err != nil {
		return n, broken(ctx, err)
	}
	if err := out.Flush(); err != nil {
		return n, fault.Wrap(api.CodeUnavailable, err, "writing the answer")
	}
	return n, nil
}

// broken is a stream that ended in the middle.
func broken(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return fault.Wrap("", cause, "reading the server's answer")
	}
	return fault.Wrap(api.CodeUnavailable, err, "reading the server's answer: the connection ended in the middle")
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func query(q url.Values) string {
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}
