package embedded

import (
	"context"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// source reads and watches keys of the server from within the process. Its watch reads etcd's own event stream: one hop
// over a channel, where a watch over gRPC takes eight and encodes and decodes every record on the way
// (docs/adr/0003-in-process-event-stream.md).
type source struct {
	clientv3.KV
	server   *etcdserver.EtcdServer
	progress chan struct{}
}

func newSource(kv clientv3.KV, server *etcdserver.EtcdServer) *source {
	return &source{KV: kv, server: server, progress: make(chan struct{}, 1)}
}

// RequestProgress requests a response with the progress of the watch.
func (s *source) RequestProgress(context.Context) error {
	select {
	case s.progress <- struct{}{}:
	default: // one is requested already
	}
	return nil
}

// Watch watches a key or prefix from the revision in opts, as a client's Watch does, until ctx ends. The progress of only
// one watch at a time can be requested.
func (s *source) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key, opts...)
	out := make(chan clientv3.WatchResponse, mvcc.ChanBufLen())
	stream := s.server.Watchable().NewWatchStream()
	go func() {
		defer close(out)
		defer func() {
			stream.Close()
			for resp := range stream.Chan() {
				mvcc.ReportEventReceived(len(resp.Events))
			}
		}()
		if _, err := stream.Watch(ctx, 0, op.KeyBytes(), op.RangeBytes(), op.Rev()); err != nil {
			return
		}
		for {
			var resp mvcc.WatchResponse
			var ok bool
			select {
			case resp, ok = <-stream.Chan():
				if !ok {
					return
				}
			case <-s.progress:
				stream.RequestProgressAll()
				continue
			case <-ctx.Done():
				return
			}
			mvcc.ReportEventReceived(len(resp.Events))
			select {
			case out <- s.convert(resp):
			case <-ctx.Done():
				return
			}
			if resp.CompactRevision != 0 {
				return
			}
		}
	}()
	return out
}

func (s *source) convert(resp mvcc.WatchResponse) clientv3.WatchResponse {
	return clientv3.WatchResponse{
		Header: &etcdserverpb.ResponseHeader{
			ClusterId: uint64(s.server.Cluster().ID()), MemberId: uint64(s.server.MemberID()), Revision: resp.Revision,
		},
		Events:          resp.Events,
		CompactRevision: resp.CompactRevision,
		Canceled:        resp.CompactRevision != 0,
	}
}
