package layers

import (
	"context"
	"io"

	"gochat/layers/internal/contract"
	"gochat/layers/internal/terminal"
)

// ChatOptions say where and as whom Chat chats.
type ChatOptions struct {
	API      string // base URL of the REST API
	TCP      string // host:port of the tcp socket
	User     string
	Room     int64     // the first to be in
	Register bool      // makes the account instead of logging in to it
	In       io.Reader // an *os.File to be interruptible, and to be a terminal
	Out      io.Writer
}

// Chat is a person at a terminal, or a script: it logs in with the password that it asks for, or reads as the first
// line of In, prints what is said in a room and privately, and sends the lines of In. It returns when In or ctx
// ends, and fails if it cannot log in, if the session is ended by the server, or if it had to leave lines unsent.
func Chat(ctx context.Context, o ChatOptions) error {
	t, err := terminal.New(terminal.Options{
		API: o.API, TCP: o.TCP, User: o.User, Room: contract.RoomID(o.Room), Register: o.Register,
	}, o.In, o.Out)
	if err != nil {
		return err
	}
	return t.Run(ctx)
}
