package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// isTerminal says whether somebody is looking at w, or typing into it.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// readInput reads a whole value of at most limit bytes from a file, or from stdin when no file is named. At a terminal
// it asks for the value with the echo off.
func (a *app) readInput(ctx context.Context, file, what string, limit int) ([]byte, error) {
	if file != "" && file != "-" {
		f, err := openFile(file, "opening the input file", "in")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAll(f, what, limit)
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.err, "%s (not shown): ", what)
		return readHidden(ctx, int(f.Fd()), a.err)
	}
	return readAll(a.stdin(ctx), what, limit)
}

// readHidden reads a line from a terminal with the echo off. Ctrl-C ends it and gives the terminal its echo back.
func readHidden(ctx context.Context, fd int, echo io.Writer) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "reading from the terminal")
	}
	defer fmt.Fprintln(echo)
	type answer struct {
		line []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		done <- answer{line, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return nil, fault.Wrap(api.CodeInvalid, a.err, "reading from the terminal")
		}
		return a.line, nil
	case <-ctx.Done():
		_ = term.Restore(fd, before)
		return nil, fault.Wrap("", ctx.Err(), "reading from the terminal")
	}
}

// stdin is standard input as long as ctx lives: a read of the kernel's can't be called off, but nobody need wait for it.
func (a *app) stdin(ctx context.Context) *io.PipeReader {
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, a.in)
		_ = w.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	return r
}

// maxPrefetch is how much of standard input is read before a store is opened; what follows is read as it is used.
const maxPrefetch = 64 << 20

// prefetch reads standard input before the store is opened. In `keyturn encrypt … | keyturn decrypt …` both work on one
// directory: the right one would hold it, waiting for its input, and keep the left one from ever making it.
func (a *app) prefetch(ctx context.Context, file string) error {
	if file != "" && file != "-" || isTerminal(a.in) {
		return nil
	}
	in := a.stdin(ctx)
	head, err := io.ReadAll(io.LimitReader(in, maxPrefetch))
	if err != nil {
		return reading(err, "input")
	}
	a.in = io.MultiReader(bytes.NewReader(head), in)
	return nil
}

func readAll(r io.Reader, what string, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, reading(err, what)
	}
	if len(b) > limit {
		return nil, fault.Newf(api.CodeTooLarge, "reading the %s: it is longer than %d bytes", what, limit).
			WithField(what).WithNext(cmp.Or(tooLong[what], "look whether it is the right file"))
	}
	return b, nil
}

// tooLong says what to do with what may well be longer than the limit.
var tooLong = map[string]string{
	"plaintext": "split it, or seal it in your program with the SDK's Envelope",
	"details":   "shorten it; what is longer belongs into notes, or a file beside the report",
}

// input is a named file, or standard input.
func (a *app) input(ctx context.Context, file string) (io.ReadCloser, error) {
	if file == "" || file == "-" {
		return a.stdin(ctx), nil
	}
	return openFile(file, "opening the input file", "in")
}

// reading says what an error of an input means.
func reading(err error, what string) error {
	if errors.Is(err, syscall.EISDIR) {
		return fault.Newf(api.CodeInvalid, "reading the %s: it is a directory", what).WithField(what).WithNext("name a file in it")
	}
	if errors.Is(err, context.Canceled) {
		return fault.Wrapf(api.CodeCancelled, err, "reading the %s", what)
	}
	return fault.Wrapf(api.CodeUnavailable, err, "reading the %s", what)
}

// createPrivate makes a file that only its owner may read; one that exists is never overwritten.
func createPrivate(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fileFault(err, "making the output file", "out")
	}
	return f, nil
}

// openFile is os.Open with our errors.
func openFile(path, doing, field string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileFault(err, doing, field)
	}
	return f, nil
}

// fileFault says what went wrong with a file that the user named.
func fileFault(err error, doing, field string) error {
	code, next := api.CodeUnavailable, "see what the system says of it"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code, next = api.CodeNotFound, "look at the name: there is no such file or directory"
	case errors.Is(err, fs.ErrPermission):
		code, next = api.CodeDenied, "run as a user who may, or choose another place"
	case errors.Is(err, fs.ErrExist):
		code, next = api.CodeConflict, "name a new file: one that exists is never overwritten"
	}
	return fault.Wrap(code, err, doing).WithField(field).WithNext(next)
}

// toFile runs f with stdout sent to a file, when one is named: complete and on disk, or not there at all.
func (a *app) toFile(file string, f func() error) error {
	if file == "" || file == "-" {
		return f()
	}
	out, err := createPrivate(file)
	if err != nil {
		return err
	}
	before := a.out
	buffered := bufio.NewWriterSize(out, 64<<10)
	a.out = buffered
	err = f()
	a.out = before
	var partial exit
	if err == nil || errors.As(err, &partial) {
		if werr := errors.Join(buffered.Flush(), out.Sync()); werr != nil {
			err = writing(werr)
		}
	}
	if cerr := out.Close(); err == nil {
		err = writing(cerr)
	}
	if err != nil && !errors.As(err, &partial) {
		_ = os.Remove(file)
	}
	return err
}

// confirm asks before something that can't be taken back. Where nobody can answer, --yes is the answer.
func (a *app) confirm(ctx context.Context, yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	question := fmt.Sprintf(format, args...)
	if !a.interactive() {
		return usage("yes", "%s: this needs a confirmation", question).WithNext("say --yes to do it without being asked")
	}
	return ask(a.stdin(ctx), a.err, question)
}

// interactive says whether somebody is there to answer a question.
func (a *app) interactive() bool { return isTerminal(a.in) && a.terminal }

// ask puts a question and takes yes, and nothing else, for yes.
func ask(in io.Reader, out io.Writer, question string) error {
	fmt.Fprintf(out, "%s. Go on? [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && answer == "" {
		return fault.Wrap(api.CodeCancelled, err, "asking for a confirmation")
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return fault.New(api.CodeCancelled, "not confirmed: nothing was done")
	}
	return nil
}

// pairs reads repeated flags into a map; form says how each is written, such as NAME=VALUE.
func pairs(flag, form string, given []string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(given))
	for _, text := range given {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usage(flag, "reading --%s: it is written %s", flag, form)
		}
		if _, twice := m[name]; twice {
			return nil, usage(flag, "reading --%s: a name is given twice", flag)
		}
		m[name] = value
	}
	return m, nil
}
