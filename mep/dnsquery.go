package mep

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"github.com/openmep/mep/dnsagent"
)

// queryTimeout bounds one query, from the connection to the response.
const queryTimeout = 5 * time.Second

// queryCommand returns the command that queries a DNS server as any client does.
func queryCommand(s *Spec) *cobra.Command {
	cmd := &cobra.Command{
		Use: "query NAME [TYPE]", Short: "Ask the DNS server, and print its answer as dig does; NAME may be an address, whose name is asked for then",
		Args: cobra.RangeArgs(1, 2),
	}
	s.AddFlags(cmd)
	f := cmd.Flags()
	f.String("server", "", "host:port of the DNS server; default: dns.listen, with --tls dns.tlsListen")
	f.Bool("tcp", false, "ask over TCP")
	f.Bool("tls", false, "ask over TLS")
	f.String("ca", "", "PEM file of the CA of the DNS server, for --tls; default: that of the data directory, if there is one")
	f.Bool("json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("tcp", "tls")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.Load(s.Sources(cmd))
		if err != nil {
			return err
		}
		question, err := questionOf(args)
		if err != nil {
			return err
		}
		q, err := newQuery(cmd, cfg)
		if err != nil {
			return err
		}
		if err := q.ask(cmd.Context(), question); err != nil {
			return fmt.Errorf("no answer from %s over %s (is the platform running, and dns.listen or --server right?): %w", q.server, q.protocol(), err)
		}
		if done, err := printed(cmd, q.asJSON()); done || err != nil {
			return err
		}
		return q.write(cmd)
	}
	return cmd
}

// questionOf returns the query for the arguments of the command line.
func questionOf(args []string) (*dns.Msg, error) {
	name, rrtype := args[0], dns.TypeA
	if _, err := netip.ParseAddr(name); err == nil {
		reverse, err := dns.ReverseAddr(name)
		if err != nil {
			return nil, err
		}
		name, rrtype = reverse, dns.TypePTR
	}
	if _, ok := dns.IsDomainName(name); !ok {
		return nil, fmt.Errorf("%q is not a domain name", name)
	}
	if len(args) > 1 {
		given := strings.ToUpper(args[1])
		var known bool
		if rrtype, known = dns.StringToType[given]; !known {
			n, err := strconv.ParseUint(strings.TrimPrefix(given, "TYPE"), 10, 16)
			if err != nil {
				return nil, fmt.Errorf("%q is not a type of records: it is A, AAAA and so on, or TYPE and a number", args[1])
			}
			rrtype = uint16(n)
		}
	}
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), rrtype)
	m.SetEdns0(1232, false)
	return m, nil
}

// query is a DNS query, and then its response.
type query struct {
	client *dns.Client
	server string

	answer  *dns.Msg
	took    time.Duration
	retried bool
}

func newQuery(cmd *cobra.Command, cfg *Config) (*query, error) {
	f := cmd.Flags()
	overTCP, _ := f.GetBool("tcp")
	overTLS, _ := f.GetBool("tls")
	q := &query{client: &dns.Client{Net: "udp", Timeout: queryTimeout, UDPSize: dns.MaxMsgSize}}
	q.server, _ = f.GetString("server")
	setting, listen := "dns.listen", cfg.DNS.Listen
	port := "53"
	switch {
	case overTCP:
		q.client.Net = "tcp"
	case overTLS:
		q.client.Net = "tcp-tls"
		setting, listen, port = "dns.tlsListen", cfg.DNS.TLSListen, "853"
	}
	switch {
	case q.server != "":
		if _, _, err := net.SplitHostPort(q.server); err != nil {
			q.server = net.JoinHostPort(strings.Trim(q.server, "[]"), port)
		}
	case listen == "" || listen == dnsagent.Off:
		return nil, fmt.Errorf("%s is off: name the DNS server with --server", setting)
	default:
		q.server = reachable(listen)
	}
	if overTLS {
		given, _ := f.GetString("ca")
		var err error
		if q.client.TLSConfig, err = queryTLS(cfg, q.server, given); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// queryTLS returns a configuration that trusts the given CA, else the platform's own, if any, else those of the machine.
func queryTLS(cfg *Config, server, given string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	file := given
	if file == "" {
		file = filepath.Join(cfg.Common.PKIDir(), "ca.crt")
	}
	pem, err := os.ReadFile(file)
	if given == "" && errors.Is(err, fs.ErrNotExist) {
		return settings, nil
	}
	if err != nil {
		return nil, fmt.Errorf("CA certificates of the DNS server: %w", err)
	}
	settings.RootCAs = x509.NewCertPool()
	if !settings.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA certificates of the DNS server: %s has no certificate in PEM", file)
	}
	return settings, nil
}

// ask sends the query, and sends it again over TCP if the response was too long for UDP.
func (q *query) ask(ctx context.Context, question *dns.Msg) error {
	var err error
	q.answer, q.took, err = q.client.ExchangeContext(ctx, question, q.server)
	if err == nil && q.answer.Truncated && q.client.Net == "udp" {
		q.client.Net, q.retried = "tcp", true
		q.answer, q.took, err = q.client.ExchangeContext(ctx, question, q.server)
	}
	return err
}

// protocol returns the transport of the query.
func (q *query) protocol() string {
	if q.client.Net == "tcp-tls" {
		return "TLS"
	}
	return strings.ToUpper(q.client.Net)
}

// write prints the response.
func (q *query) write(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	if q.retried {
		fmt.Fprintln(out, ";; Truncated, asked again over TCP.")
	}
	host, port, _ := net.SplitHostPort(q.server)
	_, err := fmt.Fprintf(out, "%s\n\n;; Query time: %.1f msec\n;; SERVER: %s#%s (%s)\n",
		strings.TrimRight(q.answer.String(), "\n"), float64(q.took.Microseconds())/1000, host, port, q.protocol())
	return err
}

// answered is a response as JSON.
type answered struct {
	Server        string   `json:"server"`
	Protocol      string   `json:"protocol"`
	Micros        int64    `json:"micros"`
	RCode         string   `json:"rcode"`
	Authoritative bool     `json:"authoritative"`
	Recursion     bool     `json:"recursionAvailable"`
	Truncated     bool     `json:"truncated"`
	Answer        []string `json:"answer"`
	Authority     []string `json:"authority"`
	Additional    []string `json:"additional"`
}

func (q *query) asJSON() answered {
	a := q.answer
	return answered{
		Server: q.server, Protocol: q.protocol(), Micros: q.took.Microseconds(), RCode: dns.RcodeToString[a.Rcode],
		Authoritative: a.Authoritative, Recursion: a.RecursionAvailable, Truncated: a.Truncated,
		Answer: texts(a.Answer), Authority: texts(a.Ns), Additional: texts(a.Extra),
	}
}

// texts returns records in the form of zone files, without OPT pseudo-records (RFC 6891).
func texts(section []dns.RR) []string {
	list := []string{}
	for _, r := range section {
		if r.Header().Rrtype != dns.TypeOPT {
			list = append(list, oneLine(r.String()))
		}
	}
	return list
}
