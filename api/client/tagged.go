package client

import "context"

// Tagged is a resource as the platform answered it, with what a conditional change of it needs.
type Tagged[T any] struct {
	// Info is the resource.
	Info T
	// ETag is the entity-tag of this state of it, for IfMatch.
	ETag string
}

// tagged sends a request that is answered with a resource.
func tagged[T any](ctx context.Context, c *Client, r request) (*Tagged[T], error) {
	t := &Tagged[T]{}
	ans, err := c.do(ctx, r, &t.Info)
	if err != nil {
		return nil, err
	}
	t.ETag = ans.header.Get("ETag")
	return t, nil
}
