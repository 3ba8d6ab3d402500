package terminal

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

const (
	prompt       = "> "
	maxInputLine = 64 << 10 // bytes
	firstWide    = 0x1100   // no character below takes two cells
)

// console is where lines come from and go to. When both sides are a terminal, what is being typed stays intact
// below what is printed; else lines are read and written as they are.
//
// One goroutine reads; one, perhaps another, prints; anyone interrupts.
type console struct {
	out       io.Writer
	tty       *term.Terminal // nil without a terminal on both sides
	screen    *screen        // what tty writes to
	width     int            // of the terminal; the printer's
	echo      *term.Terminal // nil if in is no terminal
	lines     *bufio.Scanner
	interrupt func() // has reading answer io.EOF, now and from then on
	restore   func() error
	release   func()

	mu     sync.Mutex   // held while printing, and while a typed line is taken off the screen
	prints atomic.Int64 // lines printed
}

// screen is the terminal's file. It notes at each write how many lines had been printed: if there are more now, what
// was written is not the last thing on the screen.
type screen struct {
	*os.File
	prints  *atomic.Int64
	atWrite atomic.Int64
}

func (s *screen) Write(p []byte) (int, error) {
	s.atWrite.Store(s.prints.Load())
	return s.File.Write(p)
}

// openConsole takes over in and out until close. A terminal does not act on control keys any more until then.
func openConsole(in io.Reader, out io.Writer) (*console, error) {
	c := &console{out: out, interrupt: func() {}, restore: func() error { return nil }, release: func() {}}
	file, isFile := in.(*os.File)
	if isFile {
		reader, err := newInterruptible(file)
		if err != nil {
			return nil, err
		}
		in, c.interrupt, c.release = reader, reader.interrupt, reader.close
	} else if closer, ok := in.(io.Closer); ok {
		c.interrupt = sync.OnceFunc(func() { _ = closer.Close() })
	}
	if isFile && term.IsTerminal(int(file.Fd())) {
		if err := c.takeTerminal(file, in); err != nil {
			c.release()
			return nil, err
		}
	}
	c.lines = bufio.NewScanner(in)
	c.lines.Buffer(nil, maxInputLine)
	return c, nil
}

// takeTerminal has keys read one by one, without the terminal's echo.
func (c *console) takeTerminal(file *os.File, in io.Reader) error {
	state, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return fmt.Errorf("set up terminal: %w", err)
	}
	c.restore = sync.OnceValue(func() error {
		if err := term.Restore(int(file.Fd()), state); err != nil {
			return fmt.Errorf("restore terminal: %w", err)
		}
		return nil
	})
	out, ok := c.out.(*os.File)
	whole := ok && term.IsTerminal(int(out.Fd()))
	if !whole {
		out = file // where a person sees what is asked
	}
	c.screen = &screen{File: out, prints: &c.prints}
	c.echo = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, c.screen}, prompt)
	if whole {
		c.tty = c.echo
	}
	return nil
}

// close gives the terminal back. Nobody reads any more.
func (c *console) close() error {
	c.release()
	if c.tty != nil {
		_, _ = c.screen.WriteString("\r\n") // what follows does not stand behind the prompt
	}
	return c.restore()
}

// password reads one line that is not shown if a person types it.
func (c *console) password(prompt string) (string, error) {
	if c.echo == nil {
		return c.readLine()
	}
	password, err := c.echo.ReadPassword(prompt)
	if c.tty == nil { // the lines that follow are read as they are
		if err := c.restore(); err != nil {
			return "", err
		}
	}
	return password, err
}

// readLine blocks until there is a line. It fails with io.EOF at the end of input, Ctrl-C and Ctrl-D among them.
func (c *console) readLine() (string, error) {
	if c.tty != nil {
		line, err := c.tty.ReadLine()
		if err == nil && !isCommand(line) {
			c.takeOff(line)
		}
		return line, err
	}
	if !c.lines.Scan() {
		if err := c.lines.Err(); err != nil {
			return "", err
		}
		return "", io.EOF
	}
	return strings.TrimSuffix(c.lines.Text(), "\r"), nil
}

// takeOff removes a line to be sent from the screen, where it comes again once it is stored. It stays if anything has
// been printed since, or if it may take more than one row.
func (c *console) takeOff(line string) {
	cells := len(prompt)
	for _, r := range line {
		cells++
		if r >= firstWide {
			cells++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	width, _, err := term.GetSize(int(c.screen.Fd()))
	if err == nil && cells < width && c.screen.atWrite.Load() == c.prints.Load() {
		_, _ = c.screen.WriteString("\x1b[A\x1b[2K") // up, and erase: what the screen does not take, print tells
	}
}

// print prints a line that has been made harmless.
func (c *console) print(line string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.prints.Add(1) // after the terminal's own writes
	if c.tty == nil {
		_, err := io.WriteString(c.out, line+"\n")
		return err
	}
	// Asked each time in place of a signal: the typed line is drawn again at every print anyway.
	if width, height, err := term.GetSize(int(c.screen.Fd())); err == nil && width != c.width && width > 0 {
		c.width = width
		_ = c.tty.SetSize(width, height) // fails only as the write below does
	}
	_, err := io.WriteString(c.tty, line+"\n")
	return err
}

// interruptible reads a file until it is interrupted. A blocking file has no other way out of Read.
type interruptible struct {
	file   *os.File
	wakeUp *os.File // at its end reading ends
	wake   *os.File
	once   sync.Once
}

func newInterruptible(file *os.File) (*interruptible, error) {
	wakeUp, wake, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return &interruptible{file: file, wakeUp: wakeUp, wake: wake}, nil
}

func (r *interruptible) Read(p []byte) (int, error) {
	fds := []unix.PollFd{
		{Fd: int32(r.wakeUp.Fd()), Events: unix.POLLIN},
		{Fd: int32(r.file.Fd()), Events: unix.POLLIN},
	}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("wait for input: %w", err)
		}
		switch {
		case fds[0].Revents != 0:
			return 0, io.EOF
		case fds[1].Revents != 0:
			return r.file.Read(p)
		}
	}
}

func (r *interruptible) interrupt() { r.once.Do(func() { _ = r.wake.Close() }) }

func (r *interruptible) close() {
	r.interrupt()
	_ = r.wakeUp.Close()
}
