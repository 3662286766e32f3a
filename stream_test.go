package keyturn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
)

const problemText = `{"type":"about:blank","title":"unavailable","status":503,"code":"unavailable","detail":"reading the log"}`

func TestWatchJobYieldsEveryLine(t *testing.T) {
	c := NewClient(ok("{\"id\":\"j1\",\"done\":1}\n{\"id\":\"j1\",\"done\":2,\"state\":\"done\"}\n"))
	var done []int64
	for job, err := range c.WatchJob(context.Background(), "j1") {
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, job.Done)
	}
	if len(done) != 2 || done[1] != 2 {
		t.Errorf("got %v", done)
	}
}

func TestStreamsEndWithTheirError(t *testing.T) {
	ctx := context.Background()
	cut := &transport{answer: func(int, *http.Request) (*http.Response, error) {
		r := reply(200, "application/x-ndjson", "")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{}\n"), failing{}))
		return r, nil
	}}
	cases := []struct {
		name string
		tr   *transport
		good int
		code api.Code
	}{
		{"a problem half way", ok("{}\n{}\n" + problemText + "\n{}\n"), 2, api.CodeUnavailable},
		{"a cut connection", cut, 1, api.CodeUnavailable},
		{"a line that isn't JSON", ok("{}\nhunter2\n"), 1, api.CodeInternal},
		{"a refusal", &transport{answer: func(int, *http.Request) (*http.Response, error) {
			return problem(404, api.Problem{Code: api.CodeNotFound, Title: "no such job"}), nil
		}}, 0, api.CodeNotFound},
		{"a line over the limit", ok(`{"id":"` + strings.Repeat("x", maxLine) + "\"}\n"), 0, api.CodeUnavailable},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			good, errs := 0, []error{}
			for _, err := range NewClient(tc.tr).WatchJob(ctx, "j1") {
				if err != nil {
					errs = append(errs, err)
				} else {
					good++
				}
			}
			if good != tc.good || len(errs) != 1 || CodeOf(errs[0]) != tc.code {
				t.Fatalf("%d good lines, errors %v", good, errs)
			}
			if strings.Contains(errs[0].Error(), "hunter2") {
				t.Errorf("the error quotes the line: %v", errs[0])
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestLeavingAStreamClosesIt: the server sees the caller go.
func TestLeavingAStreamClosesIt(t *testing.T) {
	gone := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "{\"id\":\"j1\"}\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer srv.Close()
	c, err := Dial(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, err := range c.WatchJob(context.Background(), "j1") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	<-gone
}

// TestExportIsCopiedByteForByte, and a failure half way is an error and no line of the file.
func TestExportIsCopiedByteForByte(t *testing.T) {
	ctx := context.Background()
	const lines = "{\"timestamp\":\"a\",\"shard\":0,\"index\":0}\n{\"timestamp\" : \"b\",\"shard\":0,\"index\":1}\n"
	var out bytes.Buffer
	n, err := NewClient(ok(lines)).ExportAudit(ctx, &out, AuditQuery{})
	if err != nil || out.String() != lines || n != int64(len(lines)) {
		t.Errorf("copied %d bytes, %v: %s", n, err, out.String())
	}
	out.Reset()
	if _, err = NewClient(ok(lines+problemText+"\n")).ExportAudit(ctx, &out, AuditQuery{}); CodeOf(err) != api.CodeUnavailable || strings.Contains(out.String(), "about:blank") {
		t.Errorf("a failure half way: %v, %s", err, out.String())
	}
	if _, err = NewClient(ok(lines)).ExportAudit(ctx, full{}, AuditQuery{}); CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a full disk: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
