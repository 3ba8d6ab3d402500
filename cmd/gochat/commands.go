package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gochat/layers"
)

// loopback is where up is bound unless it is told otherwise.
const loopback = "127.0.0.1"

// configVariable names the configuration file where no flag does.
const configVariable = "GOCHAT_CONFIG"

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "gochat",
		Short:         "Instant messaging in five layers: api, logic, connect, task, site",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(os.Stdout)
	root.PersistentFlags().String("config", "", "TOML file with settings (or "+configVariable+")")
	root.PersistentFlags().StringArray("set", nil, "one setting as KEY=VALUE; may be given several times")
	root.AddCommand(upCommand(), runCommand(), migrateCommand(), configCommand(), queueCommand(), healthCommand(), whereCommand(), chatCommand(), benchCommand(), versionCommand())
	return root
}

// load lays the file, the environment and the flags over cfg.
func load(cmd *cobra.Command, cfg *layers.Config, flags map[string]layers.Flag) error {
	from := layers.Sources{Flags: flags}
	from.File, _ = cmd.Flags().GetString("config") // declared on the root
	for _, variable := range os.Environ() {
		if file, ok := strings.CutPrefix(variable, configVariable+"="); !ok {
			from.Environ = append(from.Environ, variable)
		} else if from.File == "" {
			from.File = file
		}
	}
	settings, _ := cmd.Flags().GetStringArray("set") // declared on the root
	for _, setting := range settings {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			return fmt.Errorf("flag --set %q: want KEY=VALUE", setting)
		}
		from.Flags[key] = layers.Flag{Name: "--set " + key, Value: value}
	}
	return layers.Load(cfg, from)
}

// portFlag is a flag of up that stands for a key whose value is one host:port, or several.
type portFlag struct {
	flag, key, help string
	ports           []string // if it is not given
	several         bool     // the flag may be repeated; of one that may not, the last wins
	public          bool     // bound on the address of --listen-host
}

func portFlags() []portFlag {
	return []portFlag{
		{"site-port", "site.listen", "port of the page", []string{"8080"}, false, true},
		{"api-port", "api.listen", "port of the REST API", []string{"7070"}, false, true},
		{"websocket-port", "connect.websocket.listen", "port of the websocket", []string{"7000"}, false, true},
		{"tcp-ports", "connect.tcp.listen", "ports of the tcp sockets", []string{"7001", "7002"}, true, true},
		{"admin-port", "admin.listen", "port of metrics, health and pprof, always on loopback", []string{"9100"}, false, false},
		{"rpc-port", "rpc.listen", "port between layers, always on loopback", []string{"0"}, false, false},
	}
}

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run all layers in one process, with all they need",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := layers.UpDefaults()
			if err := load(cmd, &cfg, listenFlags(cmd.Flags())); err != nil {
				return err
			}
			dir, _ := cmd.Flags().GetString("data-dir") // declared below
			return layers.Up(cmd.Context(), cfg, layers.UpOptions{DataDir: dir, Options: layers.Options{
				Log: cmd.ErrOrStderr(), Ready: func(a layers.Addresses) { printAddresses(cmd.OutOrStdout(), a) },
			}})
		},
	}
	cmd.Flags().String("data-dir", "data", "where users, rooms and messages are kept")
	declareListenFlags(cmd.Flags())
	return cmd
}

func declareListenFlags(flags *pflag.FlagSet) {
	flags.String("listen-host", loopback, "address on which the page, the API and the sockets are bound")
	for _, p := range portFlags() {
		if help := p.help + "; 0 takes a free one"; p.several {
			flags.StringSlice(p.flag, p.ports, help)
		} else {
			flags.String(p.flag, p.ports[0], help)
		}
	}
}

// listenFlags turns the host and port flags that were given into settings.
func listenFlags(flags *pflag.FlagSet) map[string]layers.Flag {
	settings := make(map[string]layers.Flag)
	for _, p := range portFlags() {
		var given []string
		host := loopback
		if p.public {
			host, _ = flags.GetString("listen-host") // declared above
			if flags.Changed("listen-host") {
				given = append(given, "--listen-host")
			}
		}
		if flags.Changed(p.flag) {
			given = append(given, "--"+p.flag)
		}
		if len(given) == 0 {
			continue
		}
		var ports []string
		if p.several {
			ports, _ = flags.GetStringSlice(p.flag) // declared above
		} else {
			port, _ := flags.GetString(p.flag) // declared above
			ports = []string{port}
		}
		listens := make([]string, len(ports))
		for i, port := range ports {
			listens[i] = net.JoinHostPort(host, port)
		}
		settings[p.key] = layers.Flag{Name: strings.Join(given, ", "), Value: strings.Join(listens, ",")}
	}
	return settings
}

func printAddresses(w io.Writer, a layers.Addresses) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, address ...any) {
		fmt.Fprintf(t, "  %s\t"+format+"\n", append([]any{name}, address...)...)
	}
	fmt.Fprintln(t, "gochat is ready")
	if a.Page != "" {
		line("page", "http://%s/", a.Page)
	}
	if a.API != "" {
		line("API", "http://%s/  (described at /v1/openapi.json)", a.API)
	}
	if a.WebSocket != "" {
		line("websocket", "ws://%s/ws", a.WebSocket)
		line("tcp", "%s", strings.Join(a.TCP, ", "))
	}
	line("admin", "http://%s/  (metrics, healthz, readyz, debug/traces, debug/pprof)", a.Admin)
	if a.DemoUsers {
		line("users", "demo, test, admin with password 111111")
	}
	_ = t.Flush() // a closed terminal is no reason to end
}

func runCommand() *cobra.Command {
	var chosen []string
	cmd := &cobra.Command{
		Use:   "run --layers LAYER,…",
		Short: "Run some layers in one process, on an etcd, a Redis and a database that are there",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := layers.Defaults()
			if err := load(cmd, &cfg, map[string]layers.Flag{}); err != nil {
				return err
			}
			return layers.Run(cmd.Context(), cfg, layers.Options{
				Layers: chosen, Log: cmd.ErrOrStderr(), Ready: func(a layers.Addresses) { printAddresses(cmd.OutOrStdout(), a) },
			})
		},
	}
	cmd.Flags().StringSliceVar(&chosen, "layers", nil, "some of "+strings.Join(layers.All(), ", "))
	return cmd
}

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "migrate", Short: "Change the database's schema: up, down, status"}
	with := func(use, short string, do func(*cobra.Command, layers.Config) error) {
		cmd.AddCommand(&cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := layers.Defaults()
			if err := load(cmd, &cfg, map[string]layers.Flag{}); err != nil {
				return err
			}
			if cfg.Database.URL == "" {
				return errors.New("database.url: not set")
			}
			return do(cmd, cfg)
		}})
	}
	with("up", "Apply every migration that is missing", func(cmd *cobra.Command, cfg layers.Config) error {
		applied, err := layers.MigrateUp(cmd.Context(), cfg)
		for _, name := range applied {
			cmd.Println("applied", name)
		}
		if err == nil && len(applied) == 0 {
			cmd.Println("nothing to apply")
		}
		return err
	})
	with("down", "Take back the last migration", func(cmd *cobra.Command, cfg layers.Config) error {
		reverted, err := layers.MigrateDown(cmd.Context(), cfg)
		switch {
		case err != nil:
			return err
		case reverted == "":
			cmd.Println("nothing to take back")
		default:
			cmd.Println("took back", reverted)
		}
		return nil
	})
	with("status", "List the migrations", func(cmd *cobra.Command, cfg layers.Config) error {
		states, err := layers.MigrateStatus(cmd.Context(), cfg)
		for _, s := range states {
			at := "pending"
			if !s.AppliedAt.IsZero() {
				at = s.AppliedAt.UTC().Format(time.RFC3339)
			}
			cmd.Println(s.Name, at)
		}
		return err
	})
	return cmd
}

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "Look into the queue: aside"}
	aside := &cobra.Command{
		Use:   "aside",
		Short: "List the items that could not be handled and were set aside, latest first",
		Long: "List the items that could not be handled and were set aside, latest first.\n\n" +
			"Each is a delivery that every try has failed with. The message itself is stored: its receivers find it in the\n" +
			"history, and their connections are given it by repair. Texts are not printed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := layers.Defaults()
			if err := load(cmd, &cfg, map[string]layers.Flag{}); err != nil {
				return err
			}
			limit, _ := cmd.Flags().GetInt("limit") // declared below
			items, err := layers.QueueAside(cmd.Context(), cfg, limit)
			if err != nil {
				return err
			}
			return printAside(cmd.OutOrStdout(), items)
		},
	}
	aside.Flags().Int("limit", 20, "how many at most")
	cmd.AddCommand(aside)
	return cmd
}

func printAside(w io.Writer, items []layers.AsideItem) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SET ASIDE\tPARTITION\tKEY\tBYTES\tTRACEPARENT\tREASON")
	for _, a := range items {
		reason, _, _ := strings.Cut(a.Reason, "\n") // a panic's stack is in the log
		fmt.Fprintf(t, "%s\t%d\t%q\t%d\t%s\t%s\n", a.At.UTC().Format(time.RFC3339), a.Partition, a.Key, len(a.Body), a.Headers["traceparent"], reason)
	}
	return t.Flush()
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in effect, without secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, flags := layers.Defaults(), listenFlags(cmd.Flags())
			if up, _ := cmd.Flags().GetBool("up"); up { // declared below
				cfg = layers.UpDefaults()
			} else if len(flags) > 0 {
				first := slices.Min(slices.Collect(maps.Keys(flags)))
				return fmt.Errorf("%s: only up has it: want --up too", flags[first].Name)
			}
			if err := load(cmd, &cfg, flags); err != nil {
				return err
			}
			if keys, _ := cmd.Flags().GetBool("keys"); keys { // declared below
				return printKeys(cmd.OutOrStdout(), cfg)
			}
			values := layers.Redacted(cfg)
			names := make([]string, 0, len(values))
			for name := range values {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				value, err := json.Marshal(values[name])
				if err != nil {
					return fmt.Errorf("print %s: %w", name, err)
				}
				cmd.Printf("%s = %s\n", name, value)
			}
			return nil
		},
	}
	cmd.Flags().Bool("keys", false, "print every key with its variable, type and meaning instead")
	cmd.Flags().Bool("up", false, "start from the defaults of up instead of run, and take its host and ports")
	declareListenFlags(cmd.Flags())
	return cmd
}

func printKeys(w io.Writer, cfg layers.Config) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tENVIRONMENT\tTYPE\tDEFAULT\tMEANING")
	for _, k := range layers.Keys(cfg) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%s\n", k.Name, k.Env, k.Type, k.Default, k.Doc)
	}
	return t.Flush()
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
		cmd.Println("gochat", version, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	}}
}
