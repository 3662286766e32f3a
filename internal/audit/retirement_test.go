package audit

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Many proofs made at once are those that are made one by one.
func TestProveAllAgreesWithProveInclusion(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		size := rnd.Uint64N(300) + 1
		leaves := make([]Hash, size)
		for i := range leaves {
			leaves[i] = LeafHash([]byte{byte(i), byte(i >> 8)})
		}
		var indexes []uint64
		for range rnd.IntN(20) + 1 {
			indexes = append(indexes, rnd.Uint64N(size))
		}
		all, err := ProveAll(indexes, size)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range leaves {
			all.Leaf(h)
		}
		for i, index := range indexes {
			one, err := ProveInclusion(index, size)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range leaves {
				one.Leaf(h)
			}
			want, _ := one.Proof()
			got, err := all.Proof(i)
			if err != nil || len(got) != len(want) {
				t.Fatalf("event %d of %d: %d steps, want %d, %v", index, size, len(got), len(want), err)
			}
			for n := range want {
				if got[n] != want[n] {
					t.Fatalf("event %d of %d: step %d differs", index, size, n)
				}
			}
		}
	}
	if _, err := ProveAll([]uint64{3}, 3); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("an event beyond the end: %v", err)
	}
}

// life is a log with the whole life of version 1 of phi and other things in between.
func life(t *testing.T) (document []byte, key *Key) {
	t.Helper()
	secret, public, err := GenerateKey(rand.NewChaCha8([32]byte{7}), "0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	signer, _ := NewSigner(secret)
	key, _ = ParseKey(public)
	at := func(day int) time.Time { return time.Date(2026, 1, day, 10, 0, 0, 0, time.UTC) }
	events := []Event{
		{Time: at(1), Type: KeyCreate, Action: "created", Success: true, UserID: "ops", Resource: "key/phi", KeyVersion: 1, Details: Details{NewVersion: 1}},
		{Time: at(2), Type: KeyUse, Action: "encrypt", Success: true, UserID: "shop", Resource: "key/phi", KeyVersion: 1},
		{Time: at(3), Type: Reencryption, Action: "dataset-reencrypt_done", Success: true, UserID: "system", Resource: "dataset/patients", Details: Details{Dataset: "patients", Kind: "dataset-reencrypt", Changed: 7}},
		{Time: at(4), Type: KeyRotation, Action: "rotated", Success: true, UserID: "system", Resource: "key/phi", KeyVersion: 2, Reason: "scheduled_rotation", Details: Details{OldVersion: 1, NewVersion: 2}},
		{Time: at(5), Type: Reencryption, Action: "dataset-reencrypt", Success: true, UserID: "system", Resource: "dataset/patients", Details: Details{Dataset: "patients", Kind: "dataset-reencrypt", Changed: 900}},
		{Time: at(6), Type: Reencryption, Action: "dataset-reencrypt_done", Success: true, UserID: "system", Resource: "dataset/patients", Details: Details{Dataset: "patients", Kind: "dataset-reencrypt", Changed: 100}},
		{Time: at(7), Type: KeyState, Action: "destroy_scheduled", Success: false, UserID: "eve", Resource: "key/phi", KeyVersion: 1},
		{Time: at(8), Type: KeyState, Action: "destroy_scheduled", Success: true, UserID: "ops", Resource: "key/phi", KeyVersion: 1, Details: Details{FromState: "deactivated", State: "destroy-scheduled", DestroyAt: at(15)}},
		{Time: at(9), Type: KeyState, Action: "compromised", Success: true, UserID: "ops", Resource: "key/other", KeyVersion: 1, Details: Details{State: "compromised"}},
		{Time: at(10), Type: Reencryption, Action: "dataset-reencrypt_done", Success: true, UserID: "system", Resource: "dataset/patients", Details: Details{Dataset: "patients", Kind: "dataset-reencrypt"}},
		{Time: at(15), Type: KeyState, Action: "destroyed", Success: true, UserID: "system", Resource: "key/phi", KeyVersion: 1, Details: Details{FromState: "destroy-scheduled", State: "destroyed"}},
	}
	tree := &Tree{}
	var lines, wanted [][]byte
	var indexes []uint64
	for i := range events {
		line := AppendJSON(nil, &events[i])
		tree.Append(LeafHash(line))
		lines = append(lines, line)
		if exported := AppendExport(nil, line, 0, uint64(i)); Concerns(exported, "phi", 1, []string{"patients"}) {
			wanted, indexes = append(wanted, exported), append(indexes, uint64(i))
		}
	}
	c := Checkpoint{Sequence: 1, Time: at(16), Shards: []ShardHead{{Shard: 0, Size: tree.Size(), Root: tree.Root()}}}
	if err := c.Sign(signer); err != nil {
		t.Fatal(err)
	}
	all, err := ProveAll(indexes, tree.Size())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		all.Leaf(LeafHash(line))
	}
	r := api.Retirement{Log: key.Origin(), Key: "phi", KeyID: strings.Repeat("ab", 16), Version: 1, Purpose: "phi", State: "destroyed", TakenAt: at(16), Complete: true, Census: []api.RetirementCensus{{Dataset: "patients", Column: "ssn"}}}
	if err := Derive(&r, wanted); err != nil {
		t.Fatal(err)
	}
	statement, _ := json.Marshal(r)
	doc := api.RetirementDocument{Format: RetirementFormat, Statement: string(statement)}
	if doc.Signature, err = SignStatement(signer, RetirementFormat, statement); err != nil {
		t.Fatal(err)
	}
	for i := range wanted {
		path, err := all.Proof(i)
		if err != nil {
			t.Fatal(err)
		}
		p := api.RetirementProof{Event: string(wanted[i]), Checkpoint: c.Note}
		for _, h := range path {
			p.Path = append(p.Path, h[:]...)
		}
		doc.Proofs = append(doc.Proofs, p)
	}
	document, _ = json.Marshal(doc)
	return document, key
}

func TestRetirementIsDerivedFromEvents(t *testing.T) {
	document, key := life(t)
	r, err := VerifyRetirement(document, key)
	if err != nil {
		t.Fatal(err)
	}
	if r.Created == nil || r.Created.By != "ops" || r.Followed == nil || r.FollowedBy != 2 || r.Followed.At.Day() != 4 || r.Compromised != nil ||
		r.DestroyScheduled == nil || r.DestroyScheduled.At.Day() != 8 || r.DestroyDue.Day() != 15 || r.Destroyed == nil || r.Destroyed.By != "system" {
		t.Errorf("%+v", r)
	}
	if len(r.Datasets) != 1 || r.Datasets[0].RowsMoved != 1000 || r.Datasets[0].ZeroSince == nil || r.Datasets[0].ZeroSince.Day() != 6 {
		t.Errorf("%+v", r.Datasets)
	}
}

// A version that was disabled first was followed by the next one all the same; until there is one, the disabling ended it.
func TestRetirementOfWhatWasDisabledFirst(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 1, day, 10, 0, 0, 0, time.UTC) }
	disabled := Event{Time: at(2), Type: KeyState, Action: "disabled", Success: true, UserID: "eve", Resource: "key/phi", KeyVersion: 1, Reason: "laptop lost", Details: Details{FromState: "active", State: "deactivated"}}
	rotated := Event{Time: at(3), Type: KeyRotation, Action: "rotated", Success: true, UserID: "ops", Resource: "key/phi", KeyVersion: 2, Reason: "a new one", Details: Details{NewVersion: 2}}
	again := Event{Time: at(4), Type: KeyRotation, Action: "rotated", Success: true, UserID: "ops", Resource: "key/phi", KeyVersion: 3, Reason: "yearly", Details: Details{OldVersion: 2, NewVersion: 3}}
	for _, c := range []struct {
		events []Event
		by     string
		next   uint32
	}{{[]Event{disabled}, "eve", 0}, {[]Event{disabled, rotated}, "ops", 2}, {[]Event{disabled, rotated, again}, "ops", 2}} {
		r := api.Retirement{Key: "phi", Version: 1}
		var lines [][]byte
		for i := range c.events {
			if line := AppendExport(nil, AppendJSON(nil, &c.events[i]), 0, uint64(i)); Concerns(line, "phi", 1, nil) {
				lines = append(lines, line)
			}
		}
		if err := Derive(&r, lines); err != nil {
			t.Fatal(err)
		}
		if r.Followed == nil || r.Followed.By != c.by || r.FollowedBy != c.next || c.next != 0 && r.Followed.Reason != "a new one" {
			t.Errorf("after %d events: %+v by version %d", len(c.events), r.Followed, r.FollowedBy)
		}
	}
}

// Data that came back, as with a backup of its table, and was moved once more is counted, and nothing was left only since then.
func TestRetirementOfWhatCameBack(t *testing.T) {
	at := func(month int) time.Time { return time.Date(2026, time.Month(month), 2, 10, 0, 0, 0, time.UTC) }
	event := func(month int, action string, changed uint64) Event {
		return Event{Time: at(month), Type: Reencryption, Action: action, Success: true, Details: Details{Dataset: "patients", Kind: "dataset-reencrypt", Changed: changed}}
	}
	followed := Event{Time: at(1), Type: KeyRotation, Action: "rotated", Success: true, Resource: "key/phi", KeyVersion: 2, Details: Details{OldVersion: 1, NewVersion: 2}}
	from := func(e Event, moved string) Event {
		e.Details.Moved = moved
		return e
	}
	first, looked := event(2, "dataset-reencrypt_done", 100), event(3, "dataset-reencrypt_done", 0)
	back, last := event(4, "dataset-reencrypt", 49_000), event(5, "dataset-reencrypt_done", 1000)
	for name, c := range map[string]struct {
		events []Event
		left   int64 // in the census
		rows   int64
		zero   int // the month; 0 = never
	}{
		"moved once":          {[]Event{followed, first, looked}, 0, 100, 2},
		"under way once more": {[]Event{followed, first, looked, back}, 0, 49_100, 0},
		"moved once more":     {[]Event{followed, first, looked, back, last}, 0, 50_100, 5},
		"of another key":      {[]Event{followed, from(first, "phi:1=60 pii:1=40"), looked, from(back, "phi:12=8000 pii:1=41000"), from(last, "pii:1=1000")}, 0, 60, 2},
		"of this one too":     {[]Event{followed, from(first, "phi:1=60 pii:1=40"), from(back, "pii:1=49000"), from(last, "phi:1=1 phi:2=999")}, 0, 61, 5},
		"perhaps of this one": {[]Event{followed, from(first, "phi:1=100"), from(back, "phi:1=0 phi:2=48999"), last}, 0, 1100, 5},
		"back and not moved":  {[]Event{followed, first, looked}, 7, 100, 0},
	} {
		r := api.Retirement{Key: "phi", Version: 1, Census: []api.RetirementCensus{{Dataset: "patients", Column: "ssn", Rows: c.left}, {Dataset: "others", Column: "ssn", Rows: 9}}}
		var lines [][]byte
		for i := range c.events {
			if line := AppendExport(nil, AppendJSON(nil, &c.events[i]), 0, uint64(i)); Concerns(line, "phi", 1, []string{"patients"}) {
				lines = append(lines, line)
			}
		}
		if err := Derive(&r, lines); err != nil || len(r.Datasets) != 1 {
			t.Fatalf("%s: %+v, %v", name, r.Datasets, err)
		}
		d := r.Datasets[0]
		if d.RowsMoved != c.rows || (d.ZeroSince != nil) != (c.zero > 0) || d.ZeroSince != nil && !d.ZeroSince.Equal(at(c.zero)) {
			t.Errorf("%s: %d rows, nothing left since %v; want %d, month %d", name, d.RowsMoved, d.ZeroSince, c.rows, c.zero)
		}
	}
	if _, err := VerifyRetirement([]byte(`{"format":"retirement/1","statement":"{}","signature":"","proofs":[]}`), nil); fault.CodeOf(err) != api.CodeIntegrity || fault.NextOf(err) == "" {
		t.Errorf("one of an earlier release: %v", err)
	}
}

// No byte of a retirement can be changed, no event left out, doubled or put in, and no other key's signature stands for it.
func TestAdvisory_CVE_2022_36111_retirement(t *testing.T) {
	document, key := life(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	tried := 0
	for range 600 {
		changed := bytes.Clone(document)
		at := rnd.IntN(len(changed))
		changed[at] ^= 1 << rnd.IntN(8)
		if _, err := VerifyRetirement(changed, key); err == nil {
			var a, b api.RetirementDocument
			if json.Unmarshal(changed, &a) == nil && json.Unmarshal(document, &b) == nil && jsonEqual(a, b) {
				continue // white space of the file, or another spelling of the same text: nothing that is said has changed
			}
			t.Fatalf("byte %d changed, and it verifies", at)
		}
		tried++
	}
	var doc api.RetirementDocument
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	for i := range doc.Proofs {
		for what, proofs := range map[string][]api.RetirementProof{
			"left out": append(append([]api.RetirementProof{}, doc.Proofs[:i]...), doc.Proofs[i+1:]...),
			"doubled":  append(append([]api.RetirementProof{}, doc.Proofs...), doc.Proofs[i]),
		} {
			other := doc
			other.Proofs = proofs
			text, _ := json.Marshal(other)
			if _, err := VerifyRetirement(text, key); fault.CodeOf(err) != api.CodeIntegrity {
				t.Errorf("event %d %s: %v", i, what, err)
			}
		}
	}
	other := doc
	other.Signature = doc.Proofs[0].Checkpoint // the same key's signature of something else
	text, _ := json.Marshal(other)
	if _, err := VerifyRetirement(text, key); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("a checkpoint for a signature: %v", err)
	}
	if _, err := ParseCheckpoint(doc.Signature, key); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("a statement for a checkpoint: %v", err)
	}
	_, stranger, _ := GenerateKey(rand.NewChaCha8([32]byte{9}), "0123456789abcdef0123456789abcdef")
	strange, _ := ParseKey(stranger)
	if _, err := VerifyRetirement(document, strange); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("another log's key: %v", err)
	}
	if tried < 450 {
		t.Errorf("only %d changes were refused", tried)
	}
}

// A file is one document that means the same to every reader: nothing behind it, each member once, in its spelling. How it is laid
// out says nothing.
func TestRetirementIsOneDocument(t *testing.T) {
	document, key := life(t)
	text := strings.TrimSpace(string(document))
	forged := strings.Replace(text, `\"rowsMoved\":`, `\"rowsMoved\":1`, 1)
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(document, &parts); err != nil {
		t.Fatal(err)
	}
	first, proof, _ := strings.Cut(text, `"proofs":[{`)
	for what, bad := range map[string]string{
		"a second document":              text + "\n" + forged,
		"a forged one in front":          forged + text,
		"text":                           text + " approved",
		"a bracket":                      text + "}",
		"a byte of zero":                 text + "\x00",
		"a doubled member":               `{"statement":"{}",` + text[1:],
		"a doubled member, at the end":   text[:len(text)-1] + `,"statement":"{}"}`,
		"a doubled member, escaped":      `{"\u0073tatement":"{}",` + text[1:],
		"a doubled member of a proof":    first + `"proofs":[{"event":"{}",` + proof,
		"a member in another spelling":   strings.Replace(text, `"format"`, `"Format"`, 1),
		"a member twice, in two of them": `{"Statement":"{}",` + text[1:],
		"an unknown member":              `{"approved":true,` + text[1:],
		"a member less":                  strings.Replace(text, `"format":"`+RetirementFormat+`",`, "", 1),
		"null for the proofs":            first + `"proofs":null}`,
		"a byte that isn't UTF-8":        strings.Replace(text, RetirementFormat, RetirementFormat+"\xff", 1),
	} {
		if bad == text {
			t.Fatalf("%s: nothing was changed", what)
		}
		if _, err := VerifyRetirement([]byte(bad), key); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := VerifyRetirement([]byte(text+forged), key); !strings.Contains(fault.MessageOf(err), "something stands behind the document") {
		t.Errorf("%v", err)
	}
	sorted, err := json.MarshalIndent(parts, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	for what, good := range map[string]string{"as written": text, "white space": " \t\r\n" + text + "\n\n", "printed anew, sorted": string(sorted)} {
		if _, err := VerifyRetirement([]byte(good), key); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func jsonEqual(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}
