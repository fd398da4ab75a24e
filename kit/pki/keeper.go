// Package pki is the TLS side of a listener and of a connection: a certificate authority of the platform's own with the
// server certificates it issues, or certificates given by the operator. Both can be replaced while connections are being made.
//
// The package knows nothing of what is served. A certificate in force is only ever replaced by one that can be used. A
// fault on disk is logged once, shown as a metric, and says what to do.
package pki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	defaultPoll  = 2 * time.Second
	defaultRenew = time.Minute
)

// Config says where the certificates of a server are.
type Config struct {
	// Name is the label of the certificate in metrics and, in Dir, the name of its files. Processes that share Dir need
	// different names. Default "server".
	Name string
	// Dir is where the platform keeps its own CA and the certificates it issues. It is used when CertFile is empty.
	Dir string
	// CertFile and KeyFile are PEM files given by the operator: the certificate followed by those that signed it, and its key.
	CertFile, KeyFile string
	// ClientCAFiles are PEM files of the CAs that may issue certificates for clients. If there are none, clients are not
	// asked for certificates.
	ClientCAFiles []string
	// Names returns the host names and IP addresses that a certificate from Dir covers, as the function Names does.
	Names func() ([]string, error)
	// Poll is how often given files are read; default 2 s.
	Poll time.Duration
	// Renew is how often a certificate from Dir is examined; default 1 minute.
	Renew time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Log receives what happens to the certificates; nil discards it.
	Log *slog.Logger
	// Registerer registers the metrics, unless it is nil. Several keepers and clients may share one.
	Registerer prometheus.Registerer
}

// Keeper holds the certificate of a server and the CAs of its clients.
type Keeper struct {
	cfg       Config
	env       *env
	caFile    string
	pair      *follower[pair]
	clientCAs *follower[pool]
}

// Open loads the certificate, or issues it. An error about a file is a *Fault, which says what to do. Nothing is renewed or
// loaded again before Run.
func Open(cfg Config) (*Keeper, error) {
	if cfg.Name == "" {
		cfg.Name = "server"
	}
	if cfg.Name == "ca" || filepath.Base(cfg.Name) != cfg.Name {
		return nil, fmt.Errorf("%q cannot be the name of a certificate: files are named after it", cfg.Name)
	}
	if cfg.Poll <= 0 {
		cfg.Poll = defaultPoll
	}
	if cfg.Renew <= 0 {
		cfg.Renew = defaultRenew
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("a certificate needs a key and a key a certificate: give the files of both or of neither")
	}
	k := &Keeper{cfg: cfg, env: newEnv(cfg.Log, cfg.Now, cfg.Registerer)}
	switch {
	case cfg.CertFile != "":
		k.pair = followPair(cfg.Name, cfg.CertFile, cfg.KeyFile, k.env)
	case cfg.Dir == "" || cfg.Names == nil:
		return nil, errors.New("there is neither a certificate nor a directory and names to issue one")
	default:
		own := &authority{dir: cfg.Dir, name: cfg.Name, names: cfg.Names, env: k.env, mayCreate: true}
		k.pair, k.caFile = own.follow(), own.caFile()
	}
	if len(cfg.ClientCAFiles) > 0 {
		k.clientCAs = followPool(cfg.Name+"-client-ca", cfg.ClientCAFiles, k.env)
		if err := k.clientCAs.open(); err != nil {
			return nil, err
		}
	}
	if err := k.pair.open(); err != nil {
		return nil, err
	}
	return k, nil
}

// Run renews and reloads until ctx ends. It returns nil: faults of files are logged, and the certificate in force stays.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	interval := k.cfg.Poll
	if k.caFile != "" {
		interval = k.cfg.Renew
	}
	wg.Go(func() { every(ctx, interval, func() { _ = k.pair.check(true) }) })
	if k.clientCAs != nil {
		wg.Go(func() { every(ctx, k.cfg.Poll, func() { _ = k.clientCAs.check(true) }) })
	}
	wg.Wait()
	return nil
}

// Reload renews and reloads at once. The errors are also logged; what they concern stays as it was.
func (k *Keeper) Reload() error {
	err := k.pair.check(false)
	if k.clientCAs != nil {
		err = errors.Join(err, k.clientCAs.check(false))
	}
	return err
}

// Fault returns what is wrong on disk at present; nil if nothing is. Connections are made nevertheless, with the
// certificate that was in force before, until it expires.
func (k *Keeper) Fault() error {
	err := k.pair.err()
	if k.clientCAs != nil {
		err = errors.Join(err, k.clientCAs.err())
	}
	return err
}

// CAFile returns the file of the platform's own CA, for clients; empty if the operator gave the certificate.
func (k *Keeper) CAFile() string { return k.caFile }
