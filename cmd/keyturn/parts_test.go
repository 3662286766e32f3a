package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestParseMaterial(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16) // has + and / in base64
	for name, text := range map[string][]byte{
		"raw":     raw,
		"openssl": []byte(base64.StdEncoding.EncodeToString(raw) + "\n"),
		"Fernet":  []byte(base64.URLEncoding.EncodeToString(raw)),
		"raw url": []byte(" " + base64.RawURLEncoding.EncodeToString(raw) + "\r\n"),
		"raw std": []byte(base64.RawStdEncoding.EncodeToString(raw)),
	} {
		if got, err := parseMaterial(text); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	for name, text := range map[string][]byte{
		"empty": nil, "31 bytes": raw[:31], "33 bytes": append(raw, 1), "24 bytes in base64": []byte(base64.StdEncoding.EncodeToString(raw[:24])), "words": []byte("correct horse battery staple"),
	} {
		if _, err := parseMaterial(text); keyturn.CodeOf(err) != api.CodeInvalid || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UTC()
		for text, want := range map[string]time.Time{
			"":                          {},
			"24h":                       now.Add(-24 * time.Hour),
			"90s":                       now.Add(-90 * time.Second),
			"7d":                        now.Local().AddDate(0, 0, -7).UTC(),
			"2026-01-15T10:30:00Z":      time.Date(2026, 1, 15, 10, 30, 0, 0, time.UTC),
			"2026-01-15T10:30:00+02:00": time.Date(2026, 1, 15, 8, 30, 0, 0, time.UTC),
			"2026-01-15":                time.Date(2026, 1, 15, 0, 0, 0, 0, time.Local).UTC(),
		} {
			if got, err := parseWhen("since", text); err != nil || !got.Equal(want) {
				t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
			}
		}
	})
	for _, text := range []string{"yesterday", "-1h", "7dd", "7 d", "1.5d", "2026-13-01"} {
		if _, err := parseWhen("since", text); keyturn.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"rotate", "create", "compromise", "show"}
	for typed, want := range map[string]string{"rotat": "rotate", "rotaet": "rotate", "creat": "create", "co": "compromise", "shwo": "show", "xyz": "", "": "", strings.Repeat("r", 100): ""} {
		if got := nearest(typed, names); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}

// TestEditsIsADistance: zero for equal words only, the same both ways, and one more edit costs at most one.
func TestEditsIsADistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-c]{0,8}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := edits(a, b)
		if (d == 0) != (a == b) || d != edits(b, a) || d > max(len(a), len(b)) {
			t.Fatalf("edits(%q, %q) = %d, the other way %d", a, b, d, edits(b, a))
		}
		if e := edits(a+"x", b); e > d+1 || e < d-1 {
			t.Fatalf("one more character changes %d to %d", d, e)
		}
	})
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -4321: "-4,321"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// TestTableCells: what came from elsewhere can't steer a terminal.
func TestTableCells(t *testing.T) {
	var out bytes.Buffer
	tab := newTable(&out)
	tab.row("NAME", "STATE")
	tab.row("a\x1b[31m\nb", "", (*time.Time)(nil), time.Time{}, true)
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "NAME        STATE\na.[31m.b  -      -  -  yes\n"; strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") || strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 100)
	in := bufio.NewReaderSize(strings.NewReader("a\n\n"+long+"\nb\r\nlast"), 16)
	type line struct {
		text string
		long bool
	}
	var got []line
	for {
		text, tooLong, err := readLine(in, 50)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line{string(text), tooLong})
	}
	want := []line{{"a", false}, {"", false}, {"", true}, {"b\r", false}, {"last", false}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d: got %v, want %v", i+1, got[i], want[i])
		}
	}
}

// TestToFile: complete, or not there at all.
func TestToFile(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	a := newApp(nil, &out, io.Discard)
	good := filepath.Join(dir, "good")
	if err := a.toFile(good, func() error { return a.write([]byte("x")) }); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(good); err != nil || string(b) != "x" || out.Len() != 0 {
		t.Errorf("the file holds %q, %v; stdout %q", b, err, out.String())
	}
	failed := filepath.Join(dir, "failed")
	if err := a.toFile(failed, func() error { _ = a.write([]byte("x")); return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(failed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed command left a file: %v", err)
	}
	partly := filepath.Join(dir, "partly") // --lines with failed lines has still printed the others
	if err := a.toFile(partly, func() error { _ = a.write([]byte("x")); return exit(6) }); err != exit(6) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(partly); err != nil || string(b) != "x" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if err := a.toFile(good, func() error { return nil }); keyturn.CodeOf(err) != api.CodeConflict {
		t.Errorf("overwriting: %v", err)
	}
}

func TestProgressOffTheTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		p := newProgress(newApp(nil, io.Discard, &errs), "dataset reencrypt patients")
		for done := int64(0); done <= 10_000; done += 100 { // 100 rows every 100 ms: 1,000 rows/s
			p.update(api.Job{Done: done, Total: 10_000, State: "running"})
			time.Sleep(100 * time.Millisecond) // of synctest's clock
		}
		p.end(api.Job{Done: 10_000, Total: 10_000, State: "done"})
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		if len(lines) != 4 || strings.Contains(errs.String(), "\r") || strings.Contains(errs.String(), "[#") {
			t.Fatalf("want a plain line every 3 seconds of 10, got:\n%s", errs.String())
		}
		if want := "dataset reencrypt patients  3,000 of 10,000 rows (30 %), running  1,000 rows/s  about 7s left"; lines[1] != want {
			t.Errorf("got  %s\nwant %s", lines[1], want)
		}
	})
}

func TestProgressOnTheTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		a := newApp(nil, io.Discard, &errs)
		a.terminal = true
		p := newProgress(a, "x")
		for done := int64(0); done <= 100; done += 25 {
			p.update(api.Job{Done: done, Total: 100, State: "running"})
			time.Sleep(time.Second) // of synctest's clock
		}
		p.end(api.Job{Done: 100, Total: 100, State: "done"})
		if got := errs.String(); !strings.Contains(got, "[############............]  50 of 100 rows (50 %)") || !strings.HasSuffix(got, "done  20 rows/s\n") {
			t.Errorf("got %q", got)
		}
	})
}

func TestOutcomeOfAJob(t *testing.T) {
	verify := func(state string, n api.DatasetRun) api.Job {
		return api.Job{Kind: "dataset-verify", State: state, Run: &n}
	}
	cases := []struct {
		name   string
		job    api.Job
		status int
	}{
		{"done", api.Job{State: "done", Run: &api.DatasetRun{}}, 0},
		{"done without counts", api.Job{State: "done"}, 0},
		{"plaintext seen by other work", api.Job{Kind: "dataset-reencrypt", State: "done", Run: &api.DatasetRun{Plaintext: 1}}, 0},
		{"rows failed", api.Job{State: "done", Run: &api.DatasetRun{Failed: 1}}, api.ExitFailed},
		{"verified", verify("done", api.DatasetRun{Opened: 1, Null: 1, NotSampled: 1}), 0},
		{"verified and failed", verify("failed", api.DatasetRun{Failed: 1}), api.ExitIntegrity},
		{"values don't open", verify("done", api.DatasetRun{Failed: 1}), api.ExitIntegrity},
		{"values don't open, others aren't ours", verify("failed", api.DatasetRun{Failed: 1, Plaintext: 1}), api.ExitIntegrity},
		{"values aren't ours", verify("done", api.DatasetRun{Opened: 1, Plaintext: 1}), api.ExitRefused},
		{"failed for another reason", verify("failed", api.DatasetRun{Plaintext: 1}), api.ExitFailed},
		{"failed", api.Job{State: "failed"}, api.ExitFailed},
		{"cancelled", api.Job{State: "cancelled"}, api.ExitFailed},
		{"paused", api.Job{State: "paused"}, api.ExitRefused},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := keyturn.CodeOf(outcomeOf(tc.job)).ExitStatus(); got != tc.status {
				t.Errorf("got status %d, want %d", got, tc.status)
			}
		})
	}
}

// A dry run left nothing that a job could take up.
func TestADryRunIsNotRetried(t *testing.T) {
	for _, state := range []string{"done", "failed"} {
		next := fault.NextOf(outcomeOf(api.Job{ID: "01", State: state, Run: &api.DatasetRun{DryRun: true, Failed: 1}}))
		if strings.Contains(next, "retry") || !strings.HasSuffix(next, "the same command again") {
			t.Errorf("%s: %q", state, next)
		}
	}
}

// TestAsking: only a plain yes is one.
func TestAsking(t *testing.T) {
	for answer, want := range map[string]api.Code{
		"y\n": "", "yes\n": "", " YES \n": "", "y": "",
		"\n": api.CodeCancelled, "n\n": api.CodeCancelled, "yess\n": api.CodeCancelled, "": api.CodeCancelled,
	} {
		var out bytes.Buffer
		if err := ask(strings.NewReader(answer), &out, "Destroying version 1 of key phi"); keyturn.CodeOf(err) != want {
			t.Errorf("%q: %v", answer, err)
		}
		if out.String() != "Destroying version 1 of key phi. Go on? [y/N] " {
			t.Errorf("asked %q", out.String())
		}
	}
}

// TestCtrlCWhileWaitingForInput: a command that waits for its value ends at once, and says that it was interrupted.
func TestCtrlCWhileWaitingForInput(t *testing.T) {
	t.Setenv("KEYTURN_DIR", filepath.Join(t.TempDir(), "none"))
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	var out, errs bytes.Buffer
	ended := make(chan int)
	go func() { ended <- newApp(r, &out, &errs).run(ctx, []string{"inspect"}) }()
	if _, err := w.Write([]byte("kt1.")); err != nil { // it is reading now
		t.Fatal(err)
	}
	cancel()
	if status := <-ended; status != api.ExitFailed || out.Len() != 0 || !strings.Contains(errs.String(), "canceled") {
		t.Errorf("status %d, stderr %s", status, errs.String())
	}
}
