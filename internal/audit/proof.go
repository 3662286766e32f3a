package audit

import (
	"encoding/base64"
	"encoding/json"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Prover computes an RFC 6962 proof from the leaves of a shard, given once and in order: it needs as many hashes of
// memory as the proof has steps, squared at worst, however long the log is.
type Prover struct {
	next  uint64
	spans []span
}

// span is a run of leaves [from, to) whose subtree's root is one step of the proof.
type span struct {
	from, to uint64
	tree     Tree
}

// ProveInclusion prepares the proof that event number index is in the tree of size events (RFC 6962 section 2.1.1).
func ProveInclusion(index, size uint64) (*Prover, error) {
	if index >= size {
		return nil, fault.Newf(api.CodeInvalid, "proving event %d: the checkpoint covers only %d events of its shard", index, size)
	}
	p := &Prover{}
	p.path(index, 0, size)
	return p, nil
}

// ProveConsistency prepares the proof that the tree of older events is a prefix of that of newer (section 2.1.2).
func ProveConsistency(older, newer uint64) (*Prover, error) {
	if older == 0 || older > newer {
		return nil, fault.Newf(api.CodeInvalid, "proving that %d events are a prefix of %d: sizes out of range", older, newer)
	}
	p := &Prover{}
	p.subproof(older, 0, newer, true)
	return p, nil
}

func (p *Prover) path(index, from, to uint64) {
	if to-from == 1 {
		return
	}
	if k := from + split(to-from); index < k {
		p.path(index, from, k)
		p.add(k, to)
	} else {
		p.path(index, k, to)
		p.add(from, k)
	}
}

func (p *Prover) subproof(older, from, to uint64, whole bool) {
	if older == to {
		if !whole {
			p.add(from, to)
		}
		return
	}
	if k := from + split(to-from); older <= k {
		p.subproof(older, from, k, whole)
		p.add(k, to)
	} else {
		p.subproof(older, k, to, false)
		p.add(from, k)
	}
}

func (p *Prover) add(from, to uint64) { p.spans = append(p.spans, span{from: from, to: to}) }

// split is the largest power of two below n, n > 1.
func split(n uint64) uint64 {
	k := uint64(1)
	for k<<1 < n {
		k <<= 1
	}
	return k
}

// Leaf takes the next leaf, from 0 on.
func (p *Prover) Leaf(h Hash) {
	for i := range p.spans {
		if s := &p.spans[i]; p.next >= s.from && p.next < s.to {
			s.tree.Append(h)
			break
		}
	}
	p.next++
}

// Proof returns the steps from the leaf's side to the root's. Fault integrity when leaves are missing.
func (p *Prover) Proof() ([]Hash, error) {
	out := make([]Hash, len(p.spans))
	for i := range p.spans {
		s := &p.spans[i]
		if s.tree.size != s.to-s.from {
			return nil, fault.New(api.CodeIntegrity, "proving an audit event: the log is shorter than its checkpoint")
		}
		out[i] = s.tree.Root()
	}
	return out, nil
}

// CheckConsistency says whether the older head is a prefix of the newer one of the same shard. Fault integrity if not.
func CheckConsistency(proof []Hash, older, newer ShardHead) error {
	if older.Shard != newer.Shard || older.Size == 0 || newer.Size > 1<<62 || older.Size > newer.Size ||
		tlog.CheckTree(hashes(proof), int64(newer.Size), tlog.Hash(newer.Root), int64(older.Size), tlog.Hash(older.Root)) != nil {
		return fault.New(api.CodeIntegrity, "checking that an audit log is the beginning of another: it is not")
	}
	return nil
}

func hashes(in []Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = tlog.Hash(h)
	}
	return out
}

// EventProof shows to somebody who has only the log's public key that one event is in the log: the event in the form of
// an export, the steps of its inclusion proof, and the signed checkpoint.
type EventProof struct {
	Event      string // exported line: its shard and index are what the proof is about
	Path       []Hash
	Checkpoint string // the signed note
}

// AppendJSON appends the proof as one line of JSON, without newline.
func (p *EventProof) AppendJSON(dst []byte) []byte {
	raw := make([]byte, 0, len(p.Path)*HashSize)
	for _, h := range p.Path {
		raw = append(raw, h[:]...)
	}
	dst = appendString(append(dst, `{"event":`...), p.Event)
	dst = base64.StdEncoding.AppendEncode(append(dst, `,"path":"`...), raw)
	return append(appendString(append(dst, `","checkpoint":`...), p.Checkpoint), '}')
}

// ParseEventProof reads what AppendJSON wrote, and only that spelling of it. It proves nothing yet.
func ParseEventProof(text []byte) (EventProof, error) {
	var v struct{ Event, Path, Checkpoint string }
	var p EventProof
	raw, err := []byte(nil), json.Unmarshal(text, &v)
	if err == nil {
		raw, err = base64.StdEncoding.DecodeString(v.Path)
	}
	if err == nil && len(raw)%HashSize == 0 {
		p = EventProof{Event: v.Event, Checkpoint: v.Checkpoint}
		for i := 0; i < len(raw); i += HashSize {
			p.Path = append(p.Path, Hash(raw[i:i+HashSize]))
		}
	}
	if string(p.AppendJSON(nil)) != string(text) {
		return EventProof{}, fault.New(api.CodeIntegrity, "reading the proof of an audit event: not one that keyturn wrote")
	}
	return p, nil
}

// Verify checks that this event stands at its place in this key's log as the checkpoint signed it.
func (p *EventProof) Verify(key *Key) (Checkpoint, error) {
	c, err := ParseCheckpoint(p.Checkpoint, key)
	if err != nil {
		return c, err
	}
	line := []byte(p.Event)
	cut, shard, index, ok := splitPlace(line)
	if !ok {
		return c, badProof("the event has no shard and index")
	}
	stored := append(line[:cut:cut], '}')
	if bad := scanLine(stored, &fields{}); bad != "" {
		return c, badProof("the event is " + bad)
	}
	head := c.Head(shard)
	if index >= head.Size || head.Size > 1<<62 {
		return c, badProof("the event is not covered by the checkpoint")
	}
	if tlog.CheckRecord(hashes(p.Path), int64(head.Size), tlog.Hash(head.Root), int64(index), tlog.Hash(LeafHash(stored))) != nil {
		return c, badProof("the event is not at its place in the signed log")
	}
	return c, nil
}

func badProof(why string) error {
	return fault.New(api.CodeIntegrity, "verifying the proof of an audit event: "+why)
}
