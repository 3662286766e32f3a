// Package demo is `keyturn demo`: the main job end to end, on this machine, in about a minute, with nothing but keyturn
// itself. A clinic's application with a SQLite database of fictitious patients goes on writing all the while; its table is
// encrypted, the key is rotated, the old version's destruction is refused, every row is re-encrypted, and only then is the
// destruction accepted; the audit log of it all is verified offline, and a ciphertext moved to another patient does not open.
//
// Every claim that it prints is checked: [Run] counts what the application wrote and compares every row at the end, and
// returns an error as soon as something did not hold. It works through the SDK's Client alone, as any program would; who
// opens the store and draws the progress bar is given in [Config].
package demo

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

// Config is one demo.
type Config struct {
	// Client works on a fresh store whose quiet time before a destruction (keys.destroyQuiet) is Quiet.
	Client *keyturn.Client
	Quiet  time.Duration
	// Dir is where the application's database and the exported audit log go; it exists and is kept.
	Dir string
	// AuditKey and Checkpoints are the store's files with the log's public key and its kept checkpoints.
	AuditKey, Checkpoints string
	// Out is told what happens, for people.
	Out io.Writer
	// Wait follows a job to its end and shows its progress.
	Wait func(ctx context.Context, job string) (api.Job, error)
	// Patients is the number of rows; 0 means 100,000.
	Patients int
}

const (
	keyName     = "phi"
	datasetName = "patients"
)

// demo is one run.
type demo struct {
	Config
	app   *clinic
	facts []string // what was shown, for the summary
}

// Run plays the whole demo and returns what was shown. An error means that a step failed or that one of its claims did not hold.
func Run(ctx context.Context, c Config) (shown []string, err error) {
	if c.Patients == 0 {
		c.Patients = 100_000
	}
	d := &demo{Config: c}
	start := time.Now()
	app, err := openClinic(ctx, filepath.Join(c.Dir, "clinic.db"), c.Client, c.Patients)
	if err != nil {
		return nil, err
	}
	defer app.close()
	d.app = app
	d.say("\nA clinic's database: %s, %d patients, all of them invented.", d.app.path, c.Patients)
	for i, s := range steps {
		d.say("\n%d. %s", i+1, s.title)
		if err := s.run(ctx, d); err != nil {
			return nil, fmt.Errorf("step %d (%s): %w", i+1, s.title, err)
		}
	}
	d.summary(time.Since(start))
	return d.facts, nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// command shows the command that does the same.
func (d *demo) command(line string) { d.say("   $ keyturn %s", line) }

// shown prints a fact that was checked, and keeps it for the summary.
func (d *demo) shown(format string, args ...any) {
	fact := fmt.Sprintf(format, args...)
	d.facts = append(d.facts, fact)
	d.say("   %s", fact)
}

func (d *demo) summary(took time.Duration) {
	d.say("\nShown in %d seconds:", int(took.Seconds()))
	for _, f := range d.facts {
		d.say("  - %s", f)
	}
	d.say("\nThe files lie in %s:", d.Dir)
	d.say("  clinic.db       the application's database; look: sqlite3 clinic.db 'SELECT id, substr(ssn, 1, 44) FROM patients LIMIT 3'")
	d.say("  keyturn/        the data directory; look: keyturn --dir %s status", filepath.Join(d.Dir, "keyturn"))
	d.say("  audit.jsonl     the exported log; keyturn audit verify audit.jsonl --key keyturn/audit.pub")
}

// claim turns something that did not hold into an error.
func claim(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("this did not hold: "+format, args...)
}
