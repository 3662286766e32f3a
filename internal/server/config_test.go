package server

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

var update = flag.Bool("update", false, "write the reference page anew")

// write makes a data directory with a keyturn.yaml.
func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ConfigFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

const minimal = "masterKeys: [\"env://KEYTURN_MASTER_KEY\"]\n"

func TestConfigDefaults(t *testing.T) {
	cfg, err := LoadConfig(write(t, minimal), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Store.Reveal() != "sqlite" || !slices.Equal(cfg.Listen, []string{"https://127.0.0.1:8420"}) || cfg.Environment != "production" ||
		cfg.Keys.DestroyQuiet != time.Hour || cfg.Jobs.Concurrency != 4 || cfg.Log.Level != "info" {
		t.Errorf("%+v", cfg)
	}
}

// A URL of RFC 7512 has ';', '&' and ':' in it; the list in the environment is separated by commas alone.
func TestHSMConfiguration(t *testing.T) {
	const hsm = "pkcs11:token=a;object=b%2Cc?module-path=/l.so&pin-source=file:/p"
	for name, c := range map[string]struct {
		yaml    string
		environ []string
	}{
		"plain":             {"masterKeys:\n  - " + hsm + "\n  - file:///k\n", nil},
		"quoted":            {"masterKeys: ['" + hsm + "', \"file:///k\"]\n", nil},
		"environment":       {minimal, []string{"KEYTURN_MASTER_KEYS=" + hsm + ", file:///k", "KEYTURN_PKCS11_PIN=1234"}},
		"as init writes it": {string(configText(NewDSN("sqlite"), []string{hsm, "file:///k"})), nil},
	} {
		cfg, err := LoadConfig(write(t, c.yaml), c.environ, nil)
		if err != nil || !slices.Equal(cfg.MasterKeys, []string{hsm, "file:///k"}) {
			t.Errorf("%s: %q, %v", name, cfg.MasterKeys, err)
		}
	}
	edited, err := withMasterKeys([]byte(minimal), []string{hsm})
	if err != nil {
		t.Fatal(err)
	}
	if cfg, err := LoadConfig(write(t, string(edited)), nil, nil); err != nil || !slices.Equal(cfg.MasterKeys, []string{hsm}) {
		t.Errorf("as master add writes it: %q, %v", cfg.MasterKeys, err)
	}
}

func TestLaterLayersWin(t *testing.T) {
	dir := write(t, minimal+"environment: file\njobs:\n  concurrency: 2\nlog:\n  level: warn\nkeys:\n  destroyQuiet: 2d\n")
	cfg, err := LoadConfig(dir, []string{
		"KEYTURN_ENVIRONMENT=environment", "KEYTURN_JOBS__CONCURRENCY=3", "KEYTURN_TLS__NAMES=a.example, b.example", "PATH=/bin",
		"KEYTURN_LISTEN=https://127.0.0.1:1,unix:///run/k.sock",
	}, map[string]any{"environment": "flag"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Environment != "flag" || cfg.Jobs.Concurrency != 3 || cfg.Log.Level != "warn" || cfg.Keys.DestroyQuiet != 48*time.Hour ||
		!slices.Equal(cfg.TLS.Names, []string{"a.example", "b.example"}) || len(cfg.Listen) != 2 {
		t.Errorf("%+v", cfg)
	}
	for _, name := range []string{"KEYTURN_MASTER_KEYS", "KEYTURN_MASTERKEYS"} {
		cfg, err := LoadConfig(dir, []string{name + "=file:///a,env://B"}, nil)
		if err != nil || !slices.Equal(cfg.MasterKeys, []string{"file:///a", "env://B"}) {
			t.Errorf("%s: %v, %v", name, cfg.MasterKeys, err)
		}
	}
}

// As the reference says: the environment has the whole mapping, in the place of the file's.
func TestPoliciesInTheEnvironment(t *testing.T) {
	dir := write(t, minimal+"policies:\n  file: {purpose: phi, period: 20d}\n")
	for _, text := range []string{`{"clinic": {"purpose": "phi", "period": "30d", "attempts": 3, "reencrypt": true}}`, "clinic: {purpose: phi, period: 30d, attempts: 3, reencrypt: true}",
		"clinic:\n  purpose: phi\n  period: 30d\n  attempts: 3\n  reencrypt: true\n"} {
		cfg, err := LoadConfig(dir, []string{"KEYTURN_POLICIES=" + text}, nil)
		if err != nil || len(cfg.Policies) != 1 {
			t.Fatalf("%s: %+v, %v", text, cfg.Policies, err)
		}
		if p := cfg.Policies[0]; p.Name != "clinic" || p.Purpose != "phi" || *p.Rule.Period != 30*24*time.Hour || p.Rule.Attempts != 3 || !*p.Rule.Reencrypt {
			t.Errorf("%s: %+v", text, p)
		}
	}
	if cfg, err := LoadConfig(dir, []string{"KEYTURN_POLICIES="}, nil); err != nil || len(cfg.Policies) != 0 {
		t.Errorf("empty: %+v, %v", cfg.Policies, err)
	}
}

func TestZeroAsADuration(t *testing.T) {
	for _, zero := range []string{"0", "0s", "0d"} {
		if cfg, err := LoadConfig(write(t, minimal+"keys: {destroyQuiet: "+zero+"}\n"), nil, nil); err != nil || cfg.Keys.DestroyQuiet != 0 {
			t.Errorf("%s: %v, %v", zero, cfg.Keys.DestroyQuiet, err)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		yaml    string
		environ []string
		set     map[string]any
		want    []string
	}{
		"unknown key":           {yaml: "listne: x\n", want: []string{"`listne` is not a key"}},
		"unknown nested key":    {yaml: "tls:\n  cert: x\n", want: []string{"`tls.cert` is not a key"}},
		"a section as a value":  {yaml: "tls: 5\n", want: []string{"`tls` is not a key"}},
		"a policy's member":     {yaml: "policies:\n  p: {key: k, periode: 1d}\n", want: []string{"`policies`", `"p"`, `"periode"`}},
		"a shipped policy":      {yaml: "policies:\n  default: {period: 1d}\n", want: []string{"`policies`", `"default"`, "shipped"}},
		"two about the same":    {yaml: "policies:\n  a: {purpose: phi, period: 1d}\n  b: {purpose: phi, warn: 1d}\n", want: []string{"`policies`", `"b"`, `"a"`, "same keys"}},
		"not YAML":              {yaml: "a: [CANARY\n", want: []string{"well-formed YAML"}},
		"twice":                 {yaml: "environment: CANARY\nenvironment: CANARY\n", want: []string{"appears twice"}},
		"no master key":         {yaml: "masterKeys: []\n", want: []string{"`masterKeys`", "at least 1"}},
		"master key pasted":     {yaml: "masterKeys: [\"CANARY\"]\n", want: []string{"`masterKeys[0]`", "URL of a master key"}},
		"unknown scheme":        {yaml: "masterKeys: [\"azurekv:///CANARY\"]\n", want: []string{"`masterKeys[0]`"}},
		"unknown store":         {yaml: minimal + "store: mysql://u:CANARY@h/d\n", want: []string{"`store` must be sqlite"}},
		"relative SQLite path":  {yaml: minimal + "store: sqlite://CANARY/x\n", want: []string{"`store`"}},
		"plain HTTP abroad":     {yaml: minimal + "listen: http://0.0.0.0:80\n", want: []string{"`listen[0]`", "loopback"}},
		"plain HTTP to a name":  {yaml: minimal + "listen: http://myhost:80\n", want: []string{"`listen[0]`"}},
		"no port":               {yaml: minimal + "listen: https://localhost\n", want: []string{"`listen[0]`"}},
		"relative socket":       {yaml: minimal + "listen: unix://k.sock\n", want: []string{"`listen[0]`"}},
		"address with password": {yaml: minimal + "listen: https://u:CANARY@h:1\n", want: []string{"`listen[0]`"}},
		"debug abroad":          {yaml: minimal + "debug:\n  listen: 0.0.0.0:6060\n", want: []string{"`debug.listen`", "loopback"}},
		"relative paths":        {yaml: minimal + "tls:\n  certFile: c.pem\n  keyFile: ./k.pem\naudit:\n  checkpointFile: logs/checkpoints.log\n", want: []string{"`tls.certFile`", "`tls.keyFile`", "`audit.checkpointFile`", "absolute"}},
		"half a certificate":    {yaml: minimal + "tls:\n  certFile: /c.pem\n", want: []string{"`tls.keyFile`", "given together"}},
		"level":                 {yaml: minimal + "log:\n  level: CANARY\n", want: []string{"`log.level`", "debug, info, warn, error"}},
		"duration":              {yaml: minimal + "keys:\n  destroyQuiet: CANARY\n", want: []string{"`keys.destroyQuiet` must be a duration", "90s"}},
		"duration, too short":   {yaml: minimal + "audit:\n  checkpointEvery: 1ms\n", want: []string{"`audit.checkpointEvery`"}},
		"number":                {yaml: minimal + "jobs:\n  concurrency: CANARY\n", want: []string{"`jobs.concurrency` must be a whole number"}},
		"number, too large":     {yaml: minimal + "jobs:\n  concurrency: 1000\n", want: []string{"`jobs.concurrency`", "at most 100"}},
		"text":                  {yaml: minimal + "environment: [CANARY]\n", want: []string{"`environment` must be text"}},
		"cron":                  {yaml: minimal + "rotation:\n  check: \"0 25 * * *\"\n", want: []string{"`rotation.check` must be a cron expression", "the hour takes 0 to 23"}},
		"unknown variable":      {yaml: minimal, environ: []string{"KEYTURN_LISTNE=CANARY"}, want: []string{"environment variable KEYTURN_LISTNE"}},
		"policies, no mapping":  {yaml: minimal, environ: []string{"KEYTURN_POLICIES=CANARY"}, want: []string{"`policies` must be a mapping", "YAML or JSON"}},
		"policies, not YAML":    {yaml: minimal, environ: []string{"KEYTURN_POLICIES={CANARY"}, want: []string{"`policies` must be a mapping"}},
		"a variable's policy":   {yaml: minimal, environ: []string{"KEYTURN_POLICIES=p: {key: k, period: CANARY}"}, want: []string{"`policies`", `"p"`, "period"}},
		"unknown flag":          {yaml: minimal, set: map[string]any{"listne": "CANARY"}, want: []string{"flag listne"}},
		"all at once": {yaml: "foo: CANARY\nbar: CANARY\njobs:\n  concurrency: many\n", environ: []string{"KEYTURN_QUUX=CANARY"},
			want: []string{"several problems", "`foo`", "`bar`", "`jobs.concurrency`", "KEYTURN_QUUX"}},
		"all at once, with policies": {
			yaml: minimal + "policies:\n  clinic: {schedule: \"0 0 31 2 *\"}\n  two: {period: 10m}\n  three: CANARY\n  four: {period: CANARY, grace: 400d, warn: 731d, concurrency: 17,\n" +
				"    batchSize: many, attempts: 0, reencrypt: perhaps, schedule: \"\", zone: Mars/CANARY, periode: 1d}\n" +
				"rotation:\n  check: CANARY\n  zone: Mars/CANARY\njobs:\n  concurrency: 0\n",
			want: []string{"several problems", `"clinic" can't be used: schedule: `, `"two" can't be used: period: the period is not between`, `"three" must be a mapping`,
				`"four" can't be used: period: `, `"four" can't be used: grace: `, `"four" can't be used: warn: `, `"four" can't be used: concurrency: `,
				`"four" has as batchSize no whole number`, `"four" has as attempts no whole number from 1 on`, `"four" can't be used: reencrypt: `, `"four" has an empty schedule: write none`, `"four" can't be used: zone: `, `"periode", which`,
				"`rotation.check`", "`rotation.zone`", "`jobs.concurrency` must be at least 1"},
		},
	} {
		_, err := LoadConfig(write(t, c.yaml), c.environ, c.set)
		if fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the value stands in %q", name, err)
		}
	}
}

func TestVariablesThatAreNoKeys(t *testing.T) {
	dir := write(t, "masterKeys: [\"env://KEYTURN_ROOT\"]\n")
	environ := []string{
		"KEYTURN_ROOT=x", "KEYTURN_MASTER_KEY=x", "KEYTURN_DIR=x", "KEYTURN_SERVER=x", "KEYTURN_TOKEN=x", "KEYTURN_TEST_POSTGRES=x", "KEYTURN_FAIL=x",
		"KEYTURN_SERVICE_HOST=10.0.0.1", "KEYTURN_PORT=tcp://10.0.0.1:8420", "KEYTURN_PORT_8420_TCP_ADDR=10.0.0.1", "KEYTURN_DATASET_SHOP=postgres://x",
	}
	if _, err := LoadConfig(dir, environ, nil); err != nil {
		t.Error(err)
	}
	if _, err := LoadConfig(dir, append(environ, "KEYTURN_OTHER_ROOT=x"), nil); err == nil {
		t.Error("a variable that nothing names was taken")
	}
	if _, err := LoadConfig(dir, []string{"KEYTURN_OTHER_ROOT=x"}, map[string]any{"masterKeys": []string{"env://KEYTURN_OTHER_ROOT"}}); err != nil {
		t.Errorf("one that a flag's master key names: %v", err)
	}
}

// Row 77: whatever prints an address with a password prints it without.
func TestAdvisory_CVE_2024_6104(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://user:CANARY@host:5432/db":                   "postgres://user@host:5432/db",
		"postgres://user@host/db?password=CANARY&sslmode=x":     "postgres://user@host/db?sslmode=x",
		"postgres://host/db?PassWord=CANARY&sslpassword=CANARY": "postgres://host/db",
		"postgres://user:CANARY@ho st/db":                       "[redacted]",
		"host=x password=CANARY":                                "[redacted]",
		"CANARY":                                                "[redacted]",
		"sqlite":                                                "sqlite",
		"":                                                      "",
	} {
		d := NewDSN(text)
		b, err := d.MarshalText()
		for _, shown := range []string{d.String(), d.GoString(), string(b), fmt.Sprintf("%v", d), fmt.Sprintf("%s", d), fmt.Sprintf("%q", d), fmt.Sprintf("%x", d), fmt.Sprintf("%#v", d)} {
			if shown != want || err != nil {
				t.Errorf("%q is shown as %q, want %q", text, shown, want)
			}
		}
		if s := fmt.Sprintf("%+v %v", Config{Store: d}, &Config{Store: d}); strings.Contains(s, "CANARY") {
			t.Errorf("inside of the configuration: %s", s)
		}
		if d.Reveal() != text {
			t.Errorf("%q was changed", text)
		}
	}
}

func TestEverySettingIsExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		if len(s.Text) < 20 || !strings.HasSuffix(s.Text, ".") {
			t.Errorf("%s: %q explains nothing", s.Key, s.Text)
		}
		if seen[joined(s.Env)] {
			t.Errorf("%s: two keys have this variable", s.Env)
		}
		seen[joined(s.Env)] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d settings only", len(seen))
	}
}

func TestReferencePage(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "configuration.md")
	want := Reference()
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(want), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("docs/reference/configuration.md is not what the fields say (%v): go test ./internal/server -run ReferencePage -update", err)
	}
}

// The file that init writes is read as what was chosen, and says every default.
func TestConfigTextReadsBack(t *testing.T) {
	masters := []string{"env://KEYTURN_MASTER_KEY", `file:///odd "path"/# key`}
	text := string(configText(NewDSN("postgres://u:p%23w@h/d"), masters))
	cfg, err := LoadConfig(write(t, text), nil, nil)
	if err != nil || !slices.Equal(cfg.MasterKeys, masters) || cfg.Store.Reveal() != "postgres://u:p%23w@h/d" {
		t.Errorf("%v: %v\n%s", err, cfg.MasterKeys, text)
	}
	uncommented := strings.ReplaceAll(strings.ReplaceAll(text, "\n#   ", "\n  "), "\n# ", "\n")
	_, lines, _ := strings.Cut(uncommented, "\n\n")
	cfg2, err := LoadConfig(write(t, lines), nil, nil)
	if err != nil || cfg2.Jobs != cfg.Jobs || cfg2.Keys != cfg.Keys || cfg2.Log != cfg.Log {
		t.Errorf("with every default spelled out: %v\n%s", err, lines)
	}
}

func TestMasterKeysAreEditedInPlace(t *testing.T) {
	const before = "# mine\nstore: sqlite # here\nmasterKeys: # careful\n  - env://A\n\n# the end\nenvironment: test\n"
	dir := write(t, before)
	m := masterConfig{dir: dir}
	if err := m.Save(t.Context(), []string{"env://A", "file:///b"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# mine", "# here", "# the end", "environment: test", "  - env://A\n  - file:///b\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is gone from\n%s", want, text)
		}
	}
	cfg, err := LoadConfig(dir, nil, nil)
	if err != nil || len(cfg.MasterKeys) != 2 {
		t.Errorf("%v %v", cfg.MasterKeys, err)
	}
	for _, elsewhere := range []masterConfig{
		{dir: dir, environ: []string{"KEYTURN_MASTERKEYS=env://A"}}, {dir: dir, set: map[string]any{"masterKeys": []string{"env://A"}}},
	} {
		if err := elsewhere.Save(t.Context(), []string{"env://C"}); fault.CodeOf(err) != api.CodeConflict {
			t.Errorf("a list that comes from elsewhere: %v", err)
		}
	}
	if err := m.Editable(); err != nil {
		t.Error(err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("trying leaves something behind: %v, %v", all, err)
	}
	// One that can't be written is found before the store is changed.
	err = masterConfig{dir: filepath.Join(dir, "gone")}.Editable()
	if fault.CodeOf(err) != api.CodeUnavailable || fault.FieldOf(err) != "masterKeys" || fault.NextOf(err) == "" {
		t.Errorf("a directory that can't be written to: %v", err)
	}
}
