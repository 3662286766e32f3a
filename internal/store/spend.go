package store

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
)

// Spend reserves operations and bytes of version n of k (see keys.Tx.ReserveUsage) and gives the totals after it. The reservation that
// uses the version up, as far as a version may be, brings the rotation check forward to now in the same transaction: so the next
// version is there before anybody is refused. Calling it with a k that was read earlier does no harm, as limits don't change.
func Spend(ctx context.Context, tx Tx, k *keys.Key, n uint32, operations, bytes uint64, now time.Time) (totalOperations, totalBytes uint64, err error) {
	totalOperations, totalBytes, err = tx.ReserveUsage(ctx, k.ID, n, operations, bytes)
	if err != nil || !k.Cryptoperiod.UsesUp(operations, bytes, totalOperations, totalBytes) {
		return totalOperations, totalBytes, err
	}
	return totalOperations, totalBytes, tx.BringForward(ctx, jobs.RotationCheck, now)
}

// UseUp takes what is left of version n of k because somebody was refused who wants more than that, and no more than a whole version
// has: the next version is made then, as when a version is used up in smaller pieces. Whatever no version has room for changes
// nothing, so nobody has version after version made by asking for too much.
func UseUp(ctx context.Context, tx Tx, k *keys.Key, n uint32, operations, bytes uint64, now time.Time) error {
	c := k.Cryptoperiod
	if beyond(c.MaxOperations, 0, operations) || beyond(c.MaxBytes, 0, bytes) {
		return nil
	}
	stored, err := tx.KeyByID(ctx, k.ID)
	if err != nil {
		return err
	}
	v, _ := stored.Version(n)
	if !v.State.Protects() {
		return nil
	}
	var restOperations, restBytes uint64
	if beyond(c.MaxOperations, v.Operations, operations) {
		restOperations = c.MaxOperations - min(v.Operations, c.MaxOperations)
	}
	if beyond(c.MaxBytes, v.Bytes, bytes) {
		restBytes = c.MaxBytes - min(v.Bytes, c.MaxBytes)
	}
	if restOperations == 0 && restBytes == 0 {
		return nil // it was used up already
	}
	_, _, err = Spend(ctx, tx, k, n, restOperations, restBytes, now)
	return err
}

// beyond says whether more than a limit would be used; 0 is no limit.
func beyond(limit, used, more uint64) bool { return limit > 0 && more > limit-min(used, limit) }
