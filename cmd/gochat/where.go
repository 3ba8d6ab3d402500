package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"gochat/layers"
)

func whereCommand() *cobra.Command {
	var o layers.WhereOptions
	cmd := &cobra.Command{
		Use:   "where MESSAGE_ID",
		Short: "Say where a message is",
		Long: `Say where a message is: when it was accepted and by whom, stored, published, consumed, and what became of it on each
node, with times counted from its acceptance.

The admin server of any process that runs api, logic, connect or task knows it: that asks all logic and task nodes. They
remember what they did for a while, see record.keep and record.messages. What a message says is not printed.

It ends with 0 if the message is found, with 1 if it is not, has expired, or cannot be asked for, and with 2 if an
argument is wrong.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &layers.WhereUsageError{Err: fmt.Errorf("%d arguments: want MESSAGE_ID, the id of a message", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Message = args[0]
			return layers.Where(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &layers.WhereUsageError{Err: err} })
	cmd.Flags().StringVar(&o.Admin, "admin", "http://127.0.0.1:9100", "base URL of an admin server")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print the answer as JSON")
	return cmd
}
