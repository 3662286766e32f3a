package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// listenerName is what the connection calls itself in pg_stat_activity.
const listenerName = "keyturn-listen"

// Times of the connection that listens.
const (
	deafEvery   = time.Second // how often is said that news may be missed, while there is no connection
	redialAfter = 300 * time.Millisecond
	quietFor    = 10 * time.Second // without news for so long, the connection is asked whether it still lives
	pingTimeout = 3 * time.Second
)

// listen tells heard of every message on channel until ctx ends, on one connection of its own. missed is called when
// messages may have been missed: after each (re)connect, and every second as long as there is none.
func (d *database) listen(ctx context.Context, channel string, heard func(string), missed func()) {
	for ctx.Err() == nil {
		conn := d.dialListening(ctx, channel, missed)
		if conn == nil {
			return
		}
		missed() // whatever was told before LISTEN took effect
		for message, err := d.next(ctx, conn); err == nil; message, err = d.next(ctx, conn) {
			if message != "" {
				heard(message)
			}
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
		_ = conn.Close(end) // it is lost, or we go
		cancel()
	}
}

// dialListening tries until a connection listens; nil when ctx ended.
func (d *database) dialListening(ctx context.Context, channel string, missed func()) *pgx.Conn {
	dialled := make(chan *pgx.Conn, 1)
	go func() {
		for {
			if conn, err := d.listening(ctx, channel); err == nil || ctx.Err() != nil {
				dialled <- conn
				return
			}
			wait(ctx, redialAfter)
		}
	}()
	deaf := time.NewTicker(deafEvery)
	defer deaf.Stop()
	for {
		select {
		case conn := <-dialled:
			return conn
		case <-deaf.C:
			missed()
		}
	}
}

func (d *database) listening(ctx context.Context, channel string) (*pgx.Conn, error) {
	config := d.conn.Copy()
	config.RuntimeParams["application_name"] = listenerName
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// next waits for a message; "" when there was none for a while and the connection is well.
func (d *database) next(ctx context.Context, conn *pgx.Conn) (string, error) {
	quiet, cancel := context.WithTimeout(ctx, quietFor)
	defer cancel()
	n, err := conn.WaitForNotification(quiet)
	if err == nil {
		return n.Payload, nil
	}
	if ctx.Err() != nil || quiet.Err() == nil {
		return "", err
	}
	ping, done := context.WithTimeout(ctx, pingTimeout)
	defer done()
	return "", conn.Ping(ping)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
