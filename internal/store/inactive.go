package store

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/keys"
)

// InactiveKeys implements keys.Tx.
func (t *txn) InactiveKeys(ctx context.Context, retired bool) ([]keys.ActiveVersion, error) {
	left := ` AND EXISTS (SELECT 1 FROM key_versions v WHERE v.key_id = k.id AND v.state NOT IN ('destroyed', 'destroy-scheduled'))`
	if retired {
		left = ""
	}
	return all(ctx, t, "listing keys without an active version", func(row scanner) (v keys.ActiveVersion, err error) {
		var period, warn int64
		err = row.Scan(&v.Key, &v.Purpose, &v.ByPolicy, &period, &warn)
		v.Cryptoperiod.Period, v.Cryptoperiod.Warn = time.Duration(period)*time.Microsecond, time.Duration(warn)*time.Microsecond
		return v, err
	}, `SELECT k.name, k.purpose, k.by_policy, k.period, k.warn FROM keys k
		WHERE NOT EXISTS (SELECT 1 FROM key_versions v WHERE v.key_id = k.id AND v.state = 'active')`+left+` ORDER BY k.name`)
}
