package gateway

import (
	"context"

	"github.com/openmep/mep/gateway/record"
)

// CatchUp waits until the gateway routes by the state of etcd at a revision.
func (g *Gateway) CatchUp(ctx context.Context, revision int64) error {
	return g.feed.CatchUp(ctx, revision)
}

// Open returns the number of client connections.
func (g *Gateway) Open() int { return g.server.Open() }

// Records returns the access records.
func (g *Gateway) Records() *record.Log { return g.records }
