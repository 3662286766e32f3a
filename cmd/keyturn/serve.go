package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/server"
)

func serveCommand(a *app) *cobra.Command {
	var listen []string
	var acceptRows, acceptClock string
	return withFlags(&cobra.Command{
		Use: "serve", Short: "Run the server on the data directory",
		Long: `Serves the API until it is told to stop (Ctrl-C or SIGTERM), and runs the jobs. Beside the addresses of --listen it always
listens at the socket keyturn.sock in the data directory, which the commands on this machine find by themselves.

https:// makes a private authority in the directory tls/ when no certificate is configured; clients elsewhere are given its
ca.crt. http:// is for loopback addresses only. Its log goes to stderr. Every setting of keyturn.yaml can also be given in
the environment, as KEYTURN_LISTEN is.`,
		Example: `  keyturn serve
  keyturn serve --listen https://0.0.0.0:8420 --listen unix:///run/keyturn/keyturn.sock`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.directory()
			if err != nil {
				return err
			}
			set := map[string]any{}
			if len(listen) > 0 {
				set["listen"] = listen
			}
			for flag, reason := range map[string]string{"accept-rows": acceptRows, "accept-clock": acceptClock} {
				if err := kms.RefuseSecrets(flag, reason); err != nil {
					return err
				}
			}
			return a.serve(cmd.Context(), dir, server.Options{Set: set, AcceptRows: acceptRows, AcceptClock: acceptClock})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringArrayVar(&listen, "listen", nil, "listen at this `URL`: https://HOST:PORT, http://127.0.0.1:PORT or unix:///PATH; may be repeated (KEYTURN_LISTEN)")
		cmd.Flags().StringVar(&acceptRows, "accept-rows", "", "take the store's rows for right as they stand, for this `REASON`, which is recorded: see docs/runbooks/rows-set-back.md first")
		cmd.Flags().StringVar(&acceptClock, "accept-clock", "", "take the machine's clock for right although later times were seen, for this `REASON`, which is recorded: see docs/runbooks/clock.md first")
	})
}

// serve runs until ctx ends, then lets what runs come to its end. Being told to stop amid the start is no failure: whoever
// supervises the process would take it for a crash.
func (a *app) serve(ctx context.Context, dir string, opts server.Options) error {
	opts.Command, opts.LogTo = "keyturn serve", a.err
	err := serve(ctx, dir, opts)
	if ctx.Err() != nil && fault.CodeOf(err) == api.CodeCancelled {
		return nil
	}
	return err
}

func serve(ctx context.Context, dir string, opts server.Options) error {
	s, err := server.Open(ctx, dir, opts)
	if err != nil {
		return err
	}
	err = s.Serve(ctx)
	if cerr := s.Close(context.WithoutCancel(ctx)); err == nil {
		err = cerr
	}
	return err
}
