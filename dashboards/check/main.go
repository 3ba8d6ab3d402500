// Command check says what is wrong with the dashboards, the rules and the runbook of this module:
//
//	go run ./check -metrics http://127.0.0.1:9100/debug/metrics [directory]
//
// The metrics are asked of the program that has them: gochat's admin server lists all that there may be. They may also be
// a file. What is found is printed, a line each; the command fails if anything is.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	from := flag.String("metrics", "http://127.0.0.1:9100/debug/metrics", "address or file of the list of metrics")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	found, err := run(*from, os.DirFS(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	for _, f := range found {
		fmt.Println(f)
	}
	if len(found) > 0 {
		os.Exit(1)
	}
}

func run(from string, files fs.FS) ([]string, error) {
	known, err := load(from)
	if err != nil {
		return nil, err
	}
	return faults(files, known)
}

// load reads the list of metrics.
func load(from string) (catalog, error) {
	var in io.ReadCloser
	var err error
	if strings.HasPrefix(from, "http") {
		client := http.Client{Timeout: 10 * time.Second}
		response, err := client.Get(from)
		if err != nil {
			return nil, err
		}
		if in = response.Body; response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s", from, response.Status)
		}
	} else if in, err = os.Open(from); err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	var all []metric
	if err := json.NewDecoder(in).Decode(&all); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no metrics", from)
	}
	known := make(catalog)
	for _, m := range all {
		known[m.Name] = m
	}
	return known, nil
}

// faults are what is wrong with all that there is, in the order of the files.
func faults(files fs.FS, known catalog) ([]string, error) {
	c := &checker{known: known, uids: make(map[string]string), recorded: make(map[string][]string)}
	boards, err := readBoards(files)
	if err != nil {
		return nil, err
	}
	rules, err := readRules(files)
	if err != nil {
		return nil, err
	}
	for _, b := range boards {
		c.uids[b.text("uid")] = b.file
	}
	c.dashboards(boards)
	c.rules(rules)
	slices.Sort(c.found)
	return slices.Compact(c.found), nil
}

// checker gathers faults.
type checker struct {
	known    catalog
	uids     map[string]string   // of dashboards, their files
	recorded map[string][]string // labels of what rules record, nil if they are not known
	found    []string
}

func (c *checker) fault(where, format string, args ...any) {
	c.found = append(c.found, where+": "+fmt.Sprintf(format, args...))
}
