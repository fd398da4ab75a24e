package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/kit/ops"
	"github.com/openmep/mep/kit/settings"
)

// Command returns the command line of the program.
func (s *Spec[C]) Command() *cobra.Command {
	root := &cobra.Command{
		Use: s.Name, Short: s.Short, SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	runIt := func(cmd *cobra.Command, _ []string) error {
		return s.Run(cmd.Context(), s.Sources(cmd), os.Stderr)
	}
	start := &cobra.Command{Use: "run", Short: "Run until SIGTERM; SIGHUP reads the configuration again", Args: cobra.NoArgs, RunE: runIt}
	s.AddFlags(start)
	if s.RunByDefault {
		root.RunE = runIt
		s.AddFlags(root)
	}
	validate := &cobra.Command{
		Use: "validate", Short: "Check the configuration: print its faults, or that it is valid", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.Load(s.Sources(cmd))
			if err == nil && s.Advise != nil {
				err = s.Advise(cfg)
			}
			if err == nil {
				cmd.Println("the configuration is valid")
			}
			return err
		},
	}
	s.AddFlags(validate)
	root.AddCommand(start, validate, s.healthcheck(), &cobra.Command{
		Use: "version", Short: "Print the release", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { cmd.Println(s.Name, Version) },
	})
	root.AddCommand(s.Commands...)
	root.SetOut(os.Stdout)
	return root
}

// AddFlags adds the flags of all settings to a command.
func (s *Spec[C]) AddFlags(cmd *cobra.Command) {
	settings.Flags(cmd.Flags(), new(C))
	cmd.Flags().String("config", "", "YAML file with settings ("+settings.EnvPrefix+"CONFIG)")
}

// Sources returns the sources of the settings for a command that has their flags.
func (s *Spec[C]) Sources(cmd *cobra.Command) settings.Sources {
	src := settings.Sources{Env: os.LookupEnv, Flags: settings.Given(cmd.Flags())}
	src.File = src.Flags["config"]
	if src.File == "" {
		src.File = os.Getenv(settings.EnvPrefix + "CONFIG")
	}
	return src
}

func (s *Spec[C]) healthcheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Ask a running process whether it is ready; the exit code is 0 when it is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := new(C)
			if err := settings.Load(cfg, s.Sources(cmd), func() bool { return s.Common(cfg).Dev }); err != nil {
				return err
			}
			r, err := AskReady(cmd.Context(), s.Common(cfg))
			if err != nil {
				return err
			}
			for _, n := range r.Degraded {
				cmd.Printf("degraded: %s %s\n", n.Name, n.Reason)
			}
			if !r.Ready {
				var parts []string
				for _, n := range r.NotReady {
					parts = append(parts, n.Name+" "+n.Reason)
				}
				return fmt.Errorf("not ready: %s", strings.Join(parts, "; "))
			}
			cmd.Println("ready")
			return nil
		},
	}
	s.AddFlags(cmd)
	return cmd
}

// AskReady asks a running process on this machine whether it is ready.
func AskReady(ctx context.Context, cfg *Config) (ops.Readiness, error) {
	var r ops.Readiness
	host, port, err := net.SplitHostPort(cfg.OpsListen)
	if err != nil {
		return r, fmt.Errorf("ops.listen: %w", err)
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if !cfg.Dev && !onLoopback(cfg.OpsListen) {
		scheme = "https"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return r, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		// Neither the request nor the response is secret, and an expired certificate is no reason to hide the state.
		InsecureSkipVerify: true, //nolint:gosec // see above
	}}}
	resp, err := client.Do(req)
	if err != nil {
		return r, fmt.Errorf("no answer from the operations listener (is the process running, and ops.listen right?): %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		return r, fmt.Errorf("the platform runs, but tells strangers at %s nothing: let ops.listen be a loopback address, or all addresses (\":%s\"), "+
			"of which loopback is one", host, port)
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return r, fmt.Errorf("what answers at %s is not this platform: %w", req.URL.Host, err)
	}
	return r, nil
}

// Main runs the command line and returns the exit code.
func (s *Spec[C]) Main() int {
	err := s.Command().ExecuteContext(context.Background())
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", s.Name, err)
	return 1
}
