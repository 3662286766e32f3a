package vault

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tokens answers lookups and renewals from a script, in the time of a synctest bubble.
type tokens struct {
	mu       sync.Mutex // guards what follows
	renewals []string   // answers, in order: seconds of life, or a status like "503"
	lookup   string
	asked    []time.Time
}

func (s *tokens) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	if strings.HasSuffix(r.URL.Path, "/lookup-self") {
		return answer(200, s.lookup)
	}
	s.asked = append(s.asked, time.Now())
	if len(s.renewals) == 0 {
		return answer(403, `{"errors":["permission denied"]}`)
	}
	next := s.renewals[0]
	s.renewals = s.renewals[1:]
	if next == "400" {
		return answer(400, `{}`)
	}
	return answer(200, fmt.Sprintf(`{"auth":{"client_token":"t","lease_duration":%s,"renewable":true}}`, next))
}

// renewedAt runs a client for an hour of a bubble's time and gives the seconds at which it asked to be renewed.
func renewedAt(t *testing.T, script *tokens) (at []int) {
	synctest.Test(t, func(t *testing.T) {
		env := map[string]string{"VAULT_ADDR": "https://vault.example.org", "VAULT_TOKEN": "t"}
		start := time.Now()
		c, err := Dial(t.Context(), Config{Transport: script, Lookup: func(name string) (string, bool) { return env[name], env[name] != "" }})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for _, when := range script.asked {
			at = append(at, int(when.Sub(start).Seconds()))
		}
	})
	return at
}

// CVE-2021-32923: a life of zero seconds is the end, at its longest life, and never a life without end; nor is one that grows
// past all bounds. Renewing stops there and doesn't spin.
func TestAdvisory_CVE_2021_32923(t *testing.T) {
	for name, c := range map[string]struct {
		lookup   string
		renewals []string
		want     []int
	}{
		"renewed at two thirds": {`{"data":{"ttl":600,"renewable":true}}`, []string{"1200", "9999"}, []int{400, 1200}},
		"no more life":          {`{"data":{"ttl":600,"renewable":true}}`, []string{"0"}, []int{400}},
		"negative life":         {`{"data":{"ttl":600,"renewable":true}}`, []string{"-5"}, []int{400}},
		"endless life":          {`{"data":{"ttl":600,"renewable":true}}`, []string{"9223372036854775807"}, []int{400}},
		"tiny lives":            {`{"data":{"ttl":3,"renewable":true}}`, []string{"1", "1", "0"}, []int{2, 3, 4}},
		"longest life nears":    {`{"data":{"ttl":90,"renewable":true}}`, []string{"30", "10", "4", "0"}, []int{60, 80, 86, 89}},
		"not renewable":         {`{"data":{"ttl":600,"renewable":false}}`, nil, nil},
		"root":                  {`{"data":{"ttl":0,"renewable":true}}`, nil, nil},
		"may not look":          {`<html>`, nil, nil},
		"tried until it ends":   {`{"data":{"ttl":90,"renewable":true}}`, nil, []int{60, 70, 76, 81, 84, 86, 87, 88, 89}},
		"refused once":          {`{"data":{"ttl":90,"renewable":true}}`, []string{"400", "36000"}, []int{60, 70}},
	} {
		got := renewedAt(t, &tokens{lookup: c.lookup, renewals: c.renewals})
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: asked at %v, want %v", name, got, c.want)
		}
	}
}
