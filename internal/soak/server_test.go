package soak

import (
	"bytes"
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/proctest"
)

// TestCampaignKillServer kills a serving process at random moments under load from several clients: every answer that
// a client got has its audit event, and every ciphertext in it opens (P1, P2, FAULTS row 1).
func TestCampaignKillServer(t *testing.T) {
	beside(t)
	rng, seed := Seed(t)
	budget := NewBudget(t, 15)
	k := New(t)
	server := k.node("keyturn")
	t.Cleanup(server.Stop)
	var mu sync.Mutex
	acked := map[string]string{} // n -> ciphertext
	next, kills := 0, 0
	for i := 0; budget.More(i); i++ {
		server.Start()
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				client, err := keyturn.Dial(server.Socket, keyturn.WithRetries(0))
				if err != nil {
					t.Errorf("dialling: %v", err)
					return
				}
				defer client.Close()
				for ctx.Err() == nil {
					mu.Lock()
					next++
					n := strconv.Itoa(next)
					mu.Unlock()
					out, err := client.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("plain " + n), Context: map[string]string{"n": n}})
					if err != nil {
						return // the server is gone
					}
					mu.Lock()
					acked[n] = out.Ciphertext
					mu.Unlock()
				}
			})
		}
		<-time.After(time.Duration(50+rng.Int64N(450)) * time.Millisecond)
		server.Kill()
		kills++
		stop()
		wg.Wait()
	}
	export := string(k.OK(nil, "audit", "export"))
	contexts := map[string]bool{}
	for line := range strings.Lines(export) {
		if _, rest, ok := strings.Cut(line, `"context":{"n":"`); ok {
			n, _, _ := strings.Cut(rest, `"`)
			contexts[n] = true
		}
	}
	lines := make([]string, 0, len(acked))
	for n, sealed := range acked {
		if !contexts[n] {
			t.Fatalf("call n=%s was answered and is not in the audit log", n)
		}
		if len(lines) < 200 { // each needs a command of its own: contexts differ
			lines = append(lines, n+" "+sealed)
		}
	}
	for _, line := range lines[:min(len(lines), 40)] {
		n, sealed, _ := strings.Cut(line, " ")
		if out := k.OK([]byte(sealed), "decrypt", "phi", "--context", "n="+n); string(out) != "plain "+n {
			t.Fatalf("answer n=%s opens to %q", n, out)
		}
	}
	assertStore(t, k)
	if len(acked) < kills {
		t.Fatalf("%d answers in %d rounds: the clients did not get to work", len(acked), kills)
	}
	Report("kill-server", seed, "%d kills, %d answers under load: all recorded, all sampled ones open", kills, len(acked))
}

// TestInterruptLeavesAResumableJob: Ctrl-C on a waiting `dataset reencrypt` ends it at once, says how to go on, and the
// same command finishes the work.
func TestInterruptLeavesAResumableJob(t *testing.T) {
	beside(t)
	k := New(t)
	path := filepath.Join(t.TempDir(), "app.db")
	newApplication(t, path)
	k.OK(nil, "dataset", "add", "patients", "--db", "sqlite://"+path, "--table", "patients", "--column", "ssn=phi")
	k.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	k.OK(nil, "key", "rotate", "phi")
	cmd := k.Command(within(t), "dataset", "reencrypt", "patients", "--rate", "200", "--batch-size", "20") // for 15 s, if nobody ended it
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.await(t, "rows") // the first progress line: the job is under way
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code <= 0 || code == 2 {
		t.Fatalf("after Ctrl-C: exit %d\n%s", code, out.String())
	}
	if text := out.String(); !strings.Contains(text, "dataset reencrypt patients") && !strings.Contains(text, "job ") {
		t.Fatalf("Ctrl-C does not say how to go on:\n%s", text)
	}
	k.OK(nil, "dataset", "reencrypt", "patients", "--unthrottled")
	assertOnlyActive(t, k)
}

// syncBuffer is a buffer that a process writes and a test awaits.
type syncBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	grew chan struct{}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grew != nil {
		close(b.grew)
		b.grew = nil
	}
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *syncBuffer) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(proctest.Patience)
	for {
		b.mu.Lock()
		if strings.Contains(b.buf.String(), text) {
			b.mu.Unlock()
			return
		}
		if b.grew == nil {
			b.grew = make(chan struct{})
		}
		grew := b.grew
		b.mu.Unlock()
		select {
		case <-grew:
		case <-deadline:
			t.Fatalf("%q was never printed:\n%s", text, b.String())
		}
	}
}
