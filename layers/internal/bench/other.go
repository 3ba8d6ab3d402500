//go:build !linux

package bench

import (
	"context"
	"errors"
	"io"
)

var errPlatform = errors.New("gochat bench needs Linux: it reads its connections over epoll, and /proc")

func run(context.Context, Options, io.Writer) (*Report, error) { return nil, errPlatform }

// ServeReference fails: it needs Linux.
func ServeReference(context.Context, string, io.Reader, io.Writer) error { return errPlatform }
