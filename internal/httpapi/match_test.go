package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"
)

// Row 46: a path that some other reader could take for another one is refused, whatever stands where.
func TestAdvisory_CVE_2026_3605(t *testing.T) {
	r := newRig(t)
	srv := httptest.NewServer(r)
	defer srv.Close()
	for _, raw := range []string{
		"/v1/keys/../keys/phi", "/v1/keys/./phi", "/v1//keys/phi", "/v1/keys/phi/", "/v1/keys/", "/v1/keys/..", "/v1/keys/.",
		"/v1/keys/%2e%2e/phi", "/v1/keys/%2E", "/v1/keys/a%2fb", "/v1/keys/a%2Fb", "/v1/keys/%70hi", "/v1/keys/a%00", "/v1/keys/a%5cb", "/v1/keys/a%20b",
		"/v1/keys/a;b", "/v1/keys/a:b", "/v1/keys/a*", "/v1/keys/*", "/v1/keys/{key}", "/v1/keys/a%25b", "/v1/keys/a%C0%AF", "/v1/keys/...", "/v1/keys/%EF%BC%8E",
		"/v1/keys/a+b", "/v1/keys/a@b", "/v1/keys/a~b", "/v1/keys/" + strings.Repeat("a", 2000), "/v1/keys/..;/phi", "/V1/../v1/keys",
	} {
		req, err := http.NewRequest("GET", srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = raw // sent as it is
		req.Header.Set("Authorization", goodToken)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", raw, res.StatusCode)
		}
	}
	if w := r.call("GET", "//v1/keys/phi", "", goodToken); w.Code != http.StatusBadRequest {
		t.Errorf("an empty first segment: %d", w.Code)
	}
	if r.fake.count() != 0 {
		t.Errorf("%d calls of a service", r.fake.count())
	}
}

// FuzzPath: a path that is accepted is its own clean form, has no escape, and the name that the router finds stands in it
// as a segment: the router, the decision and the audit record see the same bytes.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/v1/keys/phi", "/v1/keys/a%2fb", "/v1/../x", "/", "/v1/keys/a.b-c_D/encrypt/batch", "*", "http://h/v1/keys/x"} {
		f.Add(seed)
	}
	routes := newRig(f).router
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil || checkPath(u) != nil {
			return
		}
		if path.Clean(u.Path) != u.Path || u.EscapedPath() != u.Path || strings.ContainsAny(u.Path, "%\\\x00;:*{} ") {
			t.Fatalf("accepted %q", raw)
		}
		rows, name := routes.find(u.Path)
		for _, row := range rows {
			if want := variable.ReplaceAllLiteralString(row.Pattern, name); want != u.Path {
				t.Fatalf("%q found the row of %q with the name %q", u.Path, row.Pattern, name)
			}
		}
	})
}

func TestRouterFindsEveryRow(t *testing.T) {
	r := newRig(t)
	for _, row := range r.Routes() {
		rows, name := r.router.find(target(row))
		found := false
		for _, other := range rows {
			found = found || other == row
		}
		if hasName := variable.MatchString(row.Pattern); !found || hasName != (name == "abc") {
			t.Errorf("%s %s: %d rows, name %q", row.Method, row.Pattern, len(rows), name)
		}
	}
	w := r.call("PUT", "/v1/keys/phi", "", goodToken)
	if w.Header().Get("Allow") != "GET" {
		t.Errorf("Allow: %q", w.Header().Get("Allow"))
	}
	if w := r.call("PUT", "/v1/keys", "", goodToken); w.Header().Get("Allow") != "GET, POST" {
		t.Errorf("Allow: %q", w.Header().Get("Allow"))
	}
}

func TestTwoRowsForOnePathPanic(t *testing.T) {
	for name, routes := range map[string][]*Route{
		"the same":            {{Method: "GET", Pattern: "/v1/keys/{key}"}, {Method: "GET", Pattern: "/v1/keys/{other}"}},
		"variable elsewhere":  {{Method: "GET", Pattern: "/v1/{kind}/x"}},
		"variable at the end": {{Method: "GET", Pattern: "/v1/keys/x/{y}"}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			newRouter(routes)
		}()
	}
}

// Row 84: label values come from the table; a hundred thousand paths, names and methods make no new series.
func TestAdvisory_CVE_2026_23831(t *testing.T) {
	r := newRig(t)
	series := func() int {
		families, err := r.metrics.Registry().Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), "keyturn_") {
				n += len(f.GetMetric())
			}
		}
		return n
	}
	before := series()
	name := make([]byte, 0, 32)
	for i := range 100_000 {
		name = time.Unix(int64(i), 0).AppendFormat(name[:0], "x20060102150405")
		method := []string{"GET", "POST", string(name)}[i%3]
		r.call(method, "/v1/keys/"+string(name), "", []string{goodToken, "", "Bearer " + string(name)}[i%3])
	}
	if after := series(); after != before || before < len(r.Routes()) {
		t.Errorf("%d series before, %d after", before, after)
	}
}
