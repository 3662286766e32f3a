package audit

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// TestAdvisory_CVE_2025_62513: an event has no field that could take a body, a header or any other bytes:
// only strings, numbers, booleans and times, however deep one looks.
func TestAdvisory_CVE_2025_62513(t *testing.T) {
	allowed := []reflect.Type{reflect.TypeFor[time.Time](), reflect.TypeFor[EventType](), reflect.TypeFor[string](),
		reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64]()}
	seen := 0
	var visit func(at string, typ reflect.Type)
	visit = func(at string, typ reflect.Type) {
		for f := range typ.Fields() {
			name := at + "." + f.Name
			if f.Type == reflect.TypeFor[Details]() {
				visit(name, f.Type)
				continue
			}
			seen++
			if !f.IsExported() {
				t.Errorf("%s is hidden from this test's readers", name)
			}
			ok := false
			for _, a := range allowed {
				ok = ok || f.Type == a
			}
			if !ok {
				t.Errorf("%s is a %s: an event holds strings, numbers, booleans and times only", name, f.Type)
			}
		}
	}
	visit("Event", reflect.TypeFor[Event]())
	if seen < 50 {
		t.Errorf("only %d fields were seen", seen)
	}
}

// makeProof proves one event of a log.
func makeProof(t *testing.T, m *madeLog, line int) EventProof {
	t.Helper()
	raw := bytes.TrimSuffix(m.lines[line], []byte("\n"))
	_, shard, index, ok := splitPlace(raw)
	if !ok {
		t.Fatal("not an event")
	}
	end := m.kept[len(m.kept)-1]
	p, err := ProveInclusion(index, end.Head(shard).Size)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range m.lines[:m.events] {
		other = bytes.TrimSuffix(other, []byte("\n"))
		if cut, s, _, _ := splitPlace(other); s == shard {
			p.Leaf(LeafHash(append(bytes.Clone(other[:cut]), '}')))
		}
	}
	path, err := p.Proof()
	if err != nil {
		t.Fatal(err)
	}
	return EventProof{Event: string(raw), Path: path, Checkpoint: end.Note}
}

// TestAdvisory_CVE_2022_36111: a proof is bound to this event,
// this log and this size. Every changed bit, every other event, log, checkpoint or path is refused; what can't be read
// is refused too.
func TestAdvisory_CVE_2022_36111(t *testing.T) {
	m := makeLog(t, "store", 60, 2, 20)
	other := makeLog(t, "another", 60, 2, 20)
	for i := range m.events {
		p := makeProof(t, &m, i)
		if c, err := p.Verify(m.key); err != nil || c.Note != m.kept[len(m.kept)-1].Note {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	good := makeProof(t, &m, 33)
	refuse := func(what string, p EventProof, key *Key) {
		t.Helper()
		if _, err := p.Verify(key); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", what, err)
		}
	}
	with := func(change func(*EventProof)) EventProof {
		p := good
		p.Path = append([]Hash(nil), good.Path...)
		change(&p)
		return p
	}
	refuse("another log's key", good, other.key)
	refuse("another event", with(func(p *EventProof) { p.Event = makeProof(t, &m, 34).Event }), m.key)
	refuse("another event's path", with(func(p *EventProof) { p.Path = makeProof(t, &m, 34).Path }), m.key)
	refuse("another log's event, whole", makeProof(t, &other, 33), m.key)
	refuse("another log's checkpoint", with(func(p *EventProof) { p.Checkpoint = other.kept[2].Note }), m.key)
	refuse("an older checkpoint", with(func(p *EventProof) { p.Checkpoint = m.kept[0].Note }), m.key)
	refuse("no checkpoint", with(func(p *EventProof) { p.Checkpoint = "" }), m.key)
	refuse("no path", with(func(p *EventProof) { p.Path = nil }), m.key)
	refuse("a longer path", with(func(p *EventProof) { p.Path = append(p.Path, Hash{}) }), m.key)
	refuse("a shorter path", with(func(p *EventProof) { p.Path = p.Path[1:] }), m.key)
	refuse("an event without its place", with(func(p *EventProof) { p.Event = `{"a":1}` }), m.key)
	refuse("nothing", EventProof{}, m.key)

	text := good.AppendJSON(nil)
	back, err := ParseEventProof(text)
	if err != nil || back.Event != good.Event || !reflect.DeepEqual(back.Path, good.Path) {
		t.Fatalf("the proof's text doesn't bring it back: %v", err)
	}
	accepted := 0
	for i := range text {
		for bit := range 8 {
			b := bytes.Clone(text)
			b[i] ^= 1 << bit
			p, err := ParseEventProof(b)
			if err == nil {
				_, err = p.Verify(m.key)
			}
			if err == nil {
				accepted++
				t.Errorf("bit %d of byte %d flipped: accepted", bit, i)
			}
		}
		if _, err := ParseEventProof(text[:i]); err == nil {
			t.Errorf("cut at %d: accepted", i)
		}
	}
	t.Logf("%d flipped bits, %d accepted", 8*len(text), accepted)
}
