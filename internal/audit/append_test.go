package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// wire is the line as encoding/json writes it: the oracle of the append codec.
type wire struct {
	Time        string       `json:"timestamp"`
	Type        EventType    `json:"event_type"`
	Action      string       `json:"action"`
	Success     bool         `json:"success"`
	UserID      string       `json:"user_id"`
	Role        string       `json:"role,omitempty"`
	Resource    string       `json:"resource"`
	KeyVersion  uint32       `json:"key_version,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	RequestID   string       `json:"request_id,omitempty"`
	SourceIP    string       `json:"source_ip,omitempty"`
	Details     *wireDetails `json:"details,omitempty"`
	ProcessID   int          `json:"process_id"`
	Environment string       `json:"environment"`
}

type wireDetails struct {
	Source           string          `json:"source,omitempty"`
	Method           string          `json:"method,omitempty"`
	Principal        string          `json:"principal,omitempty"`
	OrderedBy        string          `json:"ordered_by,omitempty"`
	Role             string          `json:"role,omitempty"`
	Token            string          `json:"token,omitempty"`
	Node             string          `json:"node,omitempty"`
	Code             string          `json:"code,omitempty"`
	Field            string          `json:"field,omitempty"`
	State            string          `json:"state,omitempty"`
	FromState        string          `json:"from_state,omitempty"`
	Key              string          `json:"key,omitempty"`
	Purpose          string          `json:"purpose,omitempty"`
	Algorithm        string          `json:"algorithm,omitempty"`
	OldVersion       uint32          `json:"old_version,omitempty"`
	NewVersion       uint32          `json:"new_version,omitempty"`
	NextRotationDue  string          `json:"next_rotation_due,omitempty"`
	DestroyAt        string          `json:"destroy_at,omitempty"`
	ComplianceStatus string          `json:"compliance_status,omitempty"`
	KEK              string          `json:"kek,omitempty"`
	MasterKey        string          `json:"master_key,omitempty"`
	Label            string          `json:"label,omitempty"`
	Length           uint64          `json:"length,omitempty"`
	Context          json.RawMessage `json:"context,omitempty"`
	Emergency        bool            `json:"emergency,omitempty"`
	Escrow           string          `json:"escrow,omitempty"`
	Threshold        uint64          `json:"threshold,omitempty"`
	Shares           uint64          `json:"shares,omitempty"`
	Items            uint64          `json:"items,omitempty"`
	Failed           uint64          `json:"failed,omitempty"`
	Rows             uint64          `json:"rows,omitempty"`
	Changed          uint64          `json:"changed,omitempty"`
	Skipped          uint64          `json:"skipped,omitempty"`
	Conflicts        uint64          `json:"conflicts,omitempty"`
	Opened           uint64          `json:"opened,omitempty"`
	Plaintext        uint64          `json:"plaintext,omitempty"`
	Unreadable       uint64          `json:"unreadable,omitempty"`
	Dataset          string          `json:"dataset,omitempty"`
	Table            string          `json:"table,omitempty"`
	Column           string          `json:"column,omitempty"`
	Job              string          `json:"job,omitempty"`
	Kind             string          `json:"kind,omitempty"`
	From             string          `json:"from,omitempty"`
	Candidates       string          `json:"candidates,omitempty"`
	Moved            string          `json:"moved,omitempty"`
	Events           uint64          `json:"events,omitempty"`
	Version          string          `json:"version,omitempty"`
	Count            uint64          `json:"count,omitempty"`
	Duration         uint64          `json:"duration_ms,omitempty"`
	ValueMasked      string          `json:"value_masked,omitempty"`
	ValueHash        string          `json:"value_hash,omitempty"`
	Incident         string          `json:"incident,omitempty"`
	Scope            string          `json:"scope,omitempty"`
	Severity         string          `json:"severity,omitempty"`
}

// oracle writes the event with encoding/json. Fields are joined by name, so a field that one side lacks fails the test.
func oracle(t fataler, e *Event) []byte {
	w := wire{Details: &wireDetails{}}
	join(t, reflect.ValueOf(e).Elem(), reflect.ValueOf(&w).Elem())
	if e.Details == (Details{}) {
		w.Details = nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(w); err != nil {
		t.Fatalf("the oracle can't encode: %v", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

type fataler interface{ Fatalf(string, ...any) }

func join(t fataler, from, to reflect.Value) {
	if from.NumField() != to.NumField() {
		t.Fatalf("%s has %d fields, the oracle %d", from.Type(), from.NumField(), to.NumField())
	}
	for i := range from.NumField() {
		name, v := from.Type().Field(i).Name, from.Field(i)
		target := to.FieldByName(name)
		switch x := v.Interface().(type) {
		case time.Time:
			switch {
			case name == "Time":
				target.SetString(x.UTC().Format("2006-01-02T15:04:05.000000Z"))
			case !x.IsZero():
				target.SetString(x.UTC().Format(time.RFC3339))
			}
		case Details:
			join(t, v, target.Elem())
		default:
			if name == "Context" {
				target.SetBytes(contextOracle(t, v.String()))
				continue
			}
			target.Set(v)
		}
	}
}

// contextOracle is the context as JSON: itself when it is a flat object of strings with distinct names.
func contextOracle(t fataler, text string) []byte {
	if text == "" {
		return nil
	}
	if m := map[string]string{}; strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &m) == nil && isFlatObject(text) {
		return []byte(text)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		t.Fatalf("encoding a context: %v", err)
	}
	return bytes.TrimSpace(out.Bytes())
}

// sampleEvent is PRODUCT's own example.
func sampleEvent() Event {
	return Event{
		Time: time.Date(2026, 1, 15, 10, 30, 45, 123456000, time.UTC), Type: KeyRotation, Action: "rotated", Success: true,
		UserID: "system", Role: "key-administrator", Resource: "key/phi", KeyVersion: 4, Reason: "scheduled_rotation",
		RequestID: "0f3a", SourceIP: "10.0.0.7",
		Details: Details{Source: "scheduler", OldVersion: 3, NextRotationDue: time.Date(2026, 4, 15, 10, 30, 45, 0, time.UTC),
			ComplianceStatus: "compliant"},
		ProcessID: 12345, Environment: "production",
	}
}

func TestAppendJSONIsTheDocumentedLine(t *testing.T) {
	e := sampleEvent()
	want := `{"timestamp":"2026-01-15T10:30:45.123456Z","event_type":"key_rotation","action":"rotated","success":true,"user_id":"system",` +
		`"role":"key-administrator","resource":"key/phi","key_version":4,"reason":"scheduled_rotation","request_id":"0f3a","source_ip":"10.0.0.7",` +
		`"details":{"source":"scheduler","old_version":3,"next_rotation_due":"2026-04-15T10:30:45Z","compliance_status":"compliant"},` +
		`"process_id":12345,"environment":"production","shard":0,"index":918}`
	if got := string(AppendExport(nil, AppendJSON(nil, &e), 0, 918)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestAppendJSONFieldByField sets one field at a time to awkward values and compares with encoding/json.
func TestAppendJSONFieldByField(t *testing.T) {
	var visit func(e *Event, v reflect.Value)
	check := func(e *Event, field string) {
		line := AppendJSON(nil, e)
		if want := oracle(t, e); string(line) != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", field, line, want)
		}
		if bad := scanLine(line, &fields{}); bad != "" {
			t.Errorf("%s: the scanner refuses its own codec's line: %s\n%s", field, bad, line)
		}
	}
	visit = func(e *Event, v reflect.Value) {
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			zero := reflect.Zero(f.Type())
			switch f.Interface().(type) {
			case Details:
				visit(e, f)
				continue
			case time.Time:
				for _, at := range []time.Time{time.Unix(0, 999999999), time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.FixedZone("x", 3600)), time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)} {
					f.Set(reflect.ValueOf(at))
					check(e, name)
				}
			case bool:
				f.SetBool(true)
				check(e, name)
			default:
				for _, s := range awkward {
					switch {
					case f.Kind() == reflect.String:
						f.SetString(s)
					case f.CanUint():
						f.SetUint(uint64(len(s)) << 20 & (1<<32 - 1))
					case f.CanInt():
						f.SetInt(int64(len(s)))
					}
					check(e, name)
				}
			}
			f.Set(zero)
		}
	}
	e := Event{Time: time.Unix(0, 0)}
	visit(&e, reflect.ValueOf(&e).Elem())
}

var awkward = []string{
	"", "plain", `"`, `\`, "\x00", "\b\f\n\r\t", "\x1f\x7f", "<script>&amp;", "\u2028\u2029", "é€😀", "\xff", "a\xc3", "\xed\xa0\x80",
	"\uFFFD", `{"a":"b"}`, `{"a":"b","a":"c"}`, `{"a":"b","\u0061":"c"}`, `{"a":1}`, `{}`, `{"a":"b"} `, `{"a":"\ud800"}`, `{"a":"x"`, "{\"a\":\"\xff\"}",
	`{"a":"b"},"success":false`, strings.Repeat("x", 3000),
}

func TestAppendJSONMatchesEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := randomEvent(t)
		line := AppendJSON(nil, &e)
		if want := oracle(t, &e); string(line) != string(want) {
			t.Fatalf("got\n%s\nwant\n%s", line, want)
		}
		if bad := scanLine(line, &fields{}); bad != "" {
			t.Fatalf("the scanner refuses %s: %s", line, bad)
		}
	})
}

// randomEvent fills every field of the type by reflection, so that none is forgotten.
func randomEvent(t *rapid.T) Event {
	var e Event
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			switch f.Interface().(type) {
			case Details:
				fill(f)
			case time.Time:
				f.Set(reflect.ValueOf(time.UnixMicro(rapid.Int64Range(-1<<53, 1<<53).Draw(t, name))))
			case bool:
				f.SetBool(rapid.Bool().Draw(t, name))
			default:
				switch {
				case f.Kind() == reflect.String:
					f.SetString(rapid.OneOf(rapid.String(), rapid.SampledFrom(awkward)).Draw(t, name))
				case f.CanUint():
					f.SetUint(rapid.Uint64Range(0, 1<<32-1).Draw(t, name))
				default:
					f.SetInt(rapid.Int64Range(0, 1<<22).Draw(t, name))
				}
			}
		}
	}
	fill(reflect.ValueOf(&e).Elem())
	return e
}

func FuzzAppendString(f *testing.F) {
	for _, s := range awkward {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := string(appendString(nil, s)) + "\n"; got != want.String() {
			t.Errorf("got %s want %s", got, want.String())
		}
		// As a whole line: whatever a caller sends stays inside its own field.
		e := sampleEvent()
		e.Reason, e.Details.Context = s, s
		line := AppendJSON(nil, &e)
		var back struct {
			Success bool   `json:"success"`
			Reason  string `json:"reason"`
		}
		if err := json.Unmarshal(line, &back); err != nil || !back.Success || utf8.ValidString(s) && back.Reason != s {
			t.Errorf("%q as a reason gives %s: %v", s, line, err)
		}
		if bad := scanLine(line, &fields{}); bad != "" {
			t.Errorf("%s: %s", line, bad)
		}
	})
}

func TestAppendTimeSortsLikeTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := time.UnixMicro(rapid.Int64Range(0, 253402300799999999).Draw(t, "a"))
		b := time.UnixMicro(rapid.Int64Range(0, 253402300799999999).Draw(t, "b"))
		x, y := AppendTime(nil, a), AppendTime(nil, b)
		if len(x) != TimeLen || bytes.Compare(x, y) != a.Compare(b) {
			t.Fatalf("%s and %s don't compare like %v and %v", x, y, a, b)
		}
		if want := a.UTC().Format("2006-01-02T15:04:05.000000Z"); string(x) != want {
			t.Fatalf("got %s want %s", x, want)
		}
	})
}
