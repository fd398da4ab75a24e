package gateway

import (
	"context"

	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/tenure"
	"github.com/openmep/mep/kit/identity"
)

// Lasting returns the calls that last.
func (g *Gateway) Lasting() *tenure.Calls { return g.lasting }

// Table returns the table that calls are routed by.
func (g *Gateway) Table() *table.Table { return g.handler.Table.Load() }

// Verify returns the caller that a token stands for.
func (g *Gateway) Verify(ctx context.Context, token string) (*identity.Caller, error) {
	return g.node.Guard.Verifier().Verify(ctx, token)
}

// GuardOf returns the guard that decides who calls.
func GuardOf(g *Gateway) *identity.Guard { return g.node.Guard }
