package main

import (
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/server"
)

// initialised is what `init --json` prints.
type initialised struct {
	Dir       string `json:"dir"`
	Store     string `json:"store"`
	StoreID   string `json:"storeId"`
	MasterKey string `json:"masterKey"`
	Principal string `json:"principal"`
	AuditKey  string `json:"auditKey"` // the file of the log's public key
}

func initCommand(a *app) *cobra.Command {
	var store, master string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a data directory: store, master key, first administrator, configuration",
		Long: `Makes a data directory with keyturn.yaml, the store, a master key and the first administrator, who is the user that runs
this command. The directory is 0700 and every file in it 0600. A directory that holds a store already is left as it is.

Without --master-key a new one is made in the file master.key: keep a copy of it in another place, for without it nothing
in the store opens.`,
		Example: `  keyturn init
  keyturn init --dir /var/lib/keyturn --master-key env://KEYTURN_MASTER_KEY
  keyturn init --store postgres://keyturn@db.example.org/keyturn --master-key file:///etc/keyturn/master.key`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.directory()
			if err != nil {
				return err
			}
			opts := server.InitOptions{Store: store}
			if master != "" {
				opts.MasterKeys = []string{master}
			}
			done, err := server.Init(cmd.Context(), dir, opts)
			if err != nil {
				return err
			}
			if !a.json && master == "" {
				a.note("Keep a copy of the master key in another place: without it nothing in the store opens.")
			}
			return a.show(initialised(done), func(t *table) {
				t.row("directory", done.Dir)
				t.row("store", done.Store)
				t.row("store id", done.StoreID)
				t.row("master key", done.MasterKey)
				t.row("administrator", done.Principal)
				t.row("audit key", done.AuditKey)
			})
		},
	}
	cmd.Flags().StringVar(&store, "store", "", "keep the store at this `URL`: sqlite (default), or postgres://USER@HOST/DATABASE")
	cmd.Flags().StringVar(&master, "master-key", "", "use the master key at this `URL`: env://NAME, file:///PATH, … (docs/providers)")
	return cmd
}
