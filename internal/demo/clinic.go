package demo

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the application's own database

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

// clinic is somebody's application: it owns the database and goes on writing whatever keyturn does to it.
type clinic struct {
	path     string
	db       *sql.DB
	client   *keyturn.Client
	patients int

	mu     sync.Mutex     // held over a write and its remembering, and by nobody for longer
	last   map[int]string // patient -> the number last written, where it isn't the invented one any more
	writes int

	stop context.CancelFunc
	done chan error
}

// openClinic makes the database, in clear as it was all those years, and starts the writer.
func openClinic(ctx context.Context, path string, client *keyturn.Client, patients int) (*clinic, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	c := &clinic{path: path, db: db, client: client, patients: patients, last: map[int]string{}, done: make(chan error, 1)}
	if err := c.fill(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return c, nil
}

func (c *clinic) fill(ctx context.Context) error {
	if _, err := c.db.ExecContext(ctx, `CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL,
		ssn TEXT NOT NULL, note TEXT, seen INTEGER NOT NULL DEFAULT 0)`); err != nil {
		return err
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	insert, err := tx.PrepareContext(ctx, `INSERT INTO patients (id, name, email, ssn, note) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	for id := 1; id <= c.patients; id++ {
		p := invent(id)
		if _, err := insert.ExecContext(ctx, p.id, p.name, p.email, p.ssn, p.note); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// open starts the day: from now on the writer gives random patients new numbers, sealed through the SDK, and remembers
// them only after the database has committed.
func (c *clinic) open(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	go func() {
		pace := time.NewTicker(3 * time.Millisecond)
		defer pace.Stop()
		r := rand.New(rand.NewPCG(1, 2))
		for {
			select {
			case <-ctx.Done():
				c.done <- nil
				return
			case <-pace.C:
			}
			if err := c.write(ctx, 1+r.IntN(c.patients), number(r)); err != nil && ctx.Err() == nil {
				c.done <- err
				return
			}
		}
	}()
}

func (c *clinic) write(ctx context.Context, id int, ssn string) error {
	sealed, err := c.client.Encrypt(ctx, keyName, api.EncryptRequest{Plaintext: []byte(ssn), Context: boundTo("ssn", id)})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Not under ctx: a write that was begun is finished, so that what is remembered is what stands there.
	if _, err := c.db.Exec(`UPDATE patients SET ssn = ?, seen = seen + 1 WHERE id = ?`, sealed.Ciphertext, id); err != nil {
		return err
	}
	c.last[id] = ssn
	c.writes++
	return nil
}

// boundTo is what a value is bound to: the same as the dataset's template, so that the application and keyturn agree.
func boundTo(column string, id int) map[string]string {
	return map[string]string{"table": "patients", "column": column, "patient": strconv.Itoa(id)}
}

// template is boundTo as `dataset add --context` takes it.
var template = map[string]string{"table": "{table}", "column": "{column}", "patient": "{pk.id}"}

// shut ends the day and says how many writes there were.
func (c *clinic) shut() (writes int, err error) {
	if c.stop == nil {
		return c.writes, nil
	}
	c.stop()
	c.stop = nil
	return c.writes, <-c.done
}

func (c *clinic) close() {
	_, _ = c.shut()
	_ = c.db.Close()
}

func (c *clinic) written() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// expected is the number that patient id must have.
func (c *clinic) expected(id int) string {
	if ssn, ok := c.last[id]; ok {
		return ssn
	}
	return invent(id).ssn
}

// compare opens every number of the table and counts those that are not what was last written.
func (c *clinic) compare(ctx context.Context) (checked, wrong int, err error) {
	for first := 1; first <= c.patients; first += api.MaxBatchItems {
		ids, items, err := c.page(ctx, first)
		if err != nil {
			return checked, wrong, err
		}
		opened, err := c.client.DecryptBatch(ctx, keyName, items)
		if err != nil {
			return checked, wrong, err
		}
		for i, item := range opened {
			checked++
			if item.Error != nil || string(item.Plaintext) != c.expected(ids[i]) {
				wrong++
			}
		}
	}
	return checked, wrong, nil
}

func (c *clinic) page(ctx context.Context, first int) (ids []int, items []api.DecryptRequest, err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT id, ssn FROM patients WHERE id >= ? AND id < ? ORDER BY id`, first, first+api.MaxBatchItems)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int
		var sealed string
		if err := rows.Scan(&id, &sealed); err != nil {
			return nil, nil, err
		}
		ids, items = append(ids, id), append(items, api.DecryptRequest{Ciphertext: sealed, Context: boundTo("ssn", id)})
	}
	return ids, items, rows.Err()
}

// sealed is what stands in the database for one patient.
func (c *clinic) sealed(ctx context.Context, id int) (text string, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT ssn FROM patients WHERE id = ?`, id).Scan(&text)
	if err != nil {
		err = fmt.Errorf("reading patient %d: %w", id, err)
	}
	return text, err
}
