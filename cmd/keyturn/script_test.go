package main

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // likewise
	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite" // the applications' own databases

	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/proctest"
)

// TestMain lets the scripts run this very program as `keyturn`.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyturn": main})
}

// The same scripts, three times: embedded, against the server that runs on the data directory (by its socket), and against
// a server over TLS with a token. One code path: what differs is the environment.

func TestScriptsEmbedded(t *testing.T) { scripts(t, "testdata/script", embeddedStore) }

func TestScriptsOnTheSocket(t *testing.T) { scripts(t, "testdata/script", socketServer) }

func TestScriptsOverTLS(t *testing.T) { scripts(t, "testdata/script", tlsServer) }

// TestLocalScripts are about the data directory itself: making it, sharing it, serving it.
func TestLocalScripts(t *testing.T) {
	scripts(t, "testdata/local", func(env *testscript.Env) error { return nil })
}

// TestPostgresScripts are about tables, and a store, in a PostgreSQL of each script's own, which the script may stop.
func TestPostgresScripts(t *testing.T) {
	scripts(t, "testdata/postgres", func(env *testscript.Env) error {
		pg := pgtest.Own(t, pgtest.Options{})
		for name, url := range map[string]string{"APP": pg.Database(t), "STORE": pg.Database(t)} {
			env.Setenv(name, url)
		}
		env.Values[postgres{}] = pg
		return os.WriteFile(filepath.Join(env.WorkDir, "url"), []byte(env.Getenv("APP")+"\n"), 0o600)
	})
}

// TestMariaDBScripts are about tables in a MariaDB of each script's own, which the script may stop.
func TestMariaDBScripts(t *testing.T) {
	scripts(t, "testdata/mariadb", func(env *testscript.Env) error {
		server := mariatest.Own(t, mariatest.Options{})
		env.Setenv("APP", server.Database(t))
		env.Setenv("TABLE", "orders")
		env.Values[mariadb{}] = server
		return os.WriteFile(filepath.Join(env.WorkDir, "url"), []byte(env.Getenv("APP")+"\n"), 0o600)
	})
}

// postgres and mariadb are the keys of a script's own server among its values.
type (
	postgres struct{}
	mariadb  struct{}
)

func scripts(t *testing.T, dir string, setup func(*testscript.Env) error) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir) // nobody's real data directory
			env.Setenv("XDG_DATA_HOME", "")
			env.Setenv("KEYTURN_DIR", filepath.Join(env.WorkDir, "kt"))
			env.Setenv("KEYTURN_DATASET_APP", "sqlite://"+filepath.Join(env.WorkDir, "app.db")) // a server's own, too
			return setup(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": statusIs, "sql": sqlCommand, "setenv": setenvCommand, "flip": flipCommand, "await": awaitCommand, "await-held": awaitHeld, "pg": pgCommand, "moved": movedCommand, "repeat": repeatCommand, "vault": vaultCommand,
			"id":    idCommand,
			"maria": mariaCommand,
		},
		Condition: func(cond string) (bool, error) {
			return false, fmt.Errorf("unknown condition %s", cond)
		},
	})
}

// embeddedStore is a fresh store that every command opens by itself.
func embeddedStore(env *testscript.Env) error {
	_, err := output(env, "init")
	return err
}

// socketServer is a store with a server that the commands find by the directory.
func socketServer(env *testscript.Env) error {
	if err := embeddedStore(env); err != nil {
		return err
	}
	return startServer(env, "unix://"+filepath.Join(env.WorkDir, "s"))
}

// tlsServer is a store with a server that the commands are told of, with a token of an owner.
func tlsServer(env *testscript.Env) error {
	if err := embeddedStore(env); err != nil {
		return err
	}
	token, err := output(env, "principal", "create", "tester", "--role", "owner")
	if err != nil {
		return err
	}
	port, err := proctest.FreePort()
	if err != nil {
		return err
	}
	address := proctest.Loopback(port)
	if err := startServer(env, "https://"+address); err != nil {
		return err
	}
	env.Setenv("KEYTURN_SERVER", "https://"+address)
	env.Setenv("KEYTURN_TOKEN", strings.TrimSpace(token))
	return nil
}

// output runs a command before the script begins.
func output(env *testscript.Env, args ...string) (string, error) {
	cmd := exec.Command("keyturn", args...)
	cmd.Dir, cmd.Env = env.WorkDir, env.Vars
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", fmt.Errorf("keyturn %s: %w: %s", args[0], err, failed.Stderr)
	}
	return string(out), err
}

// startServer starts `keyturn serve`, waits until its log says that it listens, and ends it after the script.
func startServer(env *testscript.Env, listen string) error {
	cmd := exec.Command("keyturn", "serve", "--listen", listen)
	cmd.Dir, cmd.Env = env.WorkDir, env.Vars
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(log)
	said := []string{}
	ready := false
	for !ready && lines.Scan() {
		said = append(said, lines.Text())
		ready = strings.Contains(lines.Text(), "msg=serving")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
			said = append(said, lines.Text())
		}
	}()
	env.Defer(func() {
		exited := make(chan struct{})
		var err error
		go func() {
			defer close(exited)
			<-drained
			err = cmd.Wait()
		}()
		if hung := proctest.Tell(cmd.Process, exited); hung != nil {
			env.T().Log(strings.Join(said, "\n"))
			err = hung
		}
		if err != nil {
			env.T().Fatal("the server ended badly: ", err)
		}
	})
	if !ready {
		return fmt.Errorf("the server did not start: %s", strings.Join(said, "\n"))
	}
	return nil
}

// statusIs runs a command that must end with exactly this status: status 5 keyturn key rotate phi.
func statusIs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var failed *exec.ExitError
		if !errors.As(err, &failed) {
			ts.Fatalf("running %s: %v", args[1], err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// sqlCommand runs a statement on an SQLite file, as the application would, and prints its rows: sql app.db 'SELECT …'.
func sqlCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sql FILE STATEMENT")
	}
	db, err := openApplication(ts, args[0])
	ts.Check(err)
	defer db.Close()
	rows, err := db.QueryContext(context.Background(), args[1])
	ts.Check(err)
	defer rows.Close()
	columns, err := rows.Columns()
	ts.Check(err)
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		ts.Check(rows.Scan(into...))
		texts := make([]string, len(columns))
		for i, v := range values {
			if texts[i] = v.String; !v.Valid {
				texts[i] = "NULL"
			}
		}
		fmt.Fprintln(ts.Stdout(), strings.Join(texts, " "))
	}
	ts.Check(rows.Err())
}

// openApplication opens an SQLite file, or a postgres:// or mysql:// URL.
func openApplication(ts *testscript.TestScript, where string) (*sql.DB, error) {
	if strings.HasPrefix(where, "mysql") {
		return mariatest.Open(where, nil)
	}
	if strings.HasPrefix(where, "postgres") {
		return sql.Open("pgx", where)
	}
	return sql.Open("sqlite", "file:"+ts.MkAbs(where)+"?_pragma=busy_timeout(60000)&_txlock=immediate")
}

// pgCommand stops the script's PostgreSQL in the middle of whatever it does, or starts it again: pg stop, pg start.
func pgCommand(ts *testscript.TestScript, neg bool, args []string) {
	pg, ok := ts.Value(postgres{}).(*pgtest.Server)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: pg stop|start")
	}
	switch args[0] {
	case "stop":
		ts.Check(pg.Kill(context.Background()))
	case "start":
		ts.Check(pg.Restart(context.Background()))
	}
}

// mariaCommand does the same to the script's MariaDB: maria stop, maria start.
func mariaCommand(ts *testscript.TestScript, neg bool, args []string) {
	server, ok := ts.Value(mariadb{}).(*mariatest.Server)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: maria stop|start")
	}
	switch args[0] {
	case "stop":
		ts.Check(server.Kill(context.Background()))
	case "start":
		ts.Check(server.Restart(context.Background()))
	}
}

// movedCommand waits until so many orders stand under the newest version that any of them stands under: moved 100.
func movedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: moved N")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	db, err := openApplication(ts, ts.Getenv("APP"))
	ts.Check(err)
	defer db.Close()
	table := cmp.Or(ts.Getenv("TABLE"), "shop.orders")
	until(ts, func() bool {
		n := 0
		// Every ciphertext of one version begins with the same 36 characters; a run at work leaves two such beginnings.
		err := db.QueryRowContext(context.Background(), strings.ReplaceAll(`SELECT count(*) FROM TABLE WHERE left(card, 36) = (SELECT max(left(card, 36)) FROM TABLE) AND
			(SELECT count(DISTINCT left(card, 36)) FROM TABLE) > 1`, "TABLE", table)).Scan(&n)
		return err == nil && n >= want
	}, "the job moves no rows")
}

// setenvCommand sets a variable to what a file holds, without the blanks around it: setenv KEYTURN_TOKEN shop.token.
func setenvCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// idCommand keeps the first incident's id in a file: id VARIABLE FILE.
func idCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: id VARIABLE FILE")
	}
	found := regexp.MustCompile(`inc-[0-9a-v]{24}`).FindString(ts.ReadFile(args[1]))
	if found == "" {
		ts.Fatalf("no incident's id in %s", args[1])
	}
	ts.Setenv(args[0], found)
}

// flipCommand writes a copy of a file with one character changed, counted from the end where negative: flip in out 50.
func flipCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: flip FILE COPY PLACE")
	}
	text := []byte(strings.TrimSpace(ts.ReadFile(args[0])))
	place, err := strconv.Atoi(args[2])
	ts.Check(err)
	if place < 0 {
		place += len(text)
	}
	if text[place] = text[place] ^ 1; text[place] == '\n' || text[place] == '=' {
		text[place] = 'A'
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
}

// repeatCommand writes a text again and again: repeat 1000 abc file.
func repeatCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: repeat N TEXT FILE")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(strings.Repeat(args[1], n)), 0o600))
}

// awaitCommand waits until somebody listens at a unix socket: await kt/keyturn.sock.
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await SOCKET")
	}
	until(ts, func() bool { return answers(ts.MkAbs(args[0])) }, "nobody listens at "+args[0])
}

// awaitHeld waits until a process holds the lock of a data directory: await-held kt/lock.
func awaitHeld(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await-held FILE")
	}
	until(ts, func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && len(text) > 0
	}, "nobody holds "+args[0])
}

// until looks every few milliseconds whether something is so.
func until(ts *testscript.TestScript, holds func() bool, otherwise string) {
	ctx, cancel := context.WithTimeout(context.Background(), proctest.Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s", otherwise)
		}
	}
}
