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

// remote is a management API of a running platform that commands use through a client of type C.
type remote[C any] struct {
	// name is its name in messages.
	name string
	// listener is its key among the URLs of a credentials file.
	listener string
	// setting names the setting of its address.
	setting string
	// listen returns the value of that setting, or an error if it is off.
	listen func(*Config) (string, error)
	// connect returns a client.
	connect func(baseURL string, opts ...client.Option) (C, error)
}

// command makes cmd a command that uses the management API with run, and gives it the flags that say where the API is.
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

// explained adds to an error what to do about a platform that does not respond.
func (r *remote[C]) explained(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s does not answer (is the platform running, and %s or --url right?): %w", r.name, r.setting, err)
	}
	return err
}

// open returns a client; done closes its connections.
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

// reachable returns the address of a listener for a client on this machine.
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

// printed writes v as JSON if the command has --json, and reports whether it does.
func printed(cmd *cobra.Command, v any) (bool, error) {
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil || !asJSON {
		return false, err
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return true, enc.Encode(v)
}

// collected returns all elements of a list that comes page by page. An empty list is not nil, so that JSON shows it as [].
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
