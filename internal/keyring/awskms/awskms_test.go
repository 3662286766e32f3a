package awskms_test

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awskms"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keyring/remote"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/mototest"
)

// limit is short, for the parts in which nobody answers.
const limit = 3 * time.Second

var binding = keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "00112233445566778899aabbccddeeff", Version: 3, State: "active", Seq: 7}

// open opens a URL by the server at base.
func open(ctx context.Context, t *testing.T, base, url string) (keyring.MasterKey, error) {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL", base)
	return awskms.Driver{Limit: limit}.Open(ctx, url)
}

func mustOpen(t *testing.T, base, url string) keyring.MasterKey {
	t.Helper()
	k, err := open(t.Context(), t, base, url)
	if err != nil {
		t.Fatalf("opening %s: %v", url, err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// harness is how the suite reaches two keys of a server.
func harness(base, one, other string) keyringtest.RemoteHarness {
	opens := func(url string) func(context.Context, *testing.T, string, time.Duration) (keyring.MasterKey, error) {
		return func(ctx context.Context, t *testing.T, base string, limit time.Duration) (keyring.MasterKey, error) {
			t.Helper()
			t.Setenv("AWS_ENDPOINT_URL", base)
			return awskms.Driver{Limit: limit}.Open(ctx, url)
		}
	}
	says := func(code string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, text string) {
			writeError(w, http.StatusBadRequest, map[string]string{"__type": code, "message": text})
		}
	}
	return keyringtest.RemoteHarness{
		Server: base, Open: opens(one), Other: opens(other), Calls: remote.Tries,
		Throttle: says("ThrottlingException"), Deny: says("AccessDeniedException"),
		Headers: []string{"Authorization", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Target"},
		Secrets: []string{mototest.AccessKey, mototest.SecretKey, mototest.SessionToken},
	}
}

func TestRecordedAnswers(t *testing.T) {
	mototest.Env(t)
	keyringtest.ExerciseRemote(t, harness(startStandIn(t), "awskms:///alias/one?region=us-east-1", "awskms:///"+twoARN))
}

// Whatever a key is called, it is one key: the same fingerprint, and blobs that open. The fingerprint stands in stores and
// is never to be another for this ARN (P4).
func TestNames(t *testing.T) {
	mototest.Env(t)
	base := startStandIn(t)
	t.Setenv("AWS_REGION", "us-east-1")
	var blob []byte
	m := material.Random(32)
	for url, canonical := range map[string]string{
		"awskms:///alias/one?region=us-east-1":                       "awskms:///alias/one?region=us-east-1",
		"awskms:///alias/one":                                        "awskms:///alias/one?region=us-east-1",
		"awskms:///" + oneARN:                                        "awskms:///" + oneARN,
		"awskms:///" + oneARN + "?region=us-east-1":                  "awskms:///" + oneARN,
		"awskms:///" + oneARN[len(oneARN)-36:] + "?region=us-east-1": "awskms:///" + oneARN[len(oneARN)-36:] + "?region=us-east-1",
	} {
		k := mustOpen(t, base, url)
		if got, err := (awskms.Driver{}).Canonical(t.Context(), url); err != nil || got != k.URL() {
			t.Errorf("%s is %s, opens as %s, %v", url, got, k.URL(), err)
		}
		if k.URL() != canonical || k.Provider() != "awskms" || k.Kind() != keyring.Wraps || k.ID() != "fb104251210ccd0a7a3034515baa0009" {
			t.Errorf("%s opens as %s, %s, %s, %s", url, k.URL(), k.Provider(), k.Kind(), k.ID())
		}
		if blob == nil {
			var err error
			if blob, err = k.Wrap(t.Context(), m, binding); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := k.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"awskms:///alias/none", "awskms:///" + strings.Replace(oneARN, "key/1", "key/3", 1)} {
		_, err := open(t.Context(), t, base, url)
		if fault.CodeOf(err) != api.CodeNotFound || fault.NextOf(err) == "" || !strings.Contains(err.Error(), "NotFoundException") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestURLsAreRefused(t *testing.T) {
	mototest.Env(t)
	const canary = "MDEyMzQ1Njc4OWFi"
	for _, url := range []string{
		"awskms:///", "awskms://", "awskms:alias/one", "awskms://alias/one?region=us-east-1", "awskms:///one?region=us-east-1", "awskms:////alias/one?region=us-east-1",
		"awskms:///alias/?region=us-east-1", "awskms:///alias/one two?region=us-east-1", "awskms:///alias/" + strings.Repeat("a", 640) + "?region=us-east-1",
		"awskms:///" + canary + "?region=us-east-1", "awskms:///alias/one?region=" + canary, "awskms:///alias/one?region=evil.example.org/", "awskms:///alias/one?region=us-east-1@evil.org",
		"awskms:///alias/one?region=", "awskms:///alias/one?region=us-east-1&region=us-east-2", "awskms:///alias/one?regoin=us-east-1", "awskms:///alias/one?region=us-east-1&field=x",
		"awskms:///alias/one?region=us-east-1&endpoint=https://evil.example.org", "awskms:///alias/one?Endpoint_url=https://evil.example.org", "awskms:///alias/one?region=us-east-1;x",
		"awskms:///" + oneARN + "?region=us-east-2", "awskms:///arn:aws:s3:us-east-1:111111111111:key/11111111-1111-1111-1111-111111111111", "awskms:///" + oneARN + "/../x",
		"awskms:///arn:aws:kms:evil.org:111111111111:alias/x", "awskms://user@/alias/one", "awskms:///alias/one#x", "file:///alias/one",
		"awskms:///alias/one", // no region anywhere
	} {
		_, err := awskms.Driver{}.Open(t.Context(), url)
		if got, err := (awskms.Driver{}).Canonical(t.Context(), url); err == nil {
			t.Errorf("%s is %s", url, got)
		}
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) == "" {
			t.Errorf("%s: %v (field %q, next %q)", url, err, fault.FieldOf(err), fault.NextOf(err))
		} else if strings.Contains(err.Error()+fault.NextOf(err), canary) || strings.Contains(err.Error(), "evil") {
			t.Errorf("%s: quoted: %v", url, err)
		}
	}
}

// Every error that AWS was recorded to answer has a code here, and its text, which quotes the request, is not shown.
func TestRecordedErrors(t *testing.T) {
	mototest.Env(t)
	want := map[string]api.Code{
		"NotFoundException": api.CodeNotFound, "DisabledException": api.CodeWrongState, "KMSInvalidStateException": api.CodeWrongState,
		"InvalidKeyUsageException": api.CodeWrongState, "InvalidCiphertextException": api.CodeIntegrity, "IncorrectKeyException": api.CodeIntegrity,
		"ValidationException": api.CodeInvalid, "UnsupportedOperationException": api.CodeInvalid, "LimitExceededException": api.CodeUnavailable,
	}
	r, base := readRecorded(t), startStandIn(t)
	k := mustOpen(t, base, "awskms:///"+oneARN)
	blob, err := k.Wrap(t.Context(), material.Random(32), binding)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range r.Errors {
		name := e.Body["__type"]
		seen[name] = true
		var failing bool
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if failing {
				writeError(w, e.Status, e.Body)
				return
			}
			(&standIn{t: t, recorded: r, keys: map[string]string{oneARN: oneARN}}).ServeHTTP(w, req)
		}))
		k := mustOpen(t, server.URL, "awskms:///"+oneARN)
		failing = true
		_, opening := open(t.Context(), t, server.URL, "awskms:///"+oneARN)
		_, wrapping := k.Wrap(t.Context(), material.Random(32), binding)
		_, unwrapping := k.Unwrap(t.Context(), blob, binding)
		server.Close()
		of := want[name]
		ofUnwrapping := of
		if of == api.CodeInvalid {
			ofUnwrapping = api.CodeIntegrity
		}
		for _, c := range []struct {
			doing string
			err   error
			want  api.Code
		}{{"opening", opening, of}, {"wrapping", wrapping, of}, {"unwrapping", unwrapping, ofUnwrapping}} {
			if of == "" || fault.CodeOf(c.err) != c.want || !strings.Contains(c.err.Error(), name) {
				t.Errorf("%s, %s: %v (code %q), want %q", name, c.doing, c.err, fault.CodeOf(c.err), c.want)
			}
			if text := e.Body["message"]; text != "" && strings.Contains(c.err.Error(), text) {
				t.Errorf("%s, %s: the text of AWS is shown: %v", name, c.doing, c.err)
			}
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s isn't recorded", name)
		}
	}
}

// Keys that don't wrap are refused when they are opened, not when a store is already wrapped under them.
func TestRecordedDescriptions(t *testing.T) {
	mototest.Env(t)
	r := readRecorded(t)
	const mrk = ":111111111111:key/mrk-0123456789abcdef0123456789abcdef"
	const east, west = "arn:aws:kms:us-east-1" + mrk, "arn:aws:kms:eu-west-1" + mrk
	open := func(answer, url, arn string, change map[string]any) (keyring.MasterKey, error) {
		metadata := maps.Clone(r.Answers[answer]["KeyMetadata"].(map[string]any))
		metadata["Arn"] = arn
		maps.Copy(metadata, change)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"KeyMetadata": metadata})
		}))
		defer server.Close()
		return open(t.Context(), t, server.URL, url)
	}
	for name, c := range map[string]struct {
		answer, url, arn string
		change           map[string]any
		want             api.Code
	}{
		"enabled":                    {"describe", "awskms:///" + oneARN, oneARN, nil, ""},
		"pending import":             {"describe pending import", "awskms:///" + oneARN, oneARN, nil, api.CodeWrongState},
		"disabled":                   {"describe", "awskms:///" + oneARN, oneARN, map[string]any{"KeyState": "Disabled"}, api.CodeWrongState},
		"pending deletion":           {"describe", "awskms:///" + oneARN, oneARN, map[string]any{"KeyState": "PendingDeletion"}, api.CodeWrongState},
		"a state of the future":      {"describe", "awskms:///" + oneARN, oneARN, map[string]any{"KeyState": "Frozen"}, api.CodeWrongState},
		"its key store is away":      {"describe", "awskms:///" + oneARN, oneARN, map[string]any{"KeyState": "Unavailable"}, api.CodeUnavailable},
		"for authentication codes":   {"describe hmac", "awskms:///" + oneARN, oneARN, nil, api.CodeInvalid},
		"asymmetric":                 {"describe", "awskms:///" + oneARN, oneARN, map[string]any{"KeySpec": "RSA_2048"}, api.CodeInvalid},
		"another key":                {"describe", "awskms:///" + oneARN, twoARN, nil, api.CodeIntegrity},
		"another key, asked by id":   {"describe", "awskms:///" + oneARN[len(oneARN)-36:] + "?region=us-east-1", twoARN, nil, api.CodeIntegrity},
		"another region":             {"describe", "awskms:///alias/one?region=us-east-2", oneARN, nil, api.CodeIntegrity},
		"an alias's account":         {"describe", "awskms:///arn:aws:kms:us-east-1:222222222222:alias/one", oneARN, nil, api.CodeIntegrity},
		"no ARN":                     {"describe", "awskms:///" + oneARN, "", nil, api.CodeIntegrity},
		"an ARN of something else":   {"describe", "awskms:///alias/one?region=us-east-1", "arn:aws:kms:us-east-1:111111111111:alias/one", nil, api.CodeIntegrity},
		"multi-Region, the primary":  {"describe multi-region", "awskms:///" + east, east, nil, ""},
		"multi-Region, asked abroad": {"describe multi-region", "awskms:///" + east, west, nil, api.CodeIntegrity},
	} {
		k, err := open(c.answer, c.url, c.arn, c.change)
		if fault.CodeOf(err) != c.want || k != nil != (err == nil) {
			t.Errorf("%s: %v, want code %q", name, err, c.want)
		}
	}
	primary, err1 := open("describe multi-region", "awskms:///"+east, east, nil)
	replica, err2 := open("describe multi-region", "awskms:///"+west, west, nil)
	one, err3 := open("describe", "awskms:///"+oneARN, oneARN, nil)
	if err1 != nil || err2 != nil || err3 != nil || primary.ID() != replica.ID() || primary.ID() == one.ID() || primary.URL() == replica.URL() {
		t.Errorf("%v %v %v", err1, err2, err3)
	}
}

// Without credentials a machine is told so within the limit, even if whatever has the address of the instance's metadata
// takes connections and never says a word.
func TestNoCredentials(t *testing.T) {
	mototest.Env(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
	for _, disabled := range []string{"true", "false"} {
		t.Setenv("AWS_EC2_METADATA_DISABLED", disabled)
		_, err := awskms.Driver{Limit: limit}.Open(t.Context(), "awskms:///alias/one?region=us-east-1")
		if fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fault.NextOf(err), "AWS_PROFILE") || fault.FieldOf(err) != "credentials" {
			t.Errorf("instance metadata disabled %s: %v, next %q", disabled, err, fault.NextOf(err))
		}
	}
}

// Keys don't travel in clear because somebody set an endpoint without TLS.
func TestEndpointWithoutTLS(t *testing.T) {
	mototest.Env(t)
	_, err := open(t.Context(), t, "http://192.0.2.1", "awskms:///alias/one?region=us-east-1")
	if fault.CodeOf(err) != api.CodeInvalid || !strings.Contains(fault.NextOf(err), "https") {
		t.Errorf("%v, next %q", err, fault.NextOf(err))
	}
}

// AWS's Encryption SDK took the key from the message, whoever wrote it. Here the key is the configured one: it stands in
// every request, and a blob of another key of the same account doesn't open.
func TestAdvisory_CVE_2020_8897(t *testing.T) {
	mototest.Env(t)
	base := startStandIn(t)
	one, two := mustOpen(t, base, "awskms:///"+oneARN), mustOpen(t, base, "awskms:///"+twoARN)
	m := material.Random(32)
	blob, err := two.Wrap(t.Context(), m, binding)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := two.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) {
		t.Errorf("its own key: %v", err)
	}
	if out, err := one.Unwrap(t.Context(), blob, binding); out != nil || fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("another key of the account: %v, %v", out, err)
	}
}
