package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The same calls, answered alike, over TLS (HTTP/2 and 1.1), plain loopback HTTP, the unix socket and in process.
func TestEveryTransport(t *testing.T) {
	dir := made(t)
	v := served(t, dir, Options{})
	admin := inside(v.Server)
	admin.key(t, "phi")
	token := admin.principal(t, "app", "application")
	for name, c := range map[string]caller{
		"https": v.over(t, "https", token), "http": v.over(t, "http", token), "unix": v.over(t, "unix", token),
		"unix, by the peer": v.over(t, "unix", ""), "in process": admin,
	} {
		var sealed api.EncryptResponse
		bound := map[string]string{"patient": "17"}
		c.must(t, "POST", "/v1/keys/phi/encrypt", api.EncryptRequest{Plaintext: []byte("078-05-1120"), Context: bound}, &sealed)
		var open api.DecryptResponse
		c.must(t, "POST", "/v1/keys/phi/decrypt", api.DecryptRequest{Ciphertext: sealed.Ciphertext, Context: bound}, &open)
		if string(open.Plaintext) != "078-05-1120" || open.Version != 1 {
			t.Errorf("%s: %+v", name, open)
		}
		var who api.WhoAmI
		c.must(t, "GET", "/v1/whoami", nil, &who)
		want := map[string]string{"unix, by the peer": "owner peer", "in process": "owner embedded"}[name]
		if want == "" {
			want = "app token"
		}
		if got := who.Principal + " " + who.Method; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if status, b := c.call(t, "POST", "/v1/keys/phi/decrypt", api.DecryptRequest{Ciphertext: sealed.Ciphertext}); status != 422 || !bytes.Contains(b, []byte(`"integrity"`)) {
			t.Errorf("%s, without the context: %d %s", name, status, b)
		}
	}
	if status, _ := v.over(t, "http", "").call(t, "GET", "/v1/whoami", nil); status != 401 {
		t.Errorf("nobody over loopback: %d", status)
	}
}

func TestPlainTextIsRefusedOnTheTLSPort(t *testing.T) {
	v := served(t, made(t), Options{})
	host := strings.TrimPrefix(v.address(t, "https"), "https://")
	res, err := http.Get("http://" + host + "/healthz") //nolint:noctx // a mistake that people make
	if err == nil {
		defer res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d", res.StatusCode)
		}
	}
	if _, err := tls.Dial("tcp", host, &tls.Config{MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}); err == nil { // what an old client offers
		t.Error("TLS 1.1 was accepted")
	}
	if _, err := tls.Dial("tcp", host, &tls.Config{}); err == nil {
		t.Error("a private authority is trusted by everyone")
	}
}

// A stop lets the request that runs come to its end, and a second stop changes nothing.
func TestGracefulStop(t *testing.T) {
	dir := made(t)
	v := served(t, dir, Options{})
	inside(v.Server).key(t, "phi")
	token := inside(v.Server).principal(t, "app", "application")
	conn, err := net.Dial("tcp", strings.TrimPrefix(v.address(t, "http"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"plaintext":"aGk="}`
	fmt.Fprintf(conn, "POST /v1/keys/phi/encrypt HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", token, len(body))
	answers := bufio.NewReader(conn)
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // our handler reads the body
		t.Fatalf("%q %v", line, err)
	}
	_, _ = answers.ReadString('\n')
	stopped := make(chan error, 1)
	go func() { stopped <- v.stop() }()
	waitForRefusal(t, v.address(t, "http"))
	if _, err := io.WriteString(conn, body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(answers, nil)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("the request that was being answered: %v %v", res, err)
	}
	if err := errors.Join(<-stopped, v.stop(), v.Close(t.Context()), v.Close(t.Context())); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketFile)); err == nil {
		t.Error("the socket is still there")
	}
	if _, err := inside(v.Server).rt.RoundTrip(&http.Request{Method: "GET"}); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a call of a closed store: %v", err)
	}
	again := opened(t, dir, Options{})
	var check api.AuditVerification
	inside(again).must(t, "GET", "/v1/audit/verify", nil, &check)
	if !check.OK || check.Events < 4 {
		t.Errorf("the audit log afterwards: %+v", check)
	}
}

// waitForRefusal waits until an address isn't listened at any more.
func waitForRefusal(t *testing.T, address string) {
	t.Helper()
	for t.Context().Err() == nil {
		c, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
		if err != nil {
			return
		}
		_ = c.Close()
	}
	t.Fatal("the listener never closed")
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := made(t)
	free := "http://127.0.0.1:0"
	s := opened(t, dir, Options{Set: map[string]any{"listen": []string{free, "http://" + l.Addr().String()}}})
	if err := s.Serve(t.Context()); fault.CodeOf(err) != api.CodeUnavailable || fault.FieldOf(err) != "listen" {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketFile)); err == nil {
		t.Error("a socket was left behind by a server that didn't start")
	}
}

func TestSocketThatWasLeftBehind(t *testing.T) {
	dir := made(t)
	path := filepath.Join(dir, SocketFile)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as a killed server leaves it
	v := served(t, dir, Options{})
	v.over(t, "unix", "").must(t, "GET", "/v1/whoami", nil, nil)
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := opened(t, dir, Options{Set: map[string]any{"listen": ""}})
	if err := s.Serve(t.Context()); fault.CodeOf(err) != api.CodeConflict {
		t.Errorf("a file at the socket's place: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
}

// A stream ends when the server stops, and says why.
func TestStopEndsStreams(t *testing.T) {
	v := served(t, made(t), Options{})
	c := v.over(t, "http", inside(v.Server).principal(t, "eve", "auditor"))
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+"/v1/audit/tail?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	inside(v.Server).key(t, "while-following")
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the new event never came: %v", err)
		}
		if strings.Contains(line, "key/while-following") {
			break
		}
	}
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err == nil || !strings.Contains(string(rest), `"code":"unavailable"`) {
		t.Errorf("%q %v", rest, err)
	}
}

func TestDebugListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	v := served(t, made(t), Options{Set: map[string]any{"debug.listen": address}})
	for path, status := range map[string]int{"/debug/pprof/heap": 200, "/debug/pprof/cmdline": 404, "/debug/pprof/goroutine": 404, "/debug/pprof/": 404, "/v1/keys": 404} {
		if got, _ := (caller{base: "http://" + address, rt: transportTo(t, &http.Transport{})}).call(t, "GET", path, nil); got != status {
			t.Errorf("%s: %d", path, got)
		}
	}
	_ = v
}

func TestListeningOnNothingIsNoError(t *testing.T) {
	dir := made(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := opened(t, dir, Options{Set: map[string]any{"listen": ""}})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	<-s.ready
	if got := s.Listening(); len(got) != 1 || !strings.HasPrefix(got[0], "unix://") {
		t.Errorf("%v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
