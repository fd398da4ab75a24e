// Package etcd connects a daemon to etcd and turns etcd's errors into the platform's.
package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/openmep/mep/kit/errs"
)

// DefaultTimeout bounds one request to etcd.
const DefaultTimeout = 3 * time.Second

// Config says how to reach etcd.
type Config struct {
	// Endpoints are URLs or host:port pairs.
	Endpoints []string
	// TLS is nil for a plain connection. Credentials, if set, replace TLS for every new connection.
	TLS         *tls.Config
	Credentials credentials.TransportCredentials
	// Timeout bounds one operation of a Store; default DefaultTimeout.
	Timeout time.Duration
}

// Store is a process's connection to etcd. It writes; package watched reads.
type Store struct {
	// Client is a gRPC connection, used for leases, elections and reading history.
	Client *clientv3.Client
	// Source is what package watched lists and watches: the client, or something closer.
	Source Source
	kv     clientv3.KV
	wait   time.Duration
	guard  func() error
}

// Dial returns a Store. It does not wait for etcd to answer: a daemon can start while etcd is unavailable.
func Dial(cfg Config) (*Store, error) {
	options := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		// gRPC's default backoff grows to two minutes, and reconnecting to a recovered etcd could take that long.
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: 5 * time.Second,
	})}
	if cfg.Credentials != nil {
		options = append(options, grpc.WithTransportCredentials(cfg.Credentials))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		MaxCallRecvMsgSize:   64 << 20,
		Logger:               zap.NewNop(),
		DialOptions:          options,
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %v: %w", cfg.Endpoints, err)
	}
	return NewStore(client, client.KV, client, cfg.Timeout), nil
}

// Source lists and watches keys. *clientv3.Client implements it.
type Source interface {
	// Get reads keys.
	Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error)
	// Watch follows keys until ctx ends.
	Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan
	// RequestProgress asks the watches to report their progress.
	RequestProgress(ctx context.Context) error
}

// NewStore returns a Store that writes through kv and is followed through source; both may be in process.
func NewStore(client *clientv3.Client, kv clientv3.KV, source Source, timeout time.Duration) *Store {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Store{Client: client, Source: source, kv: kv, wait: timeout, guard: func() error { return nil }}
}

// SetGuard installs a check that runs before every write that takes up space; its error becomes the error of the write. Removals
// are not checked, because they free space. Call SetGuard before the store is used.
func (s *Store) SetGuard(guard func() error) { s.guard = guard }

// Urgent returns the same store without the guard, for writes that keep the platform safe and take little space for a limited
// time: a lock, a revocation, a signature that must not be accepted again.
func (s *Store) Urgent() *Store {
	u := *s
	u.guard = func() error { return nil }
	return &u
}

// Close closes the connection.
func (s *Store) Close() error { return s.Client.Close() }

// Txn runs one transaction. Errors are of the kinds errs.Unavailable, errs.InsufficientStorage and errs.TooLarge, or
// errs.Internal for unexpected ones. After errs.Unavailable the transaction may have been committed as a whole, or may yet be.
func (s *Store) Txn(ctx context.Context, cmps []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	if slices.ContainsFunc(then, clientv3.Op.IsPut) {
		if err := s.guard(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	resp, err := s.kv.Txn(ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
	if is(err, rpctypes.ErrNoSpace) {
		if landed := s.landed(ctx, then); landed != nil {
			return landed, nil
		}
	}
	return resp, Error(err)
}

// landed finds out whether a transaction that etcd answered with "no space" was committed, as the one that reaches the quota is.
// It returns nil if it was not.
func (s *Store) landed(ctx context.Context, then []clientv3.Op) *clientv3.TxnResponse {
	for _, op := range then {
		if !op.IsPut() {
			continue
		}
		r, err := s.kv.Get(ctx, string(op.KeyBytes()))
		if err != nil || len(r.Kvs) == 0 || !bytes.Equal(r.Kvs[0].Value, op.ValueBytes()) {
			return nil
		}
		r.Header.Revision = r.Kvs[0].ModRevision
		return &clientv3.TxnResponse{Header: r.Header, Succeeded: true}
	}
	return nil
}

// Do runs one operation. Errors are those of Txn.
func (s *Store) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	if op.IsPut() {
		if err := s.guard(); err != nil {
			return clientv3.OpResponse{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	resp, err := s.kv.Do(ctx, op)
	return resp, Error(err)
}

// Grant creates a lease that ends after life, rounded up to seconds. Errors are those of Txn.
func (s *Store) Grant(ctx context.Context, life time.Duration) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	lease, err := s.Client.Grant(ctx, max(1, int64(math.Ceil(life.Seconds()))))
	if err != nil {
		return 0, Error(err)
	}
	return lease.ID, nil
}

// Revision returns the revision etcd is at. key is one that may be read; it need not exist.
func (s *Store) Revision(ctx context.Context, key string) (int64, error) {
	resp, err := s.Do(ctx, clientv3.OpGet(key, clientv3.WithCountOnly()))
	if err != nil {
		return 0, err
	}
	return resp.Get().Header.Revision, nil
}

// Error converts an error of the etcd client to one with a kind. It returns nil for nil.
func Error(err error) error {
	switch {
	case err == nil:
		return nil
	case is(err, rpctypes.ErrNoSpace):
		return errs.Wrap(errs.InsufficientStorage, err, "the platform's store is full: nothing was changed; free space on its disk or raise its quota")
	case is(err, rpctypes.ErrRequestTooLarge):
		return errs.Wrap(errs.TooLarge, err, "the record is larger than the platform's store accepts")
	case errors.Is(err, context.Canceled):
		return errs.Wrap(errs.Unavailable, err, "the request was given up").After(time.Second)
	case errors.Is(err, context.DeadlineExceeded), passing(err):
		return errs.Wrap(errs.Unavailable, err,
			"the platform's store does not answer at present: the change may or may not have been made; read it back and try again").
			After(2 * time.Second)
	}
	return fmt.Errorf("etcd: %w", err)
}

// is reports whether err is the typed error of etcd, in process or over gRPC.
func is(err, typed error) bool {
	if errors.Is(err, typed) {
		return true
	}
	var mine rpctypes.EtcdError
	return errors.As(rpctypes.Error(err), &mine) && errors.Is(mine, typed)
}

// passing reports whether err is transient.
func passing(err error) bool {
	for _, e := range []error{
		rpctypes.ErrNoLeader, rpctypes.ErrNotCapable, rpctypes.ErrStopped, rpctypes.ErrTimeout, rpctypes.ErrTooManyRequests,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrUnhealthy, rpctypes.ErrLeaderChanged,
		clientv3.ErrNoAvailableEndpoints,
	} {
		if is(err, e) {
			return true
		}
	}
	var coded rpctypes.EtcdError
	if errors.As(err, &coded) && (coded.Code() == codes.Unavailable || coded.Code() == codes.DeadlineExceeded) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}
