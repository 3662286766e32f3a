package failpoint

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestParse(t *testing.T) {
	rows := map[string]map[string]action{
		"":                       {},
		"a/b:1":                  {"a/b": {nth: 1}},
		"a:12:panic":             {"a": {nth: 12, panics: true}},
		"runner/x:1,,store/y:20": {"runner/x": {nth: 1}, "store/y": {nth: 20}},
	}
	for value, want := range rows {
		if got, err := parse(value); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	for _, bad := range []string{"a", ":1", "a:0", "a:-1", "a:x", "a:", "a:1:exit", "a:1:panic:2", "a=1"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

// Builds the same program with and without the tag, and looks at how each ends.
func TestBuiltWithAndWithoutTheTag(t *testing.T) {
	build := func(name string, args ...string) string {
		bin := filepath.Join(t.TempDir(), name)
		cmd := exec.Command("go", append(append([]string{"build", "-o", bin}, args...), "./testdata/hits")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building: %v\n%s", err, out)
		}
		return bin
	}
	plain, tagged := build("plain"), build("tagged", "-tags", "failpoint")
	rows := []struct {
		bin, fail string
		status    int
		out       string
	}{
		{plain, "test/place:2", 0, "hit 1\nhit 2\nhit 3\nend\n"},
		{tagged, "", 0, "hit 1\nhit 2\nhit 3\nend\n"},
		{tagged, "test/place:2", 137, "hit 1\nhit 2\n"},
		{tagged, "test/place:3,test/other:1", 137, "hit 1\n"},
		{tagged, "test/place:1:panic", 2, "hit 1\n"},
		{tagged, "test/place:4", 0, "hit 1\nhit 2\nhit 3\nend\n"},
		{tagged, "test/place", 2, "hit 1\n"},
	}
	for _, row := range rows {
		cmd := exec.Command(row.bin)
		cmd.Env = append(os.Environ(), "KEYTURN_FAIL="+row.fail)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if status := cmd.ProcessState.ExitCode(); status != row.status || out.String() != row.out {
			t.Errorf("%s with KEYTURN_FAIL=%q: status %d, want %d; printed %q", filepath.Base(row.bin), row.fail, status, row.status, out.String())
		}
	}
}
