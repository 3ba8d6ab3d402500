package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// screenOf is the other side of a terminal: what a person types and sees.
type screenOf struct {
	keys *os.File
	mu   sync.Mutex
	seen bytes.Buffer // since what was awaited last
	all  bytes.Buffer
}

// newTerminal opens a pseudo terminal and answers both of its sides.
func newTerminal(t *testing.T) (*screenOf, *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := keys.SyscallConn() // Fd would make it blocking, and Close would not end a read
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); errors.Join(controlErr, err) != nil {
		t.Fatal(controlErr, err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	s := &screenOf{keys: keys}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(s, keys) }) // ends with keys
	t.Cleanup(func() {
		_ = keys.Close() // hangs up, which ends whoever reads the other side
		reading.Wait()
		_ = tty.Close()
	})
	return s, tty
}

func (s *screenOf) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Write(p)
	return s.seen.Write(p)
}

func (s *screenOf) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

func (s *screenOf) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.keys.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// awaits waits until text has been shown since the last call, and forgets what was.
func (s *screenOf) awaits(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		_, after, found := bytes.Cut(s.seen.Bytes(), []byte(text))
		if found {
			s.seen = *bytes.NewBuffer(bytes.Clone(after))
		}
		s.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not shown: %q; shown: %q", text, s)
		}
	}
}

func (s *screenOf) checkSecret(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(s.all.String(), "secret") {
		t.Errorf("the password was shown: %q", s.all.String())
	}
}

// begins waits until as much as text is shown, which it should be.
func (s *screenOf) begins(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); len(s.String()) < len(text) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if got := s.String(); !strings.HasPrefix(got, text) {
		t.Errorf("shown %q, want %q first", got, text)
	}
}

// reads reads in a goroutine of its own, as Run does.
func reads[T any](read func() (T, error)) (result func() (T, error)) {
	var value T
	var err error
	var reading sync.WaitGroup
	reading.Go(func() { value, err = read() })
	return func() (T, error) { reading.Wait(); return value, err }
}

func TestTypedLineStaysIntact(t *testing.T) {
	s, tty := newTerminal(t)
	c, err := openConsole(tty, tty)
	if err != nil {
		t.Fatal(err)
	}
	password := reads(func() (string, error) { return c.password("Password: ") })
	s.awaits(t, "Password: ")
	s.types(t, "secret\r")
	if got, err := password(); got != "secret" || err != nil {
		t.Fatalf("got password %q, %v", got, err)
	}

	line := reads(c.readLine)
	s.types(t, "half a li")
	s.awaits(t, "> half a li")
	if err := c.print("12:31 demo: hello"); err != nil {
		t.Fatal(err)
	}
	s.awaits(t, "12:31 demo: hello\r\n> half a li")
	s.types(t, "ne\r")
	if got, err := line(); got != "half a line" || err != nil {
		t.Fatalf("got line %q, %v", got, err)
	}
	s.awaits(t, "\x1b[A\x1b[2K") // it is shown again once it is stored

	command := reads(c.readLine)
	s.types(t, "/who\r")
	if got, err := command(); got != "/who" || err != nil {
		t.Fatalf("got line %q, %v", got, err)
	}
	if strings.Contains(s.String(), "\x1b[2K") {
		t.Errorf("a command was taken off: %q", s)
	}

	for name, key := range map[string]string{"Ctrl-C": "\x03", "Ctrl-D": "\x04"} {
		end := reads(c.readLine)
		s.types(t, key)
		if _, err := end(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v, want the end of input", name, err)
		}
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	s.checkSecret(t)
}

// TestTakeOffOnlyTheLastLine has something printed between the line and its removal: then the line stays.
func TestTakeOffOnlyTheLastLine(t *testing.T) {
	for name, test := range map[string]struct {
		printed bool
		line    string
		want    bool
	}{
		"the last line":    {false, "hello", true},
		"printed since":    {true, "hello", false},
		"longer than rows": {false, strings.Repeat("x", 78), false},
		"just fits":        {false, strings.Repeat("x", 77), true},
		"wide":             {false, strings.Repeat("你", 39), false},
	} {
		t.Run(name, func(t *testing.T) {
			s, tty := newTerminal(t)
			c, err := openConsole(tty, tty)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.close() }()
			_, _ = c.screen.Write([]byte("as Enter does"))
			if test.printed {
				_ = c.print("a message")
			}
			c.takeOff(test.line)
			_ = c.print("end")
			s.awaits(t, "as Enter does")
			if test.printed {
				s.awaits(t, "a message\r\n")
			}
			between := ""
			if test.want {
				between = "\x1b[A\x1b[2K"
			}
			s.begins(t, between+"end\r\n")
		})
	}
}

func TestConsoleGivesTheTerminalBack(t *testing.T) {
	_, tty := newTerminal(t)
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := openConsole(tty, tty)
	if err != nil {
		t.Fatal(err)
	}
	line := reads(c.readLine)
	c.interrupt()
	if _, err := line(); !errors.Is(err, io.EOF) {
		t.Errorf("interrupted: got %v, want the end of input", err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if after, err := term.GetState(int(tty.Fd())); err != nil || *after != *before {
		t.Errorf("the terminal was left in another state: %v", err)
	}
}

// TestInputTerminalAlone has output go elsewhere: the password is not shown even so, and lines are plain.
func TestInputTerminalAlone(t *testing.T) {
	s, tty := newTerminal(t)
	var out bytes.Buffer
	c, err := openConsole(tty, &out)
	if err != nil {
		t.Fatal(err)
	}
	password := reads(func() (string, error) { return c.password("Password: ") })
	s.awaits(t, "Password: ")
	s.types(t, "secret\r")
	if got, err := password(); got != "secret" || err != nil {
		t.Fatalf("got password %q, %v", got, err)
	}
	line := reads(c.readLine)
	s.types(t, "hello\r")
	if got, err := line(); got != "hello" || err != nil {
		t.Errorf("got line %q, %v", got, err)
	}
	s.awaits(t, "hello") // whatever was shown before it has been read
	s.checkSecret(t)
	if err := c.print("a message"); err != nil || out.String() != "a message\n" {
		t.Errorf("printed %q, %v", out.String(), err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}
