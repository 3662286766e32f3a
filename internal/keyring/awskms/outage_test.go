package awskms_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awskms"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/mototest"
)

// FAULTS 20, an outage of the master key, for each way of being out: what was opened goes on, nothing new is wrapped, a
// ring that starts meanwhile stays shut unless another master key opens it, and with the service all is back by itself.
func TestOutage(t *testing.T) {
	mototest.Env(t)
	to, err := url.Parse(startStandIn(t))
	if err != nil {
		t.Fatal(err)
	}
	const kmsURL = "awskms:///alias/one?region=us-east-1"
	denied := map[string]string{"__type": "AccessDeniedException", "message": "User: x is not authorized to perform: kms:Decrypt"}
	for name, c := range map[string]struct {
		out  http.HandlerFunc
		want api.Code
	}{
		"5xx": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, api.CodeUnavailable},
		"throttled": {func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, 400, map[string]string{"__type": "ThrottlingException"})
		}, api.CodeUnavailable},
		"revoked": {func(w http.ResponseWriter, _ *http.Request) { writeError(w, 400, denied) }, api.CodeDenied},
		"silent": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server wouldn't notice that the client went away
			<-r.Context().Done()
		}, api.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var away atomic.Bool
			through := httputil.NewSingleHostReverseProxy(to)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if away.Load() {
					c.out(w, r)
					return
				}
				through.ServeHTTP(w, r)
			}))
			defer server.Close()
			other := keyringtest.Master(t, "other")
			src := &keyringtest.Source{}
			ring := keyringtest.NewRing(t, src, mustOpen(t, server.URL, kmsURL), other)
			key := keyringtest.NewKey(t, ring, src, "phi")
			opens := func(what string, want api.Code, masters ...keyring.MasterKey) {
				t.Helper()
				r := keyring.New(keyringtest.Tenant, masters, src)
				if err := r.Open(t.Context()); fault.CodeOf(err) != want {
					t.Errorf("%s: %v, want code %q", what, err, want)
				}
			}
			start := func() keyring.MasterKey {
				t.Helper()
				t.Setenv("AWS_ENDPOINT_URL", server.URL)
				masters, err := keyring.OpenMasters(t.Context(), []keyring.Driver{awskms.Driver{Limit: limit / 3}}, []string{kmsURL})
				if err != nil {
					t.Fatal(err)
				}
				return masters[0]
			}
			away.Store(true)
			if _, err := ring.Version(t.Context(), &key, 1); err != nil {
				t.Errorf("what was opened: %v", err)
			}
			if _, err := ring.NewKEKs(t.Context(), keys.KEKPurposes()); fault.CodeOf(err) != c.want {
				t.Errorf("wrapping under all master keys while one is out: %v, want code %q", err, c.want)
			}
			opens("a start with this master key alone", c.want, start())
			opens("a start with another one beside it", "", start(), other)
			away.Store(false)
			if _, err := ring.NewKEKs(t.Context(), keys.KEKPurposes()); err != nil {
				t.Errorf("back again: %v", err)
			}
			opens("a start when it is back", "", start())
		})
	}
}
