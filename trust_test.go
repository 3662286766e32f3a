package keyturn

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAdvisory_CVE_2024_41264: nothing outside of tests turns the check of certificates or host keys off.
func TestAdvisory_CVE_2024_41264(t *testing.T) {
	off := regexp.MustCompile(`InsecureSkipVerify|InsecureIgnoreHostKey|insecure\.NewCredentials`)
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found := off.Find(text); found != nil {
			t.Errorf("%s says %s", path, found)
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("read %d files: %v", files, err)
	}
	if !off.MatchString("tls.Config{InsecureSkipVerify: true}") {
		t.Error("the search finds nothing")
	}
}
