// Command advisories counts how many of the lessons in advisories.txt (published vulnerabilities of key and secret systems)
// keyturn carries a test for:
//
//	go run ./internal/tools/advisories       the counts, and the rows that are open
//	go run ./internal/tools/advisories -v    every row
//
// A row is covered when some _test.go file of the module has a test named TestAdvisory_ID for one of its ids; not
// applicable yet when the table gives a reason; open otherwise. It ends with status 1 when the table can't be read or a test
// names an id that the table doesn't know, and never because rows are open: that is for people to judge.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	verbose := flag.Bool("v", false, "print every row")
	flag.Parse()
	if err := report(os.Stdout, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func report(w io.Writer, verbose bool) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	rows, err := readTable(filepath.Join(root, "internal/tools/advisories/advisories.txt"))
	if err != nil {
		return err
	}
	tests, err := findTests(root)
	if err != nil {
		return err
	}
	unknown := match(rows, tests)
	write(w, rows, verbose)
	if len(unknown) > 0 {
		return fmt.Errorf("tests for ids that the table doesn't know: %v", unknown)
	}
	return nil
}

// write prints the counts, and below them the rows that deserve a look.
func write(w io.Writer, rows []row, verbose bool) {
	count := map[status]int{}
	for _, r := range rows {
		count[r.status()]++
	}
	fmt.Fprintf(w, "advisories: %d rows: %d covered, %d not applicable yet, %d open\n",
		len(rows), count[covered], count[notYet], count[open])
	for _, r := range rows {
		switch s := r.status(); {
		case s == open:
			fmt.Fprintf(w, "%4d  open                %s (%s)\n", r.number, r.ids[0], r.class)
		case verbose && s == notYet:
			fmt.Fprintf(w, "%4d  not applicable yet  %s: %s\n", r.number, r.ids[0], r.reason)
		case verbose:
			fmt.Fprintf(w, "%4d  covered             %s: %s\n", r.number, r.ids[0], r.tests[0])
		}
	}
}

// moduleRoot is the nearest folder above with a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding the module: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
