//go:build e2e

package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// clock is that of one process. Namespaces have none of their own for the time of day, so what the process asks for it is replaced:
// the function that the kernel maps into each process, in this one's copy.
type clock struct {
	pid    int
	offset int64 // where the seconds are, in the process's memory
	owner  *container
}

// takeClock replaces the process's clock by one that can be stepped. It stays with the process.
func takeClock(t *testing.T, c *container) *clock {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Fatalf("no code for %s", runtime.GOARCH)
	}
	docker(t, "pause", c.ID)
	defer docker(t, "unpause", c.ID)
	begin, image := vdso(t, c.State.Pid)
	parsed, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := parsed.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var entry int64
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			entry = int64(s.Value)
		}
	}
	// clock_gettime(2) itself, and then so many seconds more if the clock was CLOCK_REALTIME, which is 0.
	code := []byte{
		0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 13, // jne ret
		0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // mov rcx, seconds
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0xc3, // ret
	}
	const seconds = 13 // where they are in it
	// Behind the image, up to the end of its last page, there is nothing.
	place := int64(len(image) - 64)
	if entry == 0 || !bytes.Equal(image[place:], make([]byte, 64)) {
		t.Fatalf("no room for another clock: entry %#x", entry)
	}
	poke(t, c.State.Pid, begin+place, code)
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(int32(place-entry-5)))
	poke(t, c.State.Pid, begin+entry, jump)
	return &clock{pid: c.State.Pid, offset: begin + place + seconds, owner: c}
}

// step sets the clock so much ahead of the true one; behind it, if that is negative.
func (c *clock) step(t *testing.T, ahead time.Duration) {
	t.Helper()
	docker(t, "pause", c.owner.ID)
	defer docker(t, "unpause", c.owner.ID)
	poke(t, c.pid, c.offset, binary.LittleEndian.AppendUint64(nil, uint64(int64(ahead.Seconds()))))
}

// vdso is where the kernel's functions are in the process, and what is there.
func vdso(t *testing.T, pid int) (begin int64, image []byte) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		var end int64
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &begin, &end); err != nil {
			t.Fatal(err)
		}
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = memory.Close() }()
		image = make([]byte, end-begin)
		if _, err := memory.ReadAt(image, begin); err != nil {
			t.Fatal(err)
		}
		return begin, image
	}
	t.Fatalf("process %d has no vdso", pid)
	return 0, nil
}

// poke writes into the process's memory.
func poke(t *testing.T, pid int, at int64, b []byte) {
	t.Helper()
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	if _, err := memory.WriteAt(b, at); err != nil {
		t.Fatalf("write into process %d: %v", pid, err)
	}
}
