package mep

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/mepauth"
)

// dnsListener is the name of the DNS management among the URLs of a credentials file.
const dnsListener = "dns"

// dnsCommand looks at the DNS server of a running platform.
func dnsCommand(s *Spec) *cobra.Command {
	root := &cobra.Command{Use: "dns", Short: "Ask the DNS server of a running platform, and its management", Args: cobra.NoArgs}
	list := &cobra.Command{
		Use: "list [NAME]", Short: "List the records of the management: all, or those of NAME and of the names below it", Args: cobra.MaximumNArgs(1),
	}
	list.Flags().String("type", "", "only records of this type: "+strings.Join(dns.Types, ", "))
	list.Flags().String("zone", "", "only records of this zone")
	list.Flags().String("view", "", "only records of this view; \"\" with the flag given: those that everybody sees")
	flush := &cobra.Command{Use: "flush [NAME]", Short: "Remove what upstreams answered from the cache: all, or what was asked for NAME", Args: cobra.MaximumNArgs(1)}
	flush.Flags().Bool("below", false, "also what was asked for names below NAME")
	trace := &cobra.Command{
		Use: "trace NAME [TYPE]", Short: "Say what the DNS server answers to a client, and how it comes to that; the type is A unless given", Args: cobra.RangeArgs(1, 2),
	}
	trace.Flags().String("client", "", "address of the client, which decides about views and forwarding; default: that of this machine")
	root.AddCommand(managed(s, list, listRecords), managed(s, flush, flushCache), managed(s, trace, traceName), queryCommand(s))
	return root
}

// managed adapts a function to a command that talks to the DNS management.
func managed(s *Spec, cmd *cobra.Command, run func(ctx context.Context, cmd *cobra.Command, d *client.DNS, args []string) error) *cobra.Command {
	s.AddFlags(cmd)
	f := cmd.Flags()
	f.String("credentials", "", "credentials file with the scope mm5; default: bootstrap/mepm.json in the data directory, and with --dev none")
	f.String("url", "", "URL of the DNS management; default: urls.dns of the credentials file, and with --dev dns.managementListen")
	f.String("ca", "", "PEM file of the CA of the platform; default: caFile of the credentials file")
	f.Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.Load(s.Sources(cmd))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), commandTimeout)
		defer cancel()
		d, done, err := manage(cmd, cfg)
		if err != nil {
			return err
		}
		defer done()
		return explained(run(ctx, cmd, d, args))
	}
	return cmd
}

// explained says what to do about a platform that does not answer.
func explained(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("the DNS management does not answer (is the platform running, and dns.managementListen or --url right?): %w", err)
	}
	return err
}

// manage makes a client of the DNS management; done ends its connections.
func manage(cmd *cobra.Command, cfg *Config) (d *client.DNS, done func(), err error) {
	f := cmd.Flags()
	get := func(name string) string { v, _ := f.GetString(name); return v }
	file, url := get("credentials"), get("url")
	if file == "" && cfg.Common.Dev {
		if url == "" && !cfg.DNS.Enabled() {
			return nil, nil, errors.New("dns.listen is off: there is no DNS server; name another one with --url")
		}
		h := &http.Client{Timeout: client.DefaultTimeout}
		d, err = client.NewDNS(cmp.Or(url, "http://"+reachable(cfg.DNS.ManagementListen)), client.WithHTTPClient(h))
		return d, h.CloseIdleConnections, err
	}
	if file == "" {
		file = mepauth.BootstrapFile(&cfg.Common)
	}
	c, err := auth.LoadCredentials(file)
	if err != nil {
		return nil, nil, err
	}
	c.CAFile = cmp.Or(get("ca"), c.CAFile)
	if url = cmp.Or(url, c.URLs[dnsListener]); url == "" {
		return nil, nil, fmt.Errorf("%s does not say where the DNS management is: say so with --url", file)
	}
	h, err := c.HTTPClient()
	if err != nil {
		return nil, nil, err
	}
	tokens, err := c.Source(h)
	if err != nil {
		return nil, nil, err
	}
	d, err = client.NewDNS(url, client.WithHTTPClient(h), client.WithTokens(tokens))
	return d, h.CloseIdleConnections, err
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

func listRecords(ctx context.Context, cmd *cobra.Command, d *client.DNS, args []string) error {
	f := cmd.Flags()
	var filter client.DNSFilter
	if len(args) > 0 {
		filter.Below = args[0]
	}
	rrtype, _ := f.GetString("type")
	filter.Type = strings.ToUpper(rrtype)
	filter.Zone, _ = f.GetString("zone")
	if f.Changed("view") {
		view, _ := f.GetString("view")
		filter.View = &view
	}
	list := []dns.Record{}
	for rec, err := range d.Records(ctx, filter) {
		if err != nil {
			return err
		}
		list = append(list, rec)
	}
	if done, err := printed(cmd, list); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTTL\tTYPE\tDATA\tZONE\tVIEW")
	for _, rec := range list {
		for _, value := range rec.RData {
			if rec.Type == dns.TypeTXT {
				value = fmt.Sprintf("%q", value)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", rec.Name, rec.TTL, rec.Type, value, rec.Zone, cmp.Or(rec.View, "-"))
		}
	}
	return w.Flush()
}

func flushCache(ctx context.Context, cmd *cobra.Command, d *client.DNS, args []string) error {
	below, err := cmd.Flags().GetBool("below")
	if err != nil {
		return err
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	} else if below {
		return errors.New("--below needs a NAME; without both everything is removed")
	}
	n, err := d.Flush(ctx, name, below)
	if err != nil {
		return err
	}
	if done, err := printed(cmd, dns.Flushed{Entries: n}); done || err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed from the cache: %d\n", n)
	return err
}

func traceName(ctx context.Context, cmd *cobra.Command, d *client.DNS, args []string) error {
	rrtype := ""
	if len(args) > 1 {
		rrtype = args[1]
	}
	var from netip.Addr
	if text, _ := cmd.Flags().GetString("client"); text != "" {
		var err error
		if from, err = netip.ParseAddr(text); err != nil {
			return fmt.Errorf("--client must be an IPv4 or IPv6 address, not %q", text)
		}
	}
	t, err := d.Trace(ctx, args[0], rrtype, from)
	if err != nil {
		return err
	}
	if done, err := printed(cmd, t); done || err != nil {
		return err
	}
	return writeTrace(cmd.OutOrStdout(), t)
}

func writeTrace(out io.Writer, t *dns.Trace) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("question", t.Name+" "+t.Type)
	row("client", t.Client)
	row("view", t.View)
	row("zone", t.Zone)
	row("source", string(t.Source))
	answer := t.RCode
	if t.Authoritative {
		answer += ", authoritative"
	}
	row("answer", answer)
	row("wildcard", t.Wildcard)
	for i, step := range t.Steps {
		name := ""
		if i == 0 {
			name = "steps"
		}
		fmt.Fprintf(w, "%s\t%s\n", name, step)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(t.Records) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	fmt.Fprintln(w, "RECORD\tORIGIN")
	for _, r := range t.Records {
		fmt.Fprintf(w, "%s\t%s\n", oneLine(r.Record), cmp.Or(r.Origin, "-"))
	}
	return w.Flush()
}

// oneLine is a record without the tabs that zone files have between its parts.
func oneLine(record string) string { return strings.ReplaceAll(record, "\t", " ") }
