// Command check says what is wrong with the dashboards, the rules and the runbook of this module:
//
//	go run ./check -metrics http://127.0.0.1:9100/debug/metrics -page http://127.0.0.1:9100/metrics [directory]
//
// The metrics are asked of the program that has them: gochat's admin server lists all that there may be, and shows the series that
// there are. Both may also be files. What is found is printed, a line each; the command fails if anything is.
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
	list := flag.String("metrics", "http://127.0.0.1:9100/debug/metrics", "address or file of the list of metrics")
	page := flag.String("page", "http://127.0.0.1:9100/metrics", "address or file of the series, as they are scraped")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	found, err := run(*list, *page, os.DirFS(dir))
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

func run(list, page string, files fs.FS) ([]string, error) {
	known, err := load(list, page)
	if err != nil {
		return nil, err
	}
	return faults(files, known)
}

// load reads the list of metrics, and what the page shows of them.
func load(list, page string) (catalog, error) {
	var all []metric
	if err := read(list, func(r io.Reader) error { return json.NewDecoder(r).Decode(&all) }); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no metrics", list)
	}
	known := make(catalog)
	for _, m := range all {
		known[m.Name] = m
	}
	return known, read(page, known.look)
}

// read has what is at an address, or in a file, be read.
func read(from string, by func(io.Reader) error) error {
	var in io.ReadCloser
	var err error
	if strings.HasPrefix(from, "http") {
		client := http.Client{Timeout: 10 * time.Second}
		response, err := client.Get(from)
		if err != nil {
			return err
		}
		if in = response.Body; response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", from, response.Status)
		}
	} else if in, err = os.Open(from); err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if err := by(in); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
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
