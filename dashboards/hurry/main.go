// Program hurry writes rule files anew for a system that is watched for minutes instead of hours: of every duration a minute is a
// second, so that what takes an hour to be noticed takes a minute. What is measured, and how much of it is too much, stays, but for
// two things that are times by what they mean: how many messages scrapes cannot tell from missing, with one a second in place of
// every 15, and for how long a drain may be over.
//
//	hurry DIRECTORY FILE...
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hurry:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("want a directory and files")
	}
	for _, file := range args[1:] {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		hurried := hurry(string(content))
		if err := os.WriteFile(filepath.Join(args[0], filepath.Base(file)), []byte(hurried), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// durations are those of ranges, offsets and what rules wait for.
var durations = regexp.MustCompile(`(\[|offset |for: |interval: )(\d+)([mhd])\b`)

// hurry has rules take a second for a minute.
func hurry(rules string) string {
	rules = durations.ReplaceAllString(rules, "$1$2<$3>")
	return strings.NewReplacer(
		"<m>", "s", "<h>", "m", "1<d>", "24m",
		"20 + 30 * max_over_time", "2 * max_over_time", // what two scrapes cannot tell, at one a second
		"gochat_drain_end_timestamp_seconds > 180", "gochat_drain_end_timestamp_seconds > 3",
	).Replace(rules)
}
