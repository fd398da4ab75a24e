package gateway

import (
	"context"

	"github.com/openmep/mep/gateway/record"
)

// CatchUp waits until the gateway routes by what was in etcd at a revision.
func (g *Gateway) CatchUp(ctx context.Context, revision int64) error {
	return g.feed.CatchUp(ctx, revision)
}

// Open is how many connections of clients there are.
func (g *Gateway) Open() int { return g.server.Open() }

// Records are the access records.
func (g *Gateway) Records() *record.Log { return g.records }
