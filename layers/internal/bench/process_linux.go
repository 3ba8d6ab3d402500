package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a process and its descendants have used: CPU time since each began, and memory that is resident now.
// Memory that several share counts for each of them.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// tick is the unit of times in /proc: USER_HZ is 100 on every architecture that Go runs on.
const tick = time.Second / 100

var errEnded = errors.New("no such process")

// usages answers what each process has used, in their order. It fails if one has ended.
func usages(of []Process) ([]usage, error) {
	if len(of) == 0 {
		return nil, nil
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	own, children := make(map[int]usage), make(map[int][]int)
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		parent, u, ok := parseStat(content, os.Getpagesize())
		if ok {
			own[pid] = u
			children[parent] = append(children[parent], pid)
		}
	}
	sums := make([]usage, len(of))
	for i, p := range of {
		if _, there := own[p.PID]; !there {
			return nil, fmt.Errorf("%s=%d: %w", p.Name, p.PID, errEnded)
		}
		for todo := []int{p.PID}; len(todo) > 0; {
			pid := todo[0]
			sums[i].cpu += own[pid].cpu
			sums[i].rss += own[pid].rss
			todo = append(todo[1:], children[pid]...)
		}
	}
	return sums, nil
}

// peaks looks every so often at how much memory is resident, until it is told to end, and answers the most that each
// process had. It does so beside the loop, whom it would make late.
func peaks(of []Process, every time.Duration) (end func() []int64) {
	most := make([]int64, len(of))
	if len(of) == 0 {
		return func() []int64 { return most }
	}
	ended := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(every):
			}
			now, err := usages(of)
			if err != nil {
				return // whoever reads next tells
			}
			for i := range now {
				most[i] = max(most[i], now[i].rss)
			}
		}
	})
	return sync.OnceValue(func() []int64 {
		close(ended)
		looking.Wait()
		return most
	})
}

// parseStat reads /proc/PID/stat (proc(5)). The time includes that of children who have been waited for.
func parseStat(content []byte, pageSize int) (parent int, u usage, ok bool) {
	at := bytes.LastIndexByte(content, ')') // the name before it may hold anything
	if at < 0 {
		return 0, usage{}, false
	}
	// Counted from the state, which is field 3.
	fields := strings.Fields(string(content[at+1:]))
	const ppid, utime, cstime, rss = 1, 11, 14, 21
	if len(fields) <= rss {
		return 0, usage{}, false
	}
	number := func(i int) int64 {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		ok = ok && err == nil
		return n
	}
	ok = true
	parent = int(number(ppid))
	for i := utime; i <= cstime; i++ {
		u.cpu += time.Duration(number(i)) * tick
	}
	u.rss = number(rss) * int64(pageSize)
	return parent, u, ok
}

// heldByKernel is how many bytes the kernel may hold for a connection that is not read, by default (tcp(7), tcp_wmem).
func heldByKernel() int64 {
	const usual = 4 << 20
	content, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_wmem")
	if fields := strings.Fields(string(content)); len(fields) == 3 {
		if most, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
			return most
		}
	}
	return usual
}

// ownCPU is what this process has used, without its children.
func ownCPU() (time.Duration, error) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0, fmt.Errorf("read own CPU time: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

// openFiles is how many this process may have open.
func openFiles() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("read limit of open files: %w", err)
	}
	return int(min(r.Cur, 1<<30)), nil // Go has raised it to the hard limit
}
