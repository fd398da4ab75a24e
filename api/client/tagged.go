package client

import "context"

// Tagged is a resource as returned by the platform, with the entity-tag for conditional changes.
type Tagged[T any] struct {
	// Info is the resource.
	Info T
	// ETag is the entity-tag of this state of the resource, for use with IfMatch.
	ETag string
}

// tagged sends a request whose response is a resource.
func tagged[T any](ctx context.Context, c *Client, r request) (*Tagged[T], error) {
	t := &Tagged[T]{}
	ans, err := c.do(ctx, r, &t.Info)
	if err != nil {
		return nil, err
	}
	t.ETag = ans.header.Get("ETag")
	return t, nil
}
