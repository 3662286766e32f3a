package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
)

func principalCommand(a *app) *cobra.Command {
	return noun("principal", "Make those who may ask: people and programs",
		`A principal has a role, a scope of resources, and bearer tokens. A token is shown once, when it is made, and kept as a hash.
Nobody grants what he lacks himself.`,
		`  keyturn principal create shop --role application --scope key/phi
  keyturn principal disable shop`,
		principalCreate(a), principalList(a), principalShow(a), principalDisable(a), principalToken(a),
	)
}

func principalCreate(a *app) *cobra.Command {
	var in api.CreatePrincipalRequest
	var out string
	return withFlags(&cobra.Command{
		Use: "create NAME", Short: "Make a principal and its first token, shown this once",
		Long: `Makes a principal and prints its token on stdout, this once. A program is best given it in a file that it alone may read.
Roles are listed by 'keyturn role list'; a scope is "key/phi", "key/*" or "*".`,
		Example: `  keyturn principal create shop --role application --scope key/phi --out shop.token
  keyturn principal create audra --role auditor --json`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			if len(in.Scope) == 0 {
				in.Scope = []string{"*"} // the API's empty scope reaches nothing
			}
			return a.with(cmd.Context(), func(s *store) error {
				return a.toFile(out, func() error {
					p, err := s.CreatePrincipal(cmd.Context(), in)
					return a.showToken(p, err)
				})
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&out, "out", "", "write the token to this new `file` (0600) instead of stdout")
		cmd.Flags().StringVar(&in.Role, "role", "", "the `role` (required)")
		cmd.Flags().StringArrayVar(&in.Scope, "scope", nil, "a `resource` that the role reaches; may be repeated (default: all, \"*\")")
		cmd.Flags().StringArrayVar(&in.Allow, "allow", nil, "an `action` beyond the role's; may be repeated")
	})
}

// showToken prints a fresh token alone on stdout, so that it can be sent to a file.
func (a *app) showToken(p api.Principal, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.show(p, nil)
	}
	a.note("The token of %s (%s), shown this once:", printable(p.Principal), p.Role)
	return a.write([]byte(p.Token + "\n"))
}

func principalList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the principals",
		Long:    "Lists every principal with role and scope.",
		Example: "  keyturn principal list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.Principals(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(list, func(t *table) {
					t.row("PRINCIPAL", "ROLE", "SCOPE", "DISABLED", "CREATED")
					for _, p := range list.Principals {
						t.row(p.Principal, p.Role, strings.Join(p.Scope, " "), p.Disabled, p.Created)
					}
				})
			})
		},
	}
}

func principalShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a principal",
		Long:    "Shows a principal: role, scope, and actions beyond the role's. Tokens can't be shown.",
		Example: "  keyturn principal show shop",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				p, err := s.Principal(cmd.Context(), args[0])
				return a.showPrincipal(p, err)
			})
		},
	}
}

func (a *app) showPrincipal(p api.Principal, err error) error {
	if err != nil {
		return err
	}
	return a.show(p, func(t *table) {
		t.row("principal", p.Principal)
		t.row("id", p.ID)
		t.row("role", p.Role)
		t.row("scope", strings.Join(p.Scope, " "))
		t.row("also", strings.Join(p.Allow, " "))
		t.row("disabled", p.Disabled)
		t.row("created", p.Created)
	})
}

func principalDisable(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "disable NAME", Short: "End a principal's rights and all its tokens",
		Long:    "Ends a principal's rights and every token of it at once. What it did stays in the audit log under its name.",
		Example: "  keyturn principal disable shop",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				p, err := s.DisablePrincipal(cmd.Context(), args[0])
				return a.showPrincipal(p, err)
			})
		},
	}
}

func principalToken(a *app) *cobra.Command {
	var out string
	return withFlags(&cobra.Command{
		Use: "token NAME", Short: "Make another token for a principal, shown this once",
		Long:    "Makes another token for a principal and prints it on stdout, this once. The earlier ones end at once.",
		Example: "  keyturn principal token shop --out shop.token",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				return a.toFile(out, func() error {
					p, err := s.NewToken(cmd.Context(), args[0])
					return a.showToken(p, err)
				})
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&out, "out", "", "write the token to this new `file` (0600) instead of stdout")
	})
}
