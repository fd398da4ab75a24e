package mep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/dns"
)

// dnsCommand returns the command that examines the DNS server of a running platform.
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
	root.AddCommand(dnsManagement.command(s, list, listRecords), dnsManagement.command(s, flush, flushCache),
		dnsManagement.command(s, trace, traceName), queryCommand(s))
	return root
}

// dnsManagement is the management API of the DNS server.
var dnsManagement = remote[*client.DNS]{
	name: "the DNS management", listener: "dns", setting: "dns.managementListen",
	listen: func(cfg *Config) (string, error) {
		if !cfg.DNS.Enabled() {
			return "", errors.New("dns.listen is off: there is no DNS server; name another one with --url")
		}
		return cfg.DNS.ManagementListen, nil
	},
	connect: client.NewDNS,
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
	list, err := collected(d.Records(ctx, filter))
	if err != nil {
		return err
	}
	if done, err := printed(cmd, list); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTTL\tTYPE\tDATA\tZONE\tVIEW")
	for _, rec := range list {
		view := cmp.Or(rec.View, "-")
		if rec.NotServed != "" {
			view += "  (not answered: " + rec.NotServed + ")"
		}
		for _, value := range rec.RData {
			if rec.Type == dns.TypeTXT {
				value = fmt.Sprintf("%q", value)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", rec.Name, rec.TTL, rec.Type, value, rec.Zone, view)
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

// oneLine replaces the tabs that zone files have between the parts of a record by spaces.
func oneLine(record string) string { return strings.ReplaceAll(record, "\t", " ") }
