package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gochat/layers"
)

const referenceCommand = "reference-server"

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench SCENARIO",
		Short: "Make load for a running gochat and account for every delivery",
		Long: `Make load for a running gochat and account for every delivery.

A line a second goes to standard error, the result to standard output. Ctrl-C ends it with what was measured so far.
It ends with 0 if nothing was lost and nothing went wrong, with 1 if not, and with 2 if a flag is wrong.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &layers.BenchUsageError{Err: fmt.Errorf("scenario %q: want one of %s, or compare", args[0], strings.Join(layers.BenchScenarios(), ", "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &layers.BenchUsageError{Err: err} })
	for _, s := range []struct {
		name, short string
		declare     []func(*pflag.FlagSet, *layers.BenchOptions)
	}{
		{"fanout", "A few senders in one room of many", []func(*pflag.FlagSet, *layers.BenchOptions){memberFlags, messageFlags, usersFlag, referenceFlag}},
		{"rooms", "Many rooms, with a few senders each", []func(*pflag.FlagSet, *layers.BenchOptions){roomsFlag, memberFlags, messageFlags, usersFlag, referenceFlag}},
		{"private", "Pairs that write to each other", []func(*pflag.FlagSet, *layers.BenchOptions){pairsFlag, messageFlags, referenceFlag}},
		{"idle", "Connections that stay; at the end each must answer a ping", []func(*pflag.FlagSet, *layers.BenchOptions){connectionsFlag, usersFlag}},
		{"churn", "Connections that come, and go at once; the server's count is checked, which is of users", []func(*pflag.FlagSet, *layers.BenchOptions){connectionsFlag, usersFlag}},
		{"slow", "A room without, then with members who never read", []func(*pflag.FlagSet, *layers.BenchOptions){memberFlags, silentFlag, messageFlags, usersFlag}},
	} {
		cmd.AddCommand(scenarioCommand(s.name, s.short, s.declare))
	}
	cmd.AddCommand(&cobra.Command{
		Use: "compare A.json B.json", Short: "Print two reports with their ratios",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &layers.BenchUsageError{Err: errors.New("want two files that --json has written")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return layers.BenchCompare(args[0], args[1], cmd.OutOrStdout())
		},
	})
	reference := &cobra.Command{
		Use: referenceCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			transport, _ := cmd.Flags().GetString("transport") // declared below
			// The signal that ends a run is for its parent: this one ends with its input.
			return layers.BenchReference(cmd.Context(), transport, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	reference.Flags().String("transport", "websocket", "websocket or tcp")
	cmd.AddCommand(reference)
	return cmd
}

func scenarioCommand(name, short string, declare []func(*pflag.FlagSet, *layers.BenchOptions)) *cobra.Command {
	o := layers.BenchDefaults()
	o.Scenario = name
	var pids []string
	cmd := &cobra.Command{
		Use: name, Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &layers.BenchUsageError{Err: fmt.Errorf("%q: want flags alone", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Processes, err = processes(pids); err != nil {
				return &layers.BenchUsageError{Err: err}
			}
			if o.Reference {
				self, err := os.Executable()
				if err != nil {
					return fmt.Errorf("find this program: %w", err)
				}
				o.ReferenceCommand = []string{self, "bench", referenceCommand}
			}
			return layers.Bench(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	for _, d := range declare {
		d(f, &o)
	}
	targetFlags(f, &o)
	f.DurationVar(&o.For, "for", o.For, "how long to send, stay, or come and go")
	f.DurationVar(&o.Drain, "drain", o.Drain, "how long to wait for what is on its way, or for the next connection")
	f.StringArrayVar(&pids, "pid", nil, "NAME=PID of a process whose CPU and memory are measured, with its children; may be given several times")
	f.StringVar(&o.JSON, "json", "", "file to write the result to, for compare")
	return cmd
}

func targetFlags(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.StringVar(&o.Transport, "transport", o.Transport, "websocket or tcp")
	f.StringVar(&o.API, "api", o.API, "base URL of the REST API")
	f.StringSliceVar(&o.WebSocket, "websocket", o.WebSocket, "host:port of the websocket, several for several nodes")
	f.StringSliceVar(&o.TCP, "tcp", o.TCP, "host:port of the tcp socket, several for several nodes")
	f.BoolVar(&o.AllowRemote, "allow-remote", false, "load what is not on loopback")
	f.StringVar(&o.UserPrefix, "user-prefix", o.UserPrefix, "what the names of the users and rooms begin with; they are made once and used again")
	f.StringVar(&o.Password, "password", "", "password of all users, 6 characters or more")
	f.IntVar(&o.Logins, "logins", o.Logins, "logins at once")
	f.IntVar(&o.Connecting, "connecting", o.Connecting, "handshakes at once")
	f.IntVar(&o.Sources, "sources", o.Sources, "addresses from 127.0.0.2 on to connect from, each good for 20000 connections to a target; 0 is one, the kernel's choice")
}

func memberFlags(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.IntVar(&o.Members, "members", o.Members, "connections in a room, who all get what is sent")
	f.IntVar(&o.Senders, "senders", o.Senders, "members of a room who take turns to send")
}

func messageFlags(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.Float64Var(&o.Rate, "rate", o.Rate, "messages a second in all; logic.rate.per_second bounds those of one user")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a message's text")
}

func usersFlag(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.IntVar(&o.Users, "users", o.Users, "users who share the connections; 0 is one each, 1000 at most")
}

func referenceFlag(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.BoolVar(&o.Reference, "reference", false, "afterwards have a bare write loop do the same work, to compare CPU")
}

func roomsFlag(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.IntVar(&o.Rooms, "rooms", o.Rooms, "how many rooms")
}

func pairsFlag(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.IntVar(&o.Pairs, "pairs", o.Pairs, "how many pairs, of two users each")
}

func connectionsFlag(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.IntVar(&o.Connections, "connections", o.Connections, "how many connections")
}

func silentFlag(f *pflag.FlagSet, o *layers.BenchOptions) {
	f.IntVar(&o.Silent, "silent", o.Silent, "further members who never read, in the second half")
}

// processes reads NAME=PID.
func processes(given []string) ([]layers.BenchProcess, error) {
	var all []layers.BenchProcess
	for _, g := range given {
		name, number, _ := strings.Cut(g, "=")
		pid, err := strconv.Atoi(number)
		if err != nil || pid <= 0 || name == "" {
			return nil, fmt.Errorf("--pid: %q: want NAME=PID", g)
		}
		if slices.ContainsFunc(all, func(p layers.BenchProcess) bool { return p.Name == name }) {
			return nil, fmt.Errorf("--pid: %q: want each name once", g)
		}
		all = append(all, layers.BenchProcess{Name: name, PID: pid})
	}
	return all, nil
}
