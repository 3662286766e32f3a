package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// P3: the text of a foreign cause may quote the value that it choked on, and is never shown.
func TestErrorNeverShowsForeignText(t *testing.T) {
	const canary = "078-05-1120"
	foreign := errors.New("parsing " + canary)
	for name, err := range map[string]error{
		"direct":          fault.Wrap(api.CodeInvalid, foreign, "reading a row"),
		"inside ours":     fault.Wrap(api.CodeInternal, fault.Wrap(api.CodeInvalid, foreign, "reading a row"), "running a job"),
		"around by fmt":   fault.Wrap(api.CodeInternal, fmt.Errorf("row %s: %w", canary, fault.New(api.CodeInvalid, "reading a row")), "running a job"),
		"joined":          fault.Wrap(api.CodeInternal, errors.Join(foreign, fault.Wrap("", foreign, "reading a row")), "running a job"),
		"wrapping an os":  fault.Wrap(api.CodeUnavailable, &fs.PathError{Op: "open", Path: canary, Err: syscall.ENOENT}, "reading a row"),
		"context, quoted": fault.Wrap("", fmt.Errorf("%s: %w", canary, context.Canceled), "reading a row"),
	} {
		for _, text := range []string{err.Error(), fmt.Sprintf("%v", err), fmt.Sprintf("%s", err), fmt.Sprintf("%q", err), fault.MessageOf(err)} {
			if strings.Contains(text, canary) {
				t.Errorf("%s: shown: %s", name, text)
			}
			if !strings.Contains(text, "reading a row") {
				t.Errorf("%s: lost the message: %s", name, text)
			}
		}
	}
	if text := fault.MessageOf(foreign); strings.Contains(text, canary) {
		t.Errorf("MessageOf shows the text of an unclassified error: %s", text)
	}
}

// What comes from a fixed table holds no values and helps: people need to hear "no space left on device".
func TestErrorShowsTextsOfFixedTables(t *testing.T) {
	_, missing := os.Open(filepath.Join(t.TempDir(), "none"))
	for want, cause := range map[string]error{
		"writing: no such file or directory":  missing,
		"writing: no space left on device":    &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC},
		"writing: context canceled":           context.Canceled,
		"writing: context deadline exceeded":  fmt.Errorf("x: %w", context.DeadlineExceeded),
		"writing: locking: permission denied": fault.Wrap("", syscall.EACCES, "locking"),
		"writing":                             errors.New("x"),
	} {
		if got := fault.Wrap(api.CodeUnavailable, cause, "writing").Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCodeOf(t *testing.T) {
	inner := fault.New(api.CodeWrongState, "x")
	for _, c := range []struct {
		name string
		err  error
		want api.Code
	}{
		{"nil", nil, ""},
		{"unclassified", errors.New("x"), api.CodeInternal},
		{"cancelled", fmt.Errorf("x: %w", context.Canceled), api.CodeCancelled},
		{"timed out", context.DeadlineExceeded, api.CodeUnavailable},
		{"ours", inner, api.CodeWrongState},
		{"ours below fmt", fmt.Errorf("x: %w", inner), api.CodeWrongState},
		{"the outermost counts", fault.Wrap(api.CodeDenied, inner, "y"), api.CodeDenied},
		{"an empty code keeps the cause's", fault.Wrap("", inner, "y"), api.CodeWrongState},
		{"ours before context's", fault.Wrap(api.CodeBusy, context.Canceled, "y"), api.CodeBusy},
		{"wrapping nothing is never success", fault.Wrap(api.CodeDenied, nil, "y"), api.CodeInternal},
	} {
		if got := fault.CodeOf(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEveryCodeHasAnHTTPStatus(t *testing.T) {
	for _, code := range api.Codes() {
		status := fault.HTTPStatus(code)
		if status < 400 || status > 599 || status == 500 && code != api.CodeInternal {
			t.Errorf("%q is answered with %d", code, status)
		}
	}
	if fault.HTTPStatus("") != 200 || fault.HTTPStatus("made_up") != 500 {
		t.Error("no failure must be 200 and an unknown code 500")
	}
}

func TestRefinedSentinelStaysItself(t *testing.T) {
	sentinel := fault.New(api.CodeNotFound, "looking up a key")
	refined := sentinel.WithField("key").WithNext("keyturn key list")
	if sentinel.Field != "" || sentinel.Next != "" {
		t.Error("refining changed the sentinel")
	}
	if !errors.Is(fault.Wrap("", refined, "encrypting"), sentinel) {
		t.Error("a refined sentinel isn't recognised")
	}
	if errors.Is(sentinel, refined) || errors.Is(fault.New(api.CodeNotFound, "looking up a job"), sentinel) {
		t.Error("another failure is taken for the sentinel")
	}
}

func TestFieldAndNextComeFromTheOutermostThatHasOne(t *testing.T) {
	inner := fault.New(api.CodeInvalid, "a").WithField("inner").WithNext("do inner")
	err := fmt.Errorf("x: %w", fault.Wrap("", fault.Wrap("", inner, "b").WithField("middle"), "c"))
	if got := fault.FieldOf(err); got != "middle" {
		t.Errorf("field %q", got)
	}
	if got := fault.NextOf(err); got != "do inner" {
		t.Errorf("next %q", got)
	}
	if fault.FieldOf(errors.New("x")) != "" || fault.NextOf(nil) != "" {
		t.Error("a field or next step out of nothing")
	}
}

// Several problems of one request are one error, which names all of them and what to do about each.
func TestJoin(t *testing.T) {
	a := fault.New(api.CodeInvalid, "a is bad").WithField("a").WithNext("mend a")
	b := fault.New(api.CodeConflict, "b is bad").WithField("b")
	c := fault.Wrap("", fault.New(api.CodeInvalid, "it is bad").WithNext("mend it"), "reading c").WithField("c")
	if fault.Join() != nil || fault.Join(nil, nil) != nil || fault.Each(nil) != nil {
		t.Error("an error of nothing")
	}
	if err := fault.Join(nil, a); err != error(a) || len(fault.Each(err)) != 1 {
		t.Errorf("one alone became %v", err)
	}
	err := fault.Join(nil, fault.Join(a, b), c)
	if n := len(fault.Each(err)); n != 3 {
		t.Errorf("%d parts", n)
	}
	err = fault.Wrap("", err, "setting")
	if got, want := fault.MessageOf(err), "setting: a is bad; b is bad; reading c: it is bad"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "a" || fault.NextOf(err) != "a: mend a; c: mend it" {
		t.Errorf("%q %q", fault.FieldOf(err), fault.NextOf(err))
	}
	many := fault.Join(slices.Repeat([]error{a}, 25)...)
	if n := strings.Count(fault.MessageOf(many), "a is bad"); n != 20 || !strings.HasSuffix(fault.MessageOf(many), "; and 5 more") || len(fault.Each(many)) != 25 {
		t.Errorf("%d of 25 are named: %v", n, many)
	}
	if fault.NextOf(many) != "mend a" {
		t.Errorf("one field's next step became %q", fault.NextOf(many))
	}
}
