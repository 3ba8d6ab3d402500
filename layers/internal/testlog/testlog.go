// Package testlog is a log that a test reads while it is written. It is for tests alone.
package testlog

import (
	"bytes"
	"sync"
)

// Buffer keeps what is written. The zero value is empty; its methods may be called from any goroutine.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is all that has been written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
