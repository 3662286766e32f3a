package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// configText is the keyturn.yaml that init writes: what was chosen, and the rest of the keys commented out with their
// defaults, so that nobody needs the manual to begin.
func configText(st DSN, masters []string) []byte {
	var b bytes.Buffer
	b.WriteString("# The configuration of this keyturn store. docs/reference/configuration.md explains every key.\n")
	b.WriteString("# An environment variable KEYTURN_… of the same name wins over this file, a flag over both.\n\n")
	fmt.Fprintf(&b, "store: %s\n", quoted(st.Reveal()))
	b.WriteString("masterKeys: # any one of them opens the store; keep a copy of each in a safe place\n")
	for _, m := range masters {
		fmt.Fprintf(&b, "  - %s\n", quoted(m))
	}
	var cfg Config
	section := ""
	for _, s := range settingsOf(&cfg) {
		if s.path == "store" || s.path == "masterKeys" {
			continue
		}
		group, name, nested := strings.Cut(s.path, ".")
		if !nested {
			fmt.Fprintf(&b, "# %s: %s\n", s.path, plain(s))
			continue
		}
		if group != section {
			section = group
			fmt.Fprintf(&b, "# %s:\n", group)
		}
		fmt.Fprintf(&b, "#   %s: %s\n", name, plain(s))
	}
	return b.Bytes()
}

// plain writes a setting's default as YAML has its type: a text quoted where it must be, a number bare, an empty list as one.
func plain(s setting) string {
	switch kind := s.value.Kind(); {
	case s.value.Type() == reflect.TypeFor[Policies](): // a mapping from names
		return "{}"
	case kind == reflect.Slice && s.def == "":
		return "[]"
	case s.value.CanInt() || s.value.CanUint() || s.value.CanFloat() || kind == reflect.Bool:
		return s.def
	}
	return quoted(s.def)
}

// quoted writes a text as YAML does.
func quoted(text string) string {
	b, err := yaml.Marshal(text)
	if err != nil {
		return fmt.Sprintf("%q", text)
	}
	return strings.TrimSpace(string(b))
}

// masterConfig is how kms changes the list of master keys: by editing keyturn.yaml, comments and all.
type masterConfig struct {
	dir     string
	environ []string // as it was at the start
	set     map[string]any
}

// Open opens the master key of a URL.
func (m masterConfig) Open(ctx context.Context, url string) (keyring.MasterKey, error) {
	return keyring.OpenURL(ctx, masterDrivers, url)
}

// Canonical is a URL as the master key that it names would spell it.
func (m masterConfig) Canonical(ctx context.Context, url string) string {
	return keyring.Canonical(ctx, masterDrivers, url)
}

// Save writes the list of master keys into keyturn.yaml. It refuses when the file isn't where the list comes from.
func (m masterConfig) Save(_ context.Context, urls []string) error {
	if err := m.Editable(); err != nil {
		return err
	}
	path := filepath.Join(m.dir, ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(api.CodeUnavailable, err, "reading "+ConfigFile)
	}
	edited, err := withMasterKeys(text, urls)
	if err != nil {
		return err
	}
	return writeFile(path, edited)
}

// Editable refuses when the list comes from the environment or a flag, since the file would not be read, and when it can't be
// written: a file as large is made beside it and taken away again. What a crash leaves of that, removeLeftovers deletes.
func (m masterConfig) Editable() error {
	_, flag := m.set["masterKeys"]
	if flag || envSets(m.environ, "MASTER_KEYS") {
		return fault.New(api.CodeConflict, "changing the master keys: the list comes from the environment or a flag, not from "+ConfigFile).
			WithField("masterKeys").WithNext("move the list into " + ConfigFile + ", then change it")
	}
	if err := tryFile(filepath.Join(m.dir, ConfigFile)); err != nil {
		return fault.Wrap("", err, "changing the master keys, which "+ConfigFile+" names").WithField("masterKeys").
			WithNext("have keyturn write into " + m.dir + "; or write the new list into " + ConfigFile + " by another way, start keyturn again, then: keyturn master rotate (for escrow://: keyturn escrow split)")
	}
	return nil
}

// withMasterKeys replaces the value of masterKeys in a YAML document and leaves everything else as it is written.
func withMasterKeys(text []byte, urls []string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fault.New(api.CodeInvalid, "editing "+ConfigFile+": it isn't well-formed YAML").WithField("config")
	}
	if doc.Kind == 0 {
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode, Tag: "!!map"}}}
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fault.New(api.CodeInvalid, "editing "+ConfigFile+": it is not a mapping").WithField("config")
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, u := range urls {
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: u})
	}
	place := -1
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "masterKeys" {
			place = i + 1
		}
	}
	if place < 0 {
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "masterKeys"}, list)
	} else {
		list.HeadComment, list.LineComment = root.Content[place].HeadComment, root.Content[place].LineComment
		root.Content[place] = list
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "editing "+ConfigFile)
	}
	return out.Bytes(), nil
}
