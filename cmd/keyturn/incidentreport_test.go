package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// evil is what must come out of a page as text.
const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>{{.}}javascript:alert(3)` + "\u2028" + `</pre></style>'`

// evilReport is a report whose every text is evil.
func evilReport() *api.IncidentReport {
	r := &api.IncidentReport{}
	rows := int64(3)
	r.Report.Remaining = &rows
	now := time.Date(2026, 1, 15, 10, 30, 45, 0, time.UTC)
	r.Report.Incident.Closed = &now
	r.Report.Incident.Emergency = true
	r.Report.KeyProgress = []api.IncidentKey{{Versions: make([]api.IncidentVersionState, 1)}}
	r.Report.Datasets = []api.IncidentDataset{{Held: make([]api.IncidentHeld, 1)}}
	r.Report.Uses = []api.IncidentUse{{Could: []api.IncidentPrincipal{{Actions: make([]string, 1)}}, Did: make([]api.IncidentUser, 1)}}
	r.Report.Timeline = make([]api.IncidentEntry, 1)
	r.Report.Withheld = make([]string, 1)
	r.Actions = make([]api.IncidentAction, 1)
	r.Shards = make([]api.AuditShard, 1)
	fillStrings(reflect.ValueOf(r).Elem(), evil)
	return r
}

// fillStrings sets every string of a value that is there.
func fillStrings(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fillStrings(v.Field(i), text)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fillStrings(v.Index(i), text)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			fillStrings(v.Elem(), text)
		}
	}
}

// Whatever a reason, a name, a note or an error says, it comes out of the evidence file as text: the page has no script, no
// element and no attribute that isn't its own, and a policy that lets a browser load and run nothing.
func TestAdvisory_CVE_2023_2121(t *testing.T) { evidenceIsText(t) }

// No data stands where html/template would have to know a script, a style or an address from text.
func TestAdvisory_CVE_2026_39826(t *testing.T) { evidenceIsText(t) }

func evidenceIsText(t *testing.T) {
	t.Helper()
	var page, plain bytes.Buffer
	if err := writeReport(&page, evilReport()); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(&plain, &api.IncidentReport{}); err != nil {
		t.Fatal(err)
	}
	html := page.String()
	tags := regexp.MustCompile(`<[a-zA-Z!/][^>]*>`)
	own := map[string]bool{}
	for _, tag := range tags.FindAllString(reportPage, -1) {
		own[tag] = true
	}
	policy := tags.FindString(html[strings.Index(html, `<meta http-equiv="Content-Security-Policy"`):])
	for _, tag := range tags.FindAllString(html, -1) {
		if !own[tag] && tag != policy {
			t.Errorf("the page has an element that isn't its own: %.80s", tag)
		}
	}
	if !strings.Contains(policy, "default-src &#39;none&#39;") || strings.Contains(policy, "unsafe") || policy != tags.FindString(plain.String()[strings.Index(plain.String(), `<meta http-equiv="Content`):]) {
		t.Errorf("the policy: %s", policy)
	}
	for _, bad := range []string{"<script", "<img", "</pre></style>"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if n := strings.Count(html, "&lt;img src=x onerror=alert(1)&gt;"); n < 20 {
		t.Errorf("only %d of the texts are in the page", n)
	}
}

// Both files are of one struct: what the JSON holds is what the page was made from, and reads back.
func TestReportInJSON(t *testing.T) {
	var out bytes.Buffer
	want := evilReport()
	if err := reportFormats["json"](&out, want); err != nil {
		t.Fatal(err)
	}
	var got api.IncidentReport
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || !reflect.DeepEqual(got, *want) {
		t.Errorf("read back: %+v, %v", got, err)
	}
}

func TestKeyVersions(t *testing.T) {
	got, err := keyVersions("compromised", []string{"phi:3", "a.b-c:4294967295"})
	if err != nil || len(got) != 2 || got[0] != (api.IncidentVersion{Key: "phi", Version: 3}) || got[1].Version != 4294967295 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "phi", "phi:", ":3", "phi:0", "phi:-1", "phi:x", "phi:4294967296", "phi:3:4", "phi: 3", "phi:٣"} {
		if got, err := keyVersions("compromised", []string{bad}); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}
