package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/demo"
	"github.com/keyturn/keyturn/internal/server"
)

// demoQuiet is how long a version must not have been opened before the demo's store lets it be destroyed. The default of
// an hour would make it a long demo.
const demoQuiet = 2 * time.Second

func demoCommand(a *app) *cobra.Command {
	var keep string
	var patients int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play the main job on this machine, in about a minute",
		Long: `Makes a clinic's SQLite database of invented patients and a data directory of its own, and plays the main job on them:
encrypt, rotate, destruction refused, re-encrypt while the application writes, census, verify, destruction accepted, audit
log verified offline. Every claim is checked; the command fails when one does not hold. Needs nothing, touches nothing else.`,
		Example: "  keyturn demo\n  keyturn demo --keep ./keyturn-demo --patients 10000",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := demoDir(keep)
			if err != nil {
				return err
			}
			return a.demo(cmd.Context(), dir, patients)
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "put the files into this new `directory` (default: one under the system's temporary directory)")
	cmd.Flags().IntVar(&patients, "patients", 100_000, "how many `rows` the clinic has")
	return cmd
}

// demoDir is an empty directory for the demo's files; they stay when it ends.
func demoDir(keep string) (string, error) {
	if keep == "" {
		dir, err := os.MkdirTemp("", "keyturn-demo-")
		return dir, writing(err)
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return "", usage("keep", "reading the name of the directory")
	}
	if err := os.Mkdir(dir, 0o700); os.IsExist(err) {
		return "", usage("keep", "making the directory for the demo: it exists already").WithNext("name one that doesn't")
	} else if err != nil {
		return "", writing(err)
	}
	return dir, nil
}

// played is what `demo --json` prints when every claim held.
type played struct {
	Dir   string   `json:"dir"`
	Shown []string `json:"shown"`
}

// told is where what people read goes: stdout, unless a program reads that.
func (a *app) told() io.Writer {
	if a.json {
		return a.err
	}
	return a.out
}

// demo makes a store in dir and plays on it, in this process.
func (a *app) demo(ctx context.Context, dir string, patients int) error {
	if patients < 1000 || patients > 10_000_000 {
		return usage("patients", "the clinic can have 1,000 to 10,000,000 patients")
	}
	kt := filepath.Join(dir, "keyturn")
	if _, err := server.Init(ctx, kt, server.InitOptions{}); err != nil {
		return err
	}
	s, err := a.openDir(ctx, kt, nil, map[string]any{"keys.destroyQuiet": demoQuiet.String()})
	if err != nil {
		return err
	}
	facts, err := demo.Run(ctx, demo.Config{
		Client: s.Client, Quiet: demoQuiet, Dir: dir, Out: a.told(), Patients: patients,
		AuditKey: filepath.Join(kt, server.AuditKeyFile), Checkpoints: filepath.Join(kt, server.CheckpointFile),
		Wait: func(ctx context.Context, id string) (last api.Job, err error) {
			bar := newProgress(a, "  ")
			defer func() { bar.end(last) }()
			for job, err := range s.WatchJob(ctx, id) {
				if err != nil {
					return last, err
				}
				last = job
				bar.update(job)
			}
			return last, ctx.Err()
		},
	})
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err == nil && a.json {
		err = a.show(played{dir, facts}, nil)
	}
	return err
}
