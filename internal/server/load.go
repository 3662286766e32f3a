package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/go-playground/validator/v10"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
)

// envPrefix begins the name of every environment variable that sets a key.
const envPrefix = "KEYTURN_"

// otherEnv lists what else may begin with envPrefix: variables of the command line, of tests, of later rooms, and those
// that Kubernetes makes for a service called keyturn. An entry that ends in "_" stands for all that begin with it.
var otherEnv = []string{
	"KEYTURN_DIR", "KEYTURN_SERVER", "KEYTURN_TOKEN", "KEYTURN_TOKEN_FILE", "KEYTURN_CA", "KEYTURN_CA_FILE", "KEYTURN_MASTER_KEY", "KEYTURN_PKCS11_PIN",
	"KEYTURN_SECRETS_FILE", "KEYTURN_SECRETS_KEY", "KEYTURN_FAIL", "KEYTURN_SOAK", "KEYTURN_PORT",
	"KEYTURN_MASTER_KEY_", "KEYTURN_DATASET_", "KEYTURN_TEST_", "KEYTURN_SERVICE_", "KEYTURN_PORT_", "KEYTURN_SOAK_", "KEYTURN_BENCH_",
}

// LoadConfig reads the configuration of a data directory: the defaults, keyturn.yaml, the environment, and set, which
// holds the flags by configuration key; later wins. All problems are found at once; the error is of code invalid, with
// one problem a line, and quotes no value.
func LoadConfig(dir string, environ []string, set map[string]any) (Config, error) {
	var cfg Config
	all := settingsOf(&cfg)
	l := loader{settings: all, known: map[string]setting{}, merged: koanf.New("."), unread: map[string]bool{}}
	for _, s := range all {
		l.known[s.path] = s
	}
	l.file(filepath.Join(dir, ConfigFile))
	l.layer(set, "flag ") // before the environment is judged: a flag may name an env:// master key
	flags := l.merged.Get("masterKeys")
	l.environment(environ, flags)
	l.layer(set, "flag ")
	l.assign()
	l.validate(&cfg)
	return cfg, l.err()
}

// loader gathers layers and problems.
type loader struct {
	settings []setting
	known    map[string]setting
	merged   *koanf.Koanf
	problems []string
	unread   map[string]bool // settings, by path, that are not what was written and that no rule should judge; "" for the whole file
}

func (l *loader) problem(where, what string) { l.problems = append(l.problems, where+": "+what) }

// yamlLine finds the line in an error of the YAML parser; the rest of its text may quote what it choked on.
var yamlLine = regexp.MustCompile(`line (\d+)`)

func (l *loader) file(path string) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // whether there has to be one is not for us to say
		return
	case err != nil:
		l.problem(ConfigFile, "it can't be read: "+fault.Wrap("", err, "reading it").Error())
		l.unread[""] = true
		return
	}
	values, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		where := ConfigFile
		if m := yamlLine.FindString(err.Error()); m != "" {
			where += " " + m
		}
		l.problem(where, "it isn't well-formed YAML, or a key appears twice")
		l.unread[""] = true
		return
	}
	k := koanf.New(".")
	_ = k.Load(confmap.Provider(values, ""), nil) // from memory
	for _, path := range k.Keys() {
		if _, ok := l.known[path]; !ok && !strings.HasPrefix(path, policiesKey+".") { // whose members policiesOf looks at
			l.problem(ConfigFile, "`"+path+"` is not a key of the configuration")
		}
	}
	l.merge(k.All())
}

// layer merges settings given by their keys.
func (l *loader) layer(values map[string]any, where string) {
	for path := range values {
		if _, ok := l.known[path]; !ok {
			l.problem(where+path, "it is not a key of the configuration")
		}
	}
	l.merge(values)
}

func (l *loader) merge(values map[string]any) {
	_ = l.merged.Load(confmap.Provider(values, "."), nil) // from memory
}

// environment merges the KEYTURN_ variables. Words may be joined or not: KEYTURN_MASTERKEYS is KEYTURN_MASTER_KEYS.
func (l *loader) environment(environ []string, masters any) {
	values, unknown := map[string]any{}, []string(nil)
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || !strings.HasPrefix(name, envPrefix) {
			continue
		}
		i := slices.IndexFunc(l.settings, func(s setting) bool { return joined(s.env()) == joined(name) })
		if i >= 0 {
			values[l.settings[i].path] = value
		} else if !isOtherEnv(name) {
			unknown = append(unknown, name)
		}
	}
	l.merge(values)
	if m, ok := values["masterKeys"]; ok {
		masters = m
	}
	list, _ := listOf(masters)
	for _, name := range unknown {
		if !slices.Contains(list, "env://"+name) {
			l.problem("environment variable "+name, "it is not a key of the configuration")
		}
	}
}

// joined drops the underscores inside of words' boundaries but keeps those of nesting.
func joined(name string) string {
	parts := strings.Split(strings.TrimPrefix(name, envPrefix), "__")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "_", "")
	}
	return strings.Join(parts, "__")
}

func isOtherEnv(name string) bool {
	return slices.ContainsFunc(otherEnv, func(o string) bool {
		return name == o || strings.HasSuffix(o, "_") && strings.HasPrefix(name, o)
	})
}

// assign puts the merged values, or the defaults, into the fields.
func (l *loader) assign() {
	for _, s := range l.settings {
		raw := l.merged.Get(s.path)
		if raw == nil {
			raw = s.def
		}
		if err := s.set(raw); err != nil {
			l.unread[s.path] = true
			for _, one := range eachOf(err) {
				l.problems = append(l.problems, "`"+s.path+"` "+one.Error())
			}
		}
	}
}

// eachOf are the errors that errors.Join made one of.
func eachOf(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

// validate applies the rules of the tags to what could be read.
func (l *loader) validate(cfg *Config) {
	var broken validator.ValidationErrors
	if err := newValidator().Struct(cfg); err == nil || !errors.As(err, &broken) || l.unread[""] {
		return
	}
	for _, e := range broken {
		_, path, _ := strings.Cut(e.Namespace(), ".")
		if setting, _, _ := strings.Cut(path, "["); l.unread[setting] {
			continue
		}
		text := ruleText(e.Tag(), e.Param(), e.Kind())
		if e.Tag() == "cron" {
			_, err := jobs.ParseCron(fmt.Sprint(e.Value()), "")
			text += ": " + fault.MessageOf(err)
		}
		l.problems = append(l.problems, "`"+path+"` "+text)
	}
}

func (l *loader) err() error {
	switch len(l.problems) {
	case 0:
		return nil
	case 1:
		return badConfig(l.problems[0])
	}
	return badConfig("several problems:\n  " + strings.Join(l.problems, "\n  "))
}

func badConfig(text string) error {
	return fault.New(api.CodeInvalid, "reading the configuration: "+text).WithField("config").
		WithNext("docs/reference/configuration.md lists every key with its meaning and default")
}

// envSets says whether the environment holds the variable KEYTURN_name, in whatever spelling.
func envSets(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(entry string) bool {
		found, _, _ := strings.Cut(entry, "=")
		return strings.HasPrefix(found, envPrefix) && joined(found) == joined(envPrefix+name)
	})
}
