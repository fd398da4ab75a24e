// Package pki is the TLS side of a listener and of a connection: a certificate authority of the platform's own with the
// server certificates it issues, or certificates given by the operator; both are replaced while connections are being made.
//
// It knows nothing of what is served. A certificate in force is only ever replaced by one that can be used; what is
// wrong with one on disk is logged once, shown as a metric, and says what to do.
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
	// Name is that of the certificate in metrics and, in Dir, of its files. Processes that share Dir need different ones.
	// Default "server".
	Name string
	// Dir is where the platform keeps its own CA and the certificates it issues. It is used when CertFile is empty.
	Dir string
	// CertFile and KeyFile are PEM files given by the operator: the certificate, followed by those that signed it, and its key.
	CertFile, KeyFile string
	// ClientCAFiles are PEM files of the CAs that may issue certificates for clients. When there are none, clients are not
	// asked for certificates.
	ClientCAFiles []string
	// Names returns the host names and IP addresses that a certificate from Dir is for, as function Names does.
	Names func() ([]string, error)
	// Poll is how often given files are read; default 2 s.
	Poll time.Duration
	// Renew is how often a certificate from Dir is examined; default 1 minute.
	Renew time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Log takes what happens to the certificates; nil: nothing.
	Log *slog.Logger
	// Registerer takes the metrics. Several keepers and clients may share one; nil: none.
	Registerer prometheus.Registerer
}

// Keeper holds the certificate of a server, and the CAs of its clients.
type Keeper struct {
	cfg       Config
	env       *env
	caFile    string
	pair      *follower[pair]
	clientCAs *follower[pool]
}

// Open loads the certificate, or issues it. Errors about a file are a *Fault, which says what to do. Nothing is renewed
// or loaded again before Run.
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

// Reload renews and reloads at once. The errors are those that were logged; what they are about stays as it was.
func (k *Keeper) Reload() error {
	err := k.pair.check(false)
	if k.clientCAs != nil {
		err = errors.Join(err, k.clientCAs.check(false))
	}
	return err
}

// Fault is what is wrong on disk at present, nil when nothing is. Connections are made all the same, with the certificate
// that was in force before, until that expires.
func (k *Keeper) Fault() error {
	err := k.pair.err()
	if k.clientCAs != nil {
		err = errors.Join(err, k.clientCAs.err())
	}
	return err
}

// CAFile is the file of the platform's own CA, for clients; empty when the certificate was given.
func (k *Keeper) CAFile() string { return k.caFile }
