// Package mototest starts moto_server for tests: an AWS-API server that nobody here wrote (github.com/getmoto/moto, in
// Python), speaking the real protocol on loopback. It can't be installed from Debian's packages or from Go modules, so
// where a machine hasn't got it, the tests that need it skip and say so by its name, and the same suites run against
// recorded answers of AWS instead.
//
//	mototest.Env(t)
//	base := mototest.Start(t) // http://127.0.0.1:41234
package mototest

import (
	"bufio"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Credentials that Env sets, for scans: they must be shown nowhere.
const (
	AccessKey    = "AKIDCANARYOFTESTS000"
	SecretKey    = "canary/secret/access/key/of/tests/000000"
	SessionToken = "canary-session-token-of-tests"
)

// Env gives the test credentials and nothing else of the machine's AWS configuration: no files, no instance metadata.
func Env(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_SESSION_TOKEN": SessionToken,
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_KMS": "", "AWS_ENDPOINT_URL_SECRETS_MANAGER": "",
		"AWS_ROLE_ARN": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
	} {
		t.Setenv(name, value)
	}
}

// leash ends the server when its standard input is closed, so also when the test process dies.
const leash = `moto_server -H 127.0.0.1 -p 0 & pid=$!
read -r _
kill $pid
wait $pid`

var running = regexp.MustCompile(`Running on (http://127\.0\.0\.1:[0-9]+)`)

// Start starts a server with nothing in it, which ends with the test. It skips the test where there is none.
func Start(t *testing.T) string {
	t.Helper()
	if exec.Command("moto_server", "--help").Run() != nil {
		t.Skip("moto_server is not installed")
	}
	server := exec.Command("sh", "-c", leash)
	server.Env = append(slices.DeleteFunc(server.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") }), "PYTHONUNBUFFERED=1")
	hold, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	read := make(chan struct{})
	t.Cleanup(func() {
		_ = hold.Close()
		<-read // all of the log, before Wait closes it
		_ = server.Wait()
	})
	for lines.Scan() {
		if found := running.FindStringSubmatch(lines.Text()); found != nil {
			go func() {
				defer close(read)
				for lines.Scan() { // or the server would block on a full pipe
				}
			}()
			return found[1]
		}
	}
	close(read)
	t.Fatal("moto_server ended before it listened")
	return ""
}
