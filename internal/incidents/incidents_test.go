package incidents

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

var now = time.Date(2026, 1, 15, 10, 30, 45, 0, time.UTC)

func TestIDsSortByOpening(t *testing.T) {
	var ids []string
	for i := range 100 {
		id, err := NewID(now.Add(time.Duration(i)*time.Millisecond), rand.Reader)
		if err != nil || !ValidID(id) {
			t.Fatalf("%q, %v", id, err)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) {
		t.Error("ids don't sort by their time")
	}
	if _, err := NewID(now, iotest.ErrReader(errors.New("broken"))); err == nil {
		t.Error("an id without randomness")
	}
	for _, bad := range []string{"", "inc-", ids[0][1:], ids[0] + "0", ids[0][:27] + "z", strings.ToUpper(ids[0]), strings.TrimPrefix(ids[0], "inc-"), " " + ids[0], "inc-../../../../../../../etc"} {
		if ValidID(bad) {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}

// An incident is opened and closed, once: every state, and whether it may be changed.
func TestLife(t *testing.T) {
	i := Incident{ID: "inc-x", State: Open}
	closed, err := i.Close("ann", "done", now)
	if err != nil || closed.State != Closed || closed.ClosedBy != "ann" || closed.ClosedReason != "done" || !closed.Closed.Equal(now) || i.State != Open {
		t.Errorf("%+v, %v", closed, err)
	}
	if again, err := closed.Close("bob", "again", now); fault.CodeOf(err) != api.CodeWrongState || again.ClosedBy != "ann" {
		t.Errorf("closed again: %+v, %v", again, err)
	}
	for state, open := range map[State]bool{Open: true, Closed: false, "": false, "OPEN": false, "contained": false} {
		if err := (Incident{State: state}).MayChange("noting in"); (err == nil) != open {
			t.Errorf("%q: %v", state, err)
		}
		if state.Valid() != (state == Open || state == Closed) {
			t.Errorf("%q is valid: %v", state, state.Valid())
		}
	}
}

func TestClosedLists(t *testing.T) {
	for _, k := range Types() {
		if err := ValidateType(k); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	for _, s := range Severities() {
		if err := ValidateSeverity(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, bad := range []string{"", "Other", "other ", "оther", "fire"} {
		if err := ValidateType(Type(bad)); fault.FieldOf(err) != "type" || !strings.Contains(fault.NextOf(err), "device-loss") {
			t.Errorf("type %q: %v", bad, err)
		}
		if err := ValidateSeverity(Severity(bad)); fault.FieldOf(err) != "severity" || !strings.Contains(fault.NextOf(err), "critical") {
			t.Errorf("severity %q: %v", bad, err)
		}
	}
	if ValidateSeverity(DefaultSeverity) != nil {
		t.Error("the default severity is none")
	}
}

// Texts are kept as people write them, in every script; what would look different from what it is, is refused.
func TestTexts(t *testing.T) {
	for _, good := range []string{"laptop stolen", "笔记本被盗", "مسروق", "ноутбук украден", "😱 \u00e9e\u0301", `"><img src=x onerror=alert(1)>`, strings.Repeat("x", MaxReason)} {
		if err := ValidateReason(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, code := range map[string]api.Code{
		"": api.CodeInvalid, " \t ": api.CodeInvalid, "a\nb": api.CodeInvalid, "a\x00b": api.CodeInvalid, "a\x1b[2Jb": api.CodeInvalid, "a\u0085b": api.CodeInvalid,
		"a\u202eb": api.CodeInvalid, "a\u2066b": api.CodeInvalid, "a\u200fb": api.CodeInvalid, "a\xffb": api.CodeInvalid, strings.Repeat("x", MaxReason+1): api.CodeTooLarge,
	} {
		err := ValidateReason(bad)
		if fault.CodeOf(err) != code || fault.FieldOf(err) != "reason" {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	if err := ValidateText("details", "a\n\tb\r\n"+strings.Repeat("y", MaxDetails-6)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{strings.Repeat("y", MaxDetails+1), "a\u202db", "\x07", "\xc3"} {
		if err := ValidateText("text", bad); err == nil || fault.FieldOf(err) != "text" {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestCompromisedOf(t *testing.T) {
	i := Incident{Versions: []Version{{Key: "phi", Number: 3}, {Key: "pii", Number: 1}, {Key: "phi", Number: 1}}}
	if got := i.CompromisedOf("phi"); !slices.Equal(got, []uint32{1, 3}) {
		t.Errorf("%v", got)
	}
	if got := i.CompromisedOf("ph"); got != nil {
		t.Errorf("%v", got)
	}
}

func TestPageSize(t *testing.T) {
	for limit, want := range map[int]int{-1: 100, 0: 100, 1: 1, 1000: 1000, 1001: 1000} {
		if got := (Filter{Limit: limit}).PageSize(); got != want {
			t.Errorf("limit %d: %d", limit, got)
		}
	}
}
