package server

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

// FAULTS row 18: hundreds of connections that send their header, or their body, a byte at a time, and connections that
// say nothing: who behaves is served all the while, and the slow ones are cut off.
func TestSlowClientsDontKeepOthersOut(t *testing.T) {
	v := served(t, made(t), Options{})
	admin := inside(v.Server)
	admin.key(t, "phi")
	token := admin.principal(t, "app", "application")
	host := strings.TrimPrefix(v.address(t, "http"), "http://")
	filesBefore := openFiles(t)
	var slow []net.Conn
	for i := range 600 {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		slow = append(slow, c)
		switch i % 3 {
		case 0:
			_, _ = io.WriteString(c, "POST /v1/keys/phi/encrypt HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		case 1:
			fmt.Fprintf(c, "POST /v1/keys/phi/encrypt HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\n\r\n{", token)
		}
	}
	good := v.over(t, "http", token)
	for range 300 {
		good.must(t, "POST", "/v1/keys/phi/encrypt", `{"plaintext":"aGk="}`, nil)
	}
	for i := 0; i < len(slow); i += 3 { // headers that never end: 5 s
		if _, err := bufio.NewReader(slow[i]).ReadByte(); err == nil {
			continue // a 408 before the end
		} else if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	good.must(t, "POST", "/v1/keys/phi/encrypt", `{"plaintext":"aGk="}`, nil)
	for _, c := range slow {
		c.Close()
	}
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	if after := openFiles(t); after > filesBefore+50 {
		t.Errorf("%d open files, %d before", after, filesBefore)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Row 91: what the standard library leaves to its user is set: limits of time and size on every listener, HTTP/2 by TLS
// only, and bounded in its streams.
func TestAdvisory_CVE_2023_39325_listeners(t *testing.T) {
	v := served(t, made(t), Options{})
	srv := httpServer(v.api, v.tls, v.log)
	if srv.ReadHeaderTimeout <= 0 || srv.ReadTimeout <= 0 || srv.IdleTimeout <= 0 || srv.MaxHeaderBytes > 16<<10 || srv.HTTP2.MaxConcurrentStreams > 100 {
		t.Errorf("%+v", srv)
	}
	host := strings.TrimPrefix(v.address(t, "http"), "http://")
	raw := func(text string) string {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		return string(b)
	}
	if got := raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); strings.HasPrefix(got, "\x00") {
		t.Errorf("HTTP/2 in clear: %q", got)
	}
	if got := raw("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"); strings.Contains(got, "101") {
		t.Errorf("upgraded: %q", got)
	}
	if got := raw("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + strings.Repeat("a", 64<<10) + "\r\n\r\n"); !strings.Contains(got, "431") {
		t.Errorf("a large header: %q", got)
	}
	for _, smuggled := range []string{ // two ways to say where a body ends (CVE-2025-22871 and its kind)
		"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"POST /v1/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;\nx\r\nhello\r\n0\r\n\r\n",
	} {
		if got := raw(smuggled); strings.Contains(got, "200 OK") {
			t.Errorf("%q: %q", smuggled, got)
		}
	}
}

// Many callers at once, on one store: everyone gets his own answer.
func TestManyAtOnce(t *testing.T) {
	v := served(t, made(t), Options{})
	admin := inside(v.Server)
	admin.key(t, "phi")
	token := admin.principal(t, "app", "application")
	var wg sync.WaitGroup
	for worker := range 32 {
		c := v.over(t, []string{"http", "https", "unix"}[worker%3], token)
		wg.Go(func() {
			for i := range 20 {
				plain := fmt.Appendf(nil, "worker %d item %d", worker, i)
				body := fmt.Sprintf(`{"plaintext":%q,"context":{"w":"%d"}}`, b64(plain), worker)
				status, sealed := c.call(t, "POST", "/v1/keys/phi/encrypt", body)
				if status != 200 {
					t.Errorf("encrypt: %d %s", status, sealed)
					return
				}
				text, _, _ := bytes.Cut(bytes.TrimPrefix(sealed, []byte(`{"ciphertext":"`)), []byte(`"`))
				status, open := c.call(t, "POST", "/v1/keys/phi/decrypt", fmt.Sprintf(`{"ciphertext":%q,"context":{"w":"%d"}}`, text, worker))
				if want := fmt.Sprintf(`{"plaintext":%q,"version":1}`, b64(plain)); status != http.StatusOK || strings.TrimSpace(string(open)) != want {
					t.Errorf("decrypt: %d %s, want %s", status, open, want)
				}
			}
		})
	}
	wg.Wait()
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
