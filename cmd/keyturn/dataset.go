package main

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
)

func datasetCommand(a *app) *cobra.Command {
	return noun("dataset", "Encrypt columns of a database, and move them from key version to key version",
		`A dataset is a table of yours with columns that hold ciphertexts. keyturn encrypts it while your application keeps writing,
re-encrypts it after a rotation, and counts what stands under which version.`,
		`  keyturn dataset add patients --db postgres://app@db.example.org/clinic --table patients --column ssn=phi
  keyturn dataset encrypt patients
  keyturn dataset census patients`,
		datasetAdd(a), datasetList(a), datasetShow(a), datasetRemove(a), datasetCensus(a),
		datasetRun(a, works["encrypt"]), datasetRun(a, works["reencrypt"]), datasetRun(a, works["verify"]), datasetRun(a, works["decrypt"]),
	)
}

func datasetAdd(a *app) *cobra.Command {
	var in api.AddDatasetRequest
	var dbFile string
	var columns, context []string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Register a table with columns that keyturn protects",
		Long: `Registers a table. Table, columns and primary key are looked at and nothing is changed. What work on the table will do to the
database is said in the notes.

The connection URL is sealed in the store and shown without its password. To keep a password off the command line, where
other users of the machine can read it, use --db-file or --db-env. The variable of --db-env is one of the server's, and its
name begins with KEYTURN_DATASET_: no other variable is read. Over the network, --db names no file or socket of the server and
no loopback or link-local address, under whatever name: such a database is named on the server's machine, or by --db-env.

Registering takes key.encrypt and key.decrypt on the key of every column beside dataset.write, because work on the table uses
them. An owner has all of it; a key-administrator runs what was registered, and registers only if he was made with
--allow key.encrypt --allow key.decrypt.

The context template binds every ciphertext to its place, so that one moved to another row doesn't open. {table}, {column},
{pk} and {pk.NAME} stand for the row's own; the default binds table, column and the whole primary key.`,
		Example: `  keyturn dataset add patients --db sqlite:///srv/clinic.db --table patients --column ssn=phi --column notes=phi
  keyturn dataset add orders --db-env KEYTURN_DATASET_ORDERS --table shop.orders --pk tenant,id --column card=pii --context tenant={pk.tenant} --context id={pk.id}`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Name = args[0]
			if len(columns) == 0 {
				return usage("column", "dataset add: no column is named").WithNext("name at least one --column COLUMN=KEY")
			}
			if err := a.databaseURL(cmd.Context(), &in, dbFile); err != nil {
				return err
			}
			if in.Columns, err = pairs("column", "COLUMN=KEY", columns); err != nil {
				return err
			}
			if in.Context, err = pairs("context", "NAME=TEMPLATE", context); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				d, err := s.AddDataset(cmd.Context(), in)
				return a.showDataset(d, err)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.DB, "db", "", "the database's `URL`: postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE (MariaDB too) or sqlite:///PATH")
	f.StringVar(&dbFile, "db-file", "", "read the database's URL from this `file`, or from stdin with -")
	f.StringVar(&in.DBEnv, "db-env", "", "the environment `variable` of the server that holds the database's URL, KEYTURN_DATASET_…")
	f.StringVar(&in.Table, "table", "", "the `table`, or SCHEMA.TABLE (required)")
	f.StringSliceVar(&in.PK, "pk", nil, "the primary key's `columns` (default: the table's own)")
	f.StringArrayVar(&columns, "column", nil, "a column and its key, `COLUMN=KEY`; may be repeated (required)")
	f.BoolVar(&in.Foreign, "foreign", false, "the values are ciphertexts of another system, for 'dataset encrypt --from' to open: don't measure them, and don't take them for plaintext")
	f.StringArrayVar(&context, "context", nil, "what every ciphertext is bound to, `NAME=TEMPLATE`; may be repeated")
	return cmd
}

// databaseURL fills in the connection, from one place exactly, and warns of a password that stands on the command line.
func (a *app) databaseURL(ctx context.Context, in *api.AddDatasetRequest, file string) error {
	given := 0
	for _, s := range []string{in.DB, in.DBEnv, file} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return usage("db", "dataset add: exactly one of --db, --db-file and --db-env names the database")
	}
	if file != "" {
		b, err := a.readInput(ctx, file, "database URL", 4096)
		if err != nil {
			return err
		}
		in.DB = strings.TrimSpace(string(b))
		return nil
	}
	if u, err := url.Parse(in.DB); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			a.note("keyturn: warning: other users of this machine can read the password in --db; use --db-file or --db-env")
		}
	}
	return nil
}

func datasetList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the datasets",
		Long:    "Lists every registered dataset with its table and columns.",
		Example: "  keyturn dataset list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.Datasets(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(list, func(t *table) {
					if len(list.Datasets) == 0 {
						t.line("No datasets yet. Register one: keyturn dataset add NAME")
						return
					}
					t.row("DATASET", "DATABASE", "TABLE", "COLUMNS")
					for _, d := range list.Datasets {
						t.row(d.Dataset, d.Database, d.Table, columnsOf(d))
					}
				})
			})
		},
	}
}

func columnsOf(d api.Dataset) string {
	var parts []string
	for _, c := range d.Columns {
		parts = append(parts, c.Column+"="+c.Key)
	}
	return strings.Join(parts, " ")
}

func datasetShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a dataset",
		Long:    "Shows a dataset: where it is, its columns and keys, and what its ciphertexts are bound to.",
		Example: "  keyturn dataset show patients",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				d, err := s.Dataset(cmd.Context(), args[0])
				return a.showDataset(d, err)
			})
		},
	}
}

func (a *app) showDataset(d api.Dataset, err error) error {
	if err != nil {
		return err
	}
	return a.show(d, func(t *table) {
		t.row("dataset", d.Dataset)
		t.row("database", d.Database)
		t.row("table", d.Table)
		t.row("primary key", strings.Join(d.PK, ", "))
		for _, c := range d.Columns {
			text := c.Column + " under key " + c.Key + " (" + c.Type + ")"
			if c.Foreign {
				text += ", added as another system's ciphertexts"
			}
			t.row("column", text)
		}
		for _, name := range slices.Sorted(maps.Keys(d.Context)) {
			t.row("context", name+"="+d.Context[name])
		}
		for _, n := range d.Notes {
			t.line("note: %s", n)
		}
	})
}

func datasetRemove(a *app) *cobra.Command {
	var yes, force bool
	var reason string
	return withFlags(&cobra.Command{
		Use: "remove NAME", Short: "Forget a dataset; its rows stay as they are",
		Long: `Forgets a dataset; its rows stay as they are. Refused (exit status 5) while values are left in it that stand under a key
version, or while that can't be counted: nothing would keep the version from being destroyed, and they would be lost. Who may
force the destruction of its keys forgets it all the same with --force and a reason; the audit log and reports of retirement
say so for good. Asks first.`,
		Example: "  keyturn dataset remove patients\n  keyturn dataset remove patients --force --reason \"the table was dropped\"",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if force && reason == "" {
				return usage("reason", "dataset remove: a reason is missing").WithNext("say --reason WHY, for the audit log")
			}
			if err := a.confirm(cmd.Context(), yes, "Forgetting dataset %s: its ciphertexts no longer keep a key version from being destroyed", printable(args[0])); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				remove := s.RemoveDataset
				if force {
					remove = func(ctx context.Context, name string) error { return s.RemoveDatasetAnyway(ctx, name, reason) }
				}
				if err := remove(cmd.Context(), args[0]); err != nil {
					return err
				}
				removed := struct {
					Removed string `json:"removed"`
				}{args[0]}
				return a.show(removed, func(t *table) { t.line("Dataset %s is forgotten.", args[0]) })
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
		cmd.Flags().BoolVar(&force, "force", false, "although values are left in it, or nobody knows; with a --reason")
		cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the audit log")
	})
}

func datasetCensus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "census NAME", Short: "Count what a dataset's values stand under now",
		Long: `Counts, in the database itself and after making it durable, how many values of each column stand under which key version, and
how many are null, still plaintext, or unreadable.`,
		Example: "  keyturn dataset census patients\n  keyturn dataset census patients --json | jq '.columns[].versions'",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				c, err := s.Census(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(c, func(t *table) { censusTable(t, c) })
			})
		},
	}
}

func censusTable(t *table, c api.Census) {
	t.line("%s: %s rows, counted %s", c.Dataset, grouped(c.Rows), cell(c.TakenAt))
	t.row("COLUMN", "STANDS UNDER", "STATE", "ROWS")
	for _, col := range c.Columns {
		for _, v := range col.Versions {
			t.row(col.Column, v.Key+" version "+cell(v.Version), v.State, v.Rows)
		}
		for _, other := range []struct {
			name string
			rows int64
		}{{"null", col.Null}, {"plaintext", col.Plaintext}, {"unreadable", col.Unreadable}} {
			if other.rows > 0 {
				t.row(col.Column, other.name, "", other.rows)
			}
		}
	}
}
