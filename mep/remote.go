package mep

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/mepauth"
)

// remote is one of the managements of a running platform that commands talk to, with a client C.
type remote[C any] struct {
	// name is what it is called in messages.
	name string
	// listener is its name among the URLs of a credentials file.
	listener string
	// setting says where it listens.
	setting string
	// listen is the value of that, with an error when it is off.
	listen func(*Config) (string, error)
	// connect makes a client.
	connect func(baseURL string, opts ...client.Option) (C, error)
}

// command adapts a function to a command that talks to the management, and gives it the flags that say where that is.
func (r *remote[C]) command(s *Spec, cmd *cobra.Command, run func(ctx context.Context, cmd *cobra.Command, c C, args []string) error) *cobra.Command {
	s.AddFlags(cmd)
	f := cmd.Flags()
	f.String("credentials", "", "credentials file with the scope mm5; default: bootstrap/mepm.json in the data directory, and with --dev none")
	f.String("url", "", fmt.Sprintf("URL of %s; default: urls.%s of the credentials file, and with --dev %s", r.name, r.listener, r.setting))
	f.String("ca", "", "PEM file of the CA of the platform; default: caFile of the credentials file")
	f.Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.Load(s.Sources(cmd))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), commandTimeout)
		defer cancel()
		c, done, err := r.open(cmd, cfg)
		if err != nil {
			return err
		}
		defer done()
		return r.explained(run(ctx, cmd, c, args))
	}
	return cmd
}

// explained says what to do about a platform that does not answer.
func (r *remote[C]) explained(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s does not answer (is the platform running, and %s or --url right?): %w", r.name, r.setting, err)
	}
	return err
}

// open makes a client; done ends its connections.
func (r *remote[C]) open(cmd *cobra.Command, cfg *Config) (c C, done func(), err error) {
	f := cmd.Flags()
	get := func(name string) string { v, _ := f.GetString(name); return v }
	file, url := get("credentials"), get("url")
	if file == "" && cfg.Common.Dev {
		if url == "" {
			listen, err := r.listen(cfg)
			if err != nil {
				return c, nil, err
			}
			url = "http://" + reachable(listen)
		}
		h := &http.Client{Timeout: client.DefaultTimeout}
		c, err = r.connect(url, client.WithHTTPClient(h))
		return c, h.CloseIdleConnections, err
	}
	if file == "" {
		file = mepauth.BootstrapFile(&cfg.Common)
	}
	given, err := auth.LoadCredentials(file)
	if err != nil {
		return c, nil, err
	}
	given.CAFile = cmp.Or(get("ca"), given.CAFile)
	if url = cmp.Or(url, given.URLs[r.listener]); url == "" {
		return c, nil, fmt.Errorf("%s does not say where %s is: say so with --url", file, r.name)
	}
	h, err := given.HTTPClient()
	if err != nil {
		return c, nil, err
	}
	tokens, err := given.Source(h)
	if err != nil {
		return c, nil, err
	}
	c, err = r.connect(url, client.WithHTTPClient(h), client.WithTokens(tokens))
	return c, h.CloseIdleConnections, err
}

// reachable is the address of a listener as somebody on this machine uses it.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	switch a, err := netip.ParseAddr(host); {
	case host == "" || err == nil && a.IsUnspecified() && a.Is4():
		host = "127.0.0.1"
	case err == nil && a.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// printed writes v as JSON if the command has --json, and reports whether it has.
func printed(cmd *cobra.Command, v any) (bool, error) {
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil || !asJSON {
		return false, err
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return true, enc.Encode(v)
}

// collected is all of a list that comes page by page; empty and not nil when there is nothing, which is how JSON shows it.
func collected[T any](pages iter.Seq2[T, error]) ([]T, error) {
	list := []T{}
	for v, err := range pages {
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
