package mep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/gateway"
)

// gatewayManagement is the management API of the gateway.
var gatewayManagement = remote[*client.Gateway]{
	name: "the management of the gateway", listener: "gateway-management", setting: "gateway.managementListen",
	listen: gatewayListen, connect: client.NewGateway,
}

// gatewayListen returns where the gateway's management API listens.
func gatewayListen(c *Config) (string, error) {
	if !c.Gateway.Enabled() {
		return "", errors.New("gateway.listen is off: there is no gateway; name another one with --url")
	}
	return c.Gateway.ManagementListen, nil
}

// gatewayCommand returns the command that examines the gateway of a running platform.
func gatewayCommand(s *Spec) *cobra.Command {
	root := &cobra.Command{Use: "gateway", Short: "Look at the gateway of a running platform: its routes, and what becomes of calls", Args: cobra.NoArgs}
	routes := &cobra.Command{Use: "routes", Short: "List the routes, and what they lead to", Args: cobra.NoArgs}
	routes.Flags().String("kind", "", "only routes of this kind: platform, service, instance, static")
	routes.Flags().String("service", "", "only routes to the services of this name")
	routes.Flags().String("source", "", "only routes from there: registry, configuration, management, platform")
	explain := &cobra.Command{
		Use: "explain METHOD URL", Short: "Say what would become of a call: its route, who decides about it, and where it goes", Args: cobra.ExactArgs(2),
	}
	explain.Flags().String("consumer", "", "who would call; default: somebody who proves nothing")
	explain.Flags().StringSlice("scope", nil, "what the consumer may do; default: that of its API key, or mp1")
	explain.Flags().String("source", "", "address of the client; default: 127.0.0.1")
	explain.Flags().StringArray("header", nil, "header field of the request, as NAME: VALUE")
	export := &cobra.Command{Use: "export", Short: "Write the routes as configuration of another gateway, in YAML", Args: cobra.NoArgs}
	export.Flags().String("format", "", "kong or envoy")
	status := &cobra.Command{Use: "status", Short: "Say what the gateway works by, and which definitions it refuses", Args: cobra.NoArgs}
	stats := &cobra.Command{Use: "stats", Short: "Count the calls of each consumer to each service", Args: cobra.NoArgs}
	stats.Flags().String("service", "", "only calls to services of this name")
	stats.Flags().String("consumer", "", "only calls of this consumer")
	stats.Flags().String("resolution", "", "minute, hour or day; default: hour")
	stats.Flags().Duration("since", 0, "how far back; default: an hour of minutes, a day of hours, a week of days")
	g := &gatewayManagement
	root.AddCommand(g.command(s, routes, listRoutes), g.command(s, explain, explainCall), g.command(s, export, exportRoutes),
		g.command(s, status, gatewayStatus), g.command(s, stats, countCalls))
	return root
}

func listRoutes(ctx context.Context, cmd *cobra.Command, g *client.Gateway, _ []string) error {
	f := cmd.Flags()
	var filter client.RouteFilter
	filter.Kind, _ = f.GetString("kind")
	filter.Service, _ = f.GetString("service")
	filter.Source, _ = f.GetString("source")
	list, err := collected(g.Routes(ctx, filter))
	if err != nil {
		return err
	}
	if done, err := printed(cmd, list); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSOURCE\tTAKES\tLEADS TO\tSTATE\tPOLICY")
	for i := range list {
		writeRoute(w, &list[i])
	}
	return w.Flush()
}

// writeRoute writes a row for a route, and further rows for further targets.
func writeRoute(w io.Writer, r *gateway.RouteView) {
	targets := r.Targets
	if len(targets) == 0 {
		targets = []gateway.TargetView{{State: "no target"}}
	}
	id, source, policy, rest := r.ID, r.Source, cmp.Or(r.Policy, "-"), takes(r)
	if r.Refused != "" {
		policy += " (latest definition refused: " + r.Refused + ")"
	}
	for _, t := range targets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", id, source, rest, cmp.Or(t.URL, "-"), condition(&t), policy)
		id, source, policy, rest = "", "", "", ""
	}
}

// takes describes which requests a route takes.
func takes(r *gateway.RouteView) string {
	var parts []string
	if len(r.Methods) > 0 {
		parts = append(parts, strings.Join(r.Methods, ","))
	}
	if len(r.Hosts) > 0 {
		parts = append(parts, strings.Join(r.Hosts, ","))
	}
	ways := []string{strings.Join(append(parts, strings.Join(r.Paths, ",")), " ")}
	for _, host := range r.HostNames {
		ways = append(ways, host+" /**")
	}
	return strings.Join(ways, " or ")
}

func condition(t *gateway.TargetView) string {
	if t.Reason == "" {
		return t.State
	}
	return t.State + ": " + t.Reason
}

func explainCall(ctx context.Context, cmd *cobra.Command, g *client.Gateway, args []string) error {
	f := cmd.Flags()
	req := gateway.ExplainRequest{Method: strings.ToUpper(args[0]), URL: args[1]}
	req.Consumer, _ = f.GetString("consumer")
	req.Scopes, _ = f.GetStringSlice("scope")
	req.Source, _ = f.GetString("source")
	fields, _ := f.GetStringArray("header")
	for _, field := range fields {
		name, value, ok := strings.Cut(field, ":")
		if !ok {
			return fmt.Errorf("--header must be NAME: VALUE, not %q", field)
		}
		if req.Headers == nil {
			req.Headers = make(map[string]string)
		}
		req.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	e, err := g.Explain(ctx, req)
	if err != nil {
		return err
	}
	if done, err := printed(cmd, e); done || err != nil {
		return err
	}
	return writeExplanation(cmd.OutOrStdout(), e)
}

func writeExplanation(out io.Writer, e *gateway.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	outcome := e.Reason
	if e.Status != 0 {
		outcome = strconv.Itoa(e.Status) + ": " + e.Reason
	}
	row("outcome", outcome)
	if e.Route != nil {
		row("route", e.Route.ID+" ("+e.Route.Source+")")
		row("policy", e.Route.Policy)
	}
	row("passed on", e.Path)
	row("filters", strings.Join(e.Filters, ", "))
	for i, t := range e.Targets {
		name := "targets"
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(w, "%s\t%s %s\n", name, t.URL, condition(&t))
	}
	if err := w.Flush(); err != nil || len(e.Steps) == 0 {
		return err
	}
	fmt.Fprintln(out)
	fmt.Fprintln(w, "STEP\tRESULT")
	for _, s := range e.Steps {
		fmt.Fprintf(w, "%s\t%s\n", s.Name, s.Result)
	}
	return w.Flush()
}

func exportRoutes(ctx context.Context, cmd *cobra.Command, g *client.Gateway, _ []string) error {
	format, err := cmd.Flags().GetString("format")
	if err != nil {
		return err
	}
	if format != "kong" && format != "envoy" {
		return errors.New("say for which gateway: --format kong or --format envoy")
	}
	text, err := g.Export(ctx, format)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

func gatewayStatus(ctx context.Context, cmd *cobra.Command, g *client.Gateway, _ []string) error {
	s, err := g.Status(ctx)
	if err != nil {
		return err
	}
	if done, err := printed(cmd, s); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "routes\t%d, services: %d\npolicies\t%d\nrevision\t%d\n", s.Routes, s.Services, s.Policies, s.Revision)
	fmt.Fprintf(w, "configuration\tread %s, reloads since the start: %d\n", moment(s.Loaded), s.Reloads)
	if r := s.NotReloaded; r != nil {
		fmt.Fprintf(w, "not reloaded\t%s: %s\n", moment(r.Time), strings.ReplaceAll(r.Reason, "\n", "; "))
	}
	if len(s.Filters) > 0 {
		fmt.Fprintf(w, "filters\t%s\n", strings.Join(s.Filters, ", "))
	}
	if s.Stale {
		fmt.Fprintln(w, "etcd\tis away: this is what was known last")
	}
	for _, r := range s.Refused {
		fmt.Fprintf(w, "refused\t%s %s: %s\n", r.Kind, r.ID, r.Reason)
	}
	return w.Flush()
}

func countCalls(ctx context.Context, cmd *cobra.Command, g *client.Gateway, _ []string) error {
	f := cmd.Flags()
	var filter client.StatisticsFilter
	filter.Service, _ = f.GetString("service")
	filter.Consumer, _ = f.GetString("consumer")
	filter.Resolution, _ = f.GetString("resolution")
	if since, _ := f.GetDuration("since"); since > 0 {
		filter.From = time.Now().Add(-since)
	}
	s, err := g.Statistics(ctx, filter)
	if err != nil {
		return err
	}
	if done, err := printed(cmd, s); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tSERVICE\tCONSUMER\tCALLS\tREFUSED\tFAILED\tMEAN MS\tBYTES\n", strings.ToUpper(s.Resolution))
	for _, series := range s.Series {
		for _, p := range series.Points {
			mean := 0.0
			if p.Calls > 0 {
				mean = float64(p.Millis) / float64(p.Calls)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%.1f\t%d\n", moment(p.Time), cmp.Or(series.Service, "-"), cmp.Or(series.Consumer, "-"),
				p.Calls, p.Refused, p.Failed, mean, p.Bytes)
		}
	}
	return w.Flush()
}
