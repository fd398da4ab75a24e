package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

// ClientConfig says which CAs a client trusts and how it authenticates.
type ClientConfig struct {
	// Name is the label of the certificate in metrics; that of the CAs is Name with "-ca". Default "client".
	Name string
	// CAFile is a PEM file of the CAs that may issue the server's certificate; if empty, those of the operating system.
	CAFile string
	// CertFile and KeyFile are PEM files of the client's certificate and its key; if empty, it has none.
	CertFile, KeyFile string
	// Poll is how often the files are read; default 2 s.
	Poll time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Log receives what happens to the certificates; nil discards it.
	Log *slog.Logger
	// Registerer registers the metrics, unless it is nil. Several keepers and clients may share one.
	Registerer prometheus.Registerer
}

// Client holds the CAs a client trusts and its certificate.
type Client struct {
	poll time.Duration
	env  *env
	cas  *follower[pool]
	pair *follower[pair]

	mu   sync.Mutex
	last string // the error of the last handshake
}

// OpenClient loads the files. An error about a file is a *Fault, which says what to do. Nothing is loaded again before Run.
func OpenClient(cfg ClientConfig) (*Client, error) {
	if cfg.Name == "" {
		cfg.Name = "client"
	}
	if cfg.Poll <= 0 {
		cfg.Poll = defaultPoll
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("a certificate needs a key and a key a certificate: give the files of both or of neither")
	}
	c := &Client{poll: cfg.Poll, env: newEnv(cfg.Log, cfg.Now, cfg.Registerer)}
	if cfg.CAFile != "" {
		c.cas = followPool(cfg.Name+"-ca", []string{cfg.CAFile}, c.env)
		if err := c.cas.open(); err != nil {
			return nil, err
		}
	}
	if cfg.CertFile != "" {
		c.pair = followPair(cfg.Name, cfg.CertFile, cfg.KeyFile, c.env)
		if err := c.pair.open(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Run reloads the files until ctx ends. It returns nil: faults of files are logged, and what was loaded before stays in force.
func (c *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	if c.cas != nil {
		wg.Go(func() { every(ctx, c.poll, func() { _ = c.cas.check(true) }) })
	}
	if c.pair != nil {
		wg.Go(func() { every(ctx, c.poll, func() { _ = c.pair.check(true) }) })
	}
	wg.Wait()
	return nil
}

// Reload reloads the files at once. The errors are also logged; what they concern stays as it was.
func (c *Client) Reload() error {
	var faults []error
	if c.cas != nil {
		faults = append(faults, c.cas.check(false))
	}
	if c.pair != nil {
		faults = append(faults, c.pair.check(false))
	}
	return errors.Join(faults...)
}

// Fault returns what is wrong on disk at present; nil if nothing is.
func (c *Client) Fault() error {
	var faults []error
	if c.cas != nil {
		faults = append(faults, c.cas.err())
	}
	if c.pair != nil {
		faults = append(faults, c.pair.err())
	}
	return errors.Join(faults...)
}

// Config returns a configuration with the CAs now in force. The client certificate is always the one in force, but the CAs of
// a configuration do not change, so take a new one for each connection.
//
// The CAs could change if the configuration verified the server itself, in VerifyConnection. But crypto/tls does not tell that
// function which IP address a client meant to reach, and a server reached by its address would go unverified.
func (c *Client) Config() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites12, Time: c.env.now}
	if c.cas != nil {
		config.RootCAs = c.cas.current.Load().cas
	}
	if c.pair != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.pair.current.Load().cert, nil
		}
	}
	return config
}

// Credentials returns credentials that use the current configuration for each connection. A client of etcd gets them through
// grpc.WithTransportCredentials among its dial options, which override its TLS configuration.
func (c *Client) Credentials() credentials.TransportCredentials { return &perConnection{c} }

// perConnection implements credentials.TransportCredentials.
type perConnection struct{ client *Client }

// ClientHandshake implements credentials.TransportCredentials.
func (p *perConnection) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := p.current().ClientHandshake(ctx, authority, conn)
	p.client.noteHandshake(authority, err)
	if err == nil {
		secured = &noting{Conn: secured, client: p.client, authority: authority}
	}
	return secured, info, err
}

// noting notes how the server judges the client's certificate: with TLS 1.3 it says so after the handshake.
type noting struct {
	net.Conn
	client    *Client
	authority string
}

// Read implements net.Conn.
func (n *noting) Read(p []byte) (int, error) {
	count, err := n.Conn.Read(p)
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		n.client.noteHandshake(n.authority, err)
	}
	return count, err
}

// noteHandshake logs what is wrong with a handshake, once: gRPC retries again and again, and tells its callers only that the
// server does not answer.
func (c *Client) noteHandshake(authority string, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	c.mu.Lock()
	was := c.last
	c.last = now
	c.mu.Unlock()
	if now != "" && now != was && !errors.Is(err, context.Canceled) {
		c.env.log.Warn("no TLS connection: compare the CA and the certificates of both sides", "server", authority, "error", err)
	}
}

// ServerHandshake implements credentials.TransportCredentials. It always fails.
func (p *perConnection) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are the credentials of a client")
}

// Info implements credentials.TransportCredentials.
func (p *perConnection) Info() credentials.ProtocolInfo { return p.current().Info() }

// Clone implements credentials.TransportCredentials.
func (p *perConnection) Clone() credentials.TransportCredentials { return &perConnection{p.client} }

// OverrideServerName implements credentials.TransportCredentials. It always fails: the name is that of the endpoint.
func (p *perConnection) OverrideServerName(string) error {
	return errors.New("the server is verified by the name of its endpoint")
}

func (p *perConnection) current() credentials.TransportCredentials {
	return credentials.NewTLS(p.client.Config())
}
