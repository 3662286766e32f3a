package powercut_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"
)

// runRaw is a worker on plain SQLite: one row a commit.
func runRaw(dir, synchronous string, out *os.File) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "raw.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous("+synchronous+")")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS done (n INTEGER PRIMARY KEY)`); err != nil {
		return err
	}
	var n uint64
	if err := db.QueryRow(`SELECT COALESCE(MAX(n), 0) FROM done`).Scan(&n); err != nil {
		return err
	}
	if err := tellState(out, n); err != nil {
		return err
	}
	for {
		n++
		if _, err := db.Exec(`INSERT INTO done VALUES (?)`, n); err != nil {
			fmt.Fprintln(out, "stopped", n)
			return err
		}
		fmt.Fprintln(out, "ack", n)
	}
}
