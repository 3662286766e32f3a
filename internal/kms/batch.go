package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
)

// A batch is one event with counts, and one decision and one outcome per item: an item that fails, or that the caller
// may not do, doesn't keep the others. The order of the answer is the order of the request.

// EncryptBatch seals up to api.MaxBatchItems plaintexts.
func (s *Service) EncryptBatch(ctx context.Context, c *access.Caller, key string, in api.EncryptBatchRequest) (api.EncryptBatchResponse, error) {
	out := make([]api.EncryptBatchItem, len(in.Items))
	sealed := make([]byte, 0, len(in.Items)*256)
	again := func() { clear(out); sealed = sealed[:0] }
	err := s.batch(ctx, c, key, access.KeyEncrypt, "encrypt", len(in.Items), again, func(ctx context.Context, b *bulk, i int) error {
		item := &in.Items[i]
		bound, err := b.bind(item.Context)
		if err != nil {
			return err
		}
		start := len(sealed)
		text, version, err := s.seal(ctx, key, item.Plaintext, bound, sealed)
		if err != nil {
			return err
		}
		sealed = text
		b.ev.KeyVersion = version
		out[i].Ciphertext, out[i].Version = string(text[start:]), version
		return nil
	}, func(i int, failed *api.BatchError) { out[i] = api.EncryptBatchItem{Error: failed} })
	if err != nil {
		return api.EncryptBatchResponse{}, err
	}
	return api.EncryptBatchResponse{Items: out}, nil
}

// DecryptBatch opens up to api.MaxBatchItems ciphertexts.
func (s *Service) DecryptBatch(ctx context.Context, c *access.Caller, key string, in api.DecryptBatchRequest) (api.DecryptBatchResponse, error) {
	out := make([]api.DecryptBatchItem, len(in.Items))
	plain := make([]byte, 0, room(in.Items))
	again := func() { clear(out); clear(plain); plain = plain[:0] }
	err := s.batch(ctx, c, key, access.KeyDecrypt, "decrypt", len(in.Items), again, func(ctx context.Context, b *bulk, i int) error {
		item := &in.Items[i]
		bound, err := b.bind(item.Context)
		if err != nil {
			return err
		}
		b.text = append(b.text[:0], item.Ciphertext...)
		start := len(plain)
		opened, version, err := s.open(ctx, &b.opening, b.text, bound, plain)
		if err != nil {
			return err
		}
		plain = opened
		out[i].Plaintext, out[i].Version = opened[start:len(opened):len(opened)], version
		return nil
	}, func(i int, failed *api.BatchError) { out[i] = api.DecryptBatchItem{Error: failed} })
	if err != nil {
		clear(plain[:cap(plain)])
		return api.DecryptBatchResponse{}, err
	}
	return api.DecryptBatchResponse{Items: out}, nil
}

// room is at least what the plaintexts of a batch need, so that the buffer that holds them is never moved, and the place
// that it is in can be wiped.
func room(items []api.DecryptRequest) (n int) {
	for i := range items {
		n += len(items[i].Ciphertext)
	}
	return n
}

// RewrapBatch moves up to api.MaxBatchItems ciphertexts to the active version.
func (s *Service) RewrapBatch(ctx context.Context, c *access.Caller, key string, in api.RewrapBatchRequest) (api.RewrapBatchResponse, error) {
	out := make([]api.RewrapBatchItem, len(in.Items))
	again := func() { clear(out) }
	err := s.batch(ctx, c, key, access.KeyRewrap, "rewrap", len(in.Items), again, func(ctx context.Context, b *bulk, i int) error {
		bound, err := b.bind(in.Items[i].Context)
		if err != nil {
			return err
		}
		moved, err := s.rewrap(ctx, &b.opening, in.Items[i].Ciphertext, bound)
		if err != nil {
			return err
		}
		b.ev.KeyVersion = moved.Version
		if moved.Version != moved.FromVersion {
			b.ev.Details.Changed++
		}
		out[i] = api.RewrapBatchItem{Ciphertext: moved.Ciphertext, Version: moved.Version, FromVersion: moved.FromVersion}
		return nil
	}, func(i int, failed *api.BatchError) { out[i] = api.RewrapBatchItem{Error: failed} })
	if err != nil {
		return api.RewrapBatchResponse{}, err
	}
	return api.RewrapBatchResponse{Items: out}, nil
}

// bulk is what the items of one batch share.
type bulk struct {
	opening
	*scratch
	text []byte
}

// batch passes the doorway once and does the items one by one. A failure that isn't the item's own, because keyturn can't
// do anything at the moment or the caller went away, ends the whole batch. again forgets what a run before has produced.
func (s *Service) batch(ctx context.Context, c *access.Caller, key string, action access.Action, verb string, n int, again func(),
	do func(context.Context, *bulk, int) error, fail func(int, *api.BatchError)) error {
	if err := keyNamed(key); err != nil {
		return err
	}
	if err := checkBatch(n); err != nil {
		return err
	}
	in := gate.Intent{Action: action, Type: audit.KeyUse, Verb: verb + "_batch", Resource: keyResource(key)}
	return s.gate.Use(ctx, c, in, func(ctx context.Context, ev *audit.Event) error {
		b := bulk{opening: opening{caller: c, ev: ev, key: key}, scratch: scratches.Get().(*scratch)}
		defer b.free()
		again()
		ev.Details.Items = uint64(n)
		if err := s.mayBegin(ctx, action, key); err != nil {
			return err
		}
		for i := range n {
			err := ctx.Err()
			if err == nil {
				err = s.decideItem(c, action, key)
			}
			if err == nil {
				err = do(ctx, &b, i)
			}
			if err == nil {
				continue
			}
			if everyones(err) {
				return err
			}
			ev.Details.Failed++
			fail(i, &api.BatchError{Code: fault.CodeOf(err), Message: fault.MessageOf(err)})
		}
		return nil
	})
}

// mayBegin ends a batch that protects under a key which protects nothing now: every item would fail for the same reason.
func (s *Service) mayBegin(ctx context.Context, action access.Action, key string) error {
	if action == access.KeyDecrypt {
		return nil // each ciphertext names a version of its own
	}
	k, err := s.lookup(ctx, key)
	if err != nil {
		return err
	}
	_, err = k.Usable(s.clock())
	return err
}

// decideItem is the decision on one item: rights are looked at where they are used, not only at the outer request.
func (s *Service) decideItem(c *access.Caller, action access.Action, key string) error {
	if allowed(c, action, keyResource(key)) {
		return nil
	}
	return fault.Newf(api.CodeDenied, "%s is not allowed on key %s", action, key)
}

// everyones says whether the other items would fail for the same reason.
func everyones(err error) bool {
	switch fault.CodeOf(err) {
	case api.CodeUnavailable, api.CodeCancelled, api.CodeInternal, api.CodeBusy, api.CodeNotFound:
		return true
	}
	return false
}

func checkBatch(n int) error {
	switch {
	case n == 0:
		return fault.New(api.CodeInvalid, "the batch has no items").WithField("items")
	case n > api.MaxBatchItems:
		return fault.Newf(api.CodeTooLarge, "the batch has more than %d items", api.MaxBatchItems).WithField("items").
			WithNext("split it")
	}
	return nil
}

// bind brings an item's context into canonical form, in memory that the next item uses again.
func (b *bulk) bind(m map[string]string) (envelope.Context, error) {
	b.pairs = b.pairs[:0]
	for k, v := range m {
		b.pairs = append(b.pairs, envelope.Pair{Key: k, Value: v})
	}
	bound, err := envelope.AppendContext(b.bound[:0], b.pairs)
	if err != nil {
		return nil, err
	}
	b.bound = bound
	return bound, refuseSecrets(bound)
}
