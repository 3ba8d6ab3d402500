package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"gochat/layers"
	"gochat/observability"
)

func healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a process whether it is ready, and for what it waits",
		Long: "Ask a process whether it is ready, and for what it waits.\n\n" +
			"It is asked at admin.listen of the configuration, which is the process's own where both have the same, as in a\n" +
			"container. It ends with 0 if the process is ready, else with 1.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := layers.Defaults()
			if err := load(cmd, &cfg, map[string]layers.Flag{}); err != nil {
				return err
			}
			answer, err := observability.AskReadiness(cmd.Context(), reachable(cfg.Admin.Listen))
			if err != nil {
				return fmt.Errorf("ask whether it is ready: %w", err)
			}
			return printReadiness(cmd.OutOrStdout(), answer)
		},
	}
	return cmd
}

// reachable is the address at which one reaches, on the same machine, what listens there.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

func printReadiness(w io.Writer, answer observability.Readiness) error {
	var waits []string
	for _, c := range answer.Checks {
		if !c.Ready {
			waits = append(waits, c.Name)
			fmt.Fprintf(w, "%s: %s\n", c.Name, c.Reason)
		}
	}
	if !answer.Ready {
		return errors.New("not ready: " + strings.Join(waits, ", "))
	}
	_, err := fmt.Fprintln(w, "ready")
	return err
}
