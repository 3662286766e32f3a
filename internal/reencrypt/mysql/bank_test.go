package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// bank is an application whose books must balance: transfers between accounts, each in one transaction with its entry in
// a journal and in the sum of its branch. A write of one that was lost, or that was written twice, shows in the sums.
type bank struct {
	db        *sql.DB
	accounts  int
	transfers atomic.Int64
	failed    sync.Map // errors that it met, by their text
	stop      context.CancelFunc
	done      sync.WaitGroup
}

const bankSQL = `SELECT (SELECT SUM(balance) FROM accounts), (SELECT SUM(balance) FROM branches), (SELECT SUM(delta) FROM journal), (SELECT COUNT(*) FROM journal)`

func openBank(t *testing.T, d connectortest.Database, accounts, clients int) *bank {
	t.Helper()
	d.Exec(t, "CREATE TABLE accounts (id bigint PRIMARY KEY, branch int NOT NULL, balance bigint NOT NULL, note text)", "CREATE TABLE branches (id int PRIMARY KEY, balance bigint NOT NULL)",
		"CREATE TABLE journal (n bigint AUTO_INCREMENT PRIMARY KEY, account bigint NOT NULL, delta bigint NOT NULL)",
		fmt.Sprintf("INSERT INTO accounts SELECT i, i %% 10, 0, CASE WHEN i %% 2 = 0 THEN 'note ' || i END FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n) AS s", accounts),
		"INSERT INTO branches VALUES (0,0),(1,0),(2,0),(3,0),(4,0),(5,0),(6,0),(7,0),(8,0),(9,0)")
	ctx, stop := context.WithCancel(context.Background())
	b := &bank{db: d.DB, accounts: accounts, stop: stop}
	for i := range clients {
		b.done.Go(func() { b.client(ctx, rand.New(rand.NewPCG(7, uint64(i)))) })
	}
	t.Cleanup(b.close)
	return b
}

func (b *bank) close() {
	b.stop()
	b.done.Wait()
}

func (b *bank) client(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		id := 1 + random.IntN(b.accounts)
		if random.IntN(2) == 0 {
			id = 1 + random.IntN(50) // some accounts are always being booked on
		}
		if err := b.transfer(id, random.IntN(10001)-5000); err != nil {
			b.failed.Store(err.Error(), true)
		}
	}
}

// transfer is the transaction of TPC-B: one account, its branch, the journal.
func (b *bank) transfer(id, delta int) error {
	tx, err := b.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // committed below
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{"UPDATE accounts SET balance = balance + ? WHERE id = ?", []any{delta, id}},
		{"UPDATE branches SET balance = balance + ? WHERE id = ?", []any{delta, id % 10}},
		{"INSERT INTO journal (account, delta) VALUES (?, ?)", []any{id, delta}},
	} {
		if _, err := tx.Exec(q.sql, q.args...); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	b.transfers.Add(1)
	return nil
}

// TestBankBalances encrypts and re-encrypts a column of accounts that a bank goes on booking on. It must not meet a single
// error, above all no deadlock; its books must balance; and every value must open.
func TestBankBalances(t *testing.T) {
	const accounts = 20000
	d := fresh(t)
	b := openBank(t, d, accounts, 4)
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	db := openAs(t, d.URL, patient)
	run := func(kind reencrypt.Kind, rate float64) reencrypt.Counts {
		w := connectortest.Work(t, db, "accounts", map[string]*connectortest.KeySet{"note": keys}, kind)
		w.Rate = rate
		return connectortest.MustFinish(t, w)
	}
	encrypted := run(reencrypt.KindEncrypt, 0)
	keys.Rotate()
	moved := run(reencrypt.KindReencrypt, 20000)
	keys.Rotate()
	again := run(reencrypt.KindReencrypt, 0)
	verified := run(reencrypt.KindVerify, 0)
	b.close()

	b.failed.Range(func(err, _ any) bool { t.Errorf("the bank met an error: %v", err); return true })
	sums := d.Rows(t, bankSQL)[0]
	if string(sums[0]) != string(sums[1]) || string(sums[0]) != string(sums[2]) || string(sums[3]) != fmt.Sprint(b.transfers.Load()) || b.transfers.Load() == 0 {
		t.Errorf("the books don't balance: %q after %d transfers", sums, b.transfers.Load())
	}
	if verified.Opened != accounts/2 || verified.Null != accounts/2 || encrypted.Changed != accounts/2 || moved.Changed != accounts/2 || again.Changed != accounts/2 {
		t.Errorf("encrypted %+v, moved %+v, moved again %+v, verified %+v", encrypted, moved, again, verified)
	}
	for _, row := range d.Rows(t, "SELECT id, note FROM accounts WHERE id % 500 = 0") {
		id := string(row[0])
		if got := connectortest.Open(t, "accounts", []string{"id"}, []string{id}, "note", keys, row[1]); got != "note "+id {
			t.Errorf("account %s holds %q", id, got)
		}
	}
	t.Logf("%d transfers; conflicts: %d encrypting, %d and %d re-encrypting", b.transfers.Load(), encrypted.Conflicts, moved.Conflicts, again.Conflicts)
}
