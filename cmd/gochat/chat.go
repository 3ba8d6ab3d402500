package main

import (
	"os"

	"github.com/spf13/cobra"

	"gochat/layers"
)

func chatCommand() *cobra.Command {
	o := layers.ChatOptions{In: os.Stdin, Out: os.Stdout}
	cmd := &cobra.Command{
		Use:   "chat --user NAME",
		Short: "Chat in this terminal",
		Long: `Chat in this terminal: a line is sent to the room, /help lists the commands, Ctrl-D leaves.

The password is asked for. Without a terminal it is the first line of the input, the others are sent, and messages
are printed as lines.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return layers.Chat(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.API, "api", "http://127.0.0.1:7070", "base URL of the REST API")
	cmd.Flags().StringVar(&o.TCP, "tcp", "127.0.0.1:7001", "host:port of the tcp socket")
	cmd.Flags().StringVar(&o.User, "user", "", "name to log in with")
	cmd.Flags().Int64Var(&o.Room, "room", 1, "number of the room to begin in")
	cmd.Flags().BoolVar(&o.Register, "register", false, "make the account first")
	return cmd
}
