package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/kit/ops"
	"github.com/openmep/mep/kit/settings"
)

// Command makes the command line of the program.
func (s *Spec[C]) Command() *cobra.Command {
	root := &cobra.Command{
		Use: s.Name, Short: s.Short, SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	runIt := func(cmd *cobra.Command, _ []string) error {
		return s.Run(cmd.Context(), s.sources(cmd), os.Stderr)
	}
	start := &cobra.Command{Use: "run", Short: "Run until SIGTERM; SIGHUP reads the configuration again", Args: cobra.NoArgs, RunE: runIt}
	s.addFlags(start)
	if s.RunByDefault {
		root.RunE = runIt
		s.addFlags(root)
	}
	validate := &cobra.Command{
		Use: "validate", Short: "Check the configuration and print nothing but its faults", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := s.Load(s.sources(cmd))
			if err == nil {
				cmd.Println("the configuration is valid")
			}
			return err
		},
	}
	s.addFlags(validate)
	root.AddCommand(start, validate, s.healthcheck(), &cobra.Command{
		Use: "version", Short: "Print the release", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { cmd.Println(s.Name, Version) },
	})
	root.SetOut(os.Stdout)
	return root
}

func (s *Spec[C]) addFlags(cmd *cobra.Command) {
	settings.Flags(cmd.Flags(), new(C))
	cmd.Flags().String("config", "", "YAML file with settings ("+settings.EnvPrefix+"CONFIG)")
}

func (s *Spec[C]) sources(cmd *cobra.Command) settings.Sources {
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
			if err := settings.Load(cfg, s.sources(cmd), func() bool { return s.Common(cfg).Dev }); err != nil {
				return err
			}
			r, err := askReady(cmd.Context(), s.Common(cfg).OpsListen)
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
	s.addFlags(cmd)
	return cmd
}

func askReady(ctx context.Context, addr string) (ops.Readiness, error) {
	var r ops.Readiness
	if strings.HasPrefix(addr, ":") {
		addr = "127.0.0.1" + addr
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return r, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, fmt.Errorf("no answer from the operations listener (is the process running, and ops.listen right?): %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return r, fmt.Errorf("what answers at %s is not this platform: %w", addr, err)
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
