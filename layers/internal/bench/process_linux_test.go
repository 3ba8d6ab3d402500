package bench

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gochat/layers/internal/testwait"
)

// TestPeaks has a process hold much memory for a while: that is told when it holds it no more.
func TestPeaks(t *testing.T) {
	of := []Process{{"this", os.Getpid()}}
	resident := func() int64 {
		now, err := usages(of)
		if err != nil {
			t.Fatal(err)
		}
		return now[0].rss
	}
	const much = 64 << 20
	before := resident()
	end := peaks(of, time.Millisecond)
	held, err := unix.Mmap(-1, 0, much, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := unix.Munmap(held); err != nil {
		t.Fatal(err)
	}
	if most, now := end()[0], resident(); most < before+much*3/4 || now > most-much/2 {
		t.Errorf("%d MiB before, %d at the most, %d now", before>>20, most>>20, now>>20)
	}
}

func TestParseStat(t *testing.T) {
	const stat = "42 (a) b ) S 7 1 1 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 555 1000000 11 18446744073709551615 1 1"
	parent, u, ok := parseStat([]byte(stat), 4096)
	if !ok || parent != 7 || u.cpu != 1240*time.Millisecond || u.rss != 11*4096 {
		t.Errorf("got parent %d, %+v, %v", parent, u, ok)
	}
	for _, bad := range []string{"", "42", "42 (a) S 7"} {
		if _, _, ok := parseStat([]byte(bad), 4096); ok {
			t.Errorf("%q is taken for a stat", bad)
		}
	}
}

// TestUsagesOfChildren has a child's child work, and finds its time with the child's.
func TestUsagesOfChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sh -c 'while :; do :; done' & trap 'kill $!' TERM; wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	defer end()
	of := []Process{{"parent", cmd.Process.Pid}}
	testwait.Eventually(t, "the child's child has worked", func() bool {
		got, err := usages(of)
		if err != nil {
			t.Fatal(err)
		}
		return got[0].cpu >= 50*time.Millisecond && got[0].rss > 0
	})
	end()
	if _, err := usages(of); err == nil {
		t.Error("one that has ended is still measured")
	}
}
