package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/problem"
)

// caller sends JSON requests that package client has no method for, with a token.
type caller struct {
	url    string
	client *http.Client
	token  client.TokenSource
}

// request is a request of a caller.
type request struct {
	method, path string // path is relative to the URL of the caller
	ifMatch      string // an entity-tag, or ""
	body         any    // nil: none
}

// call sends a request, expects a status, and decodes the response body unless answer is nil. It returns the header.
func (c *caller) call(ctx context.Context, r request, status int, answer any) http.Header {
	resp, err := c.send(ctx, r)
	must(err)
	body, err := io.ReadAll(resp.Body)
	must(errors.Join(err, resp.Body.Close()))
	expect(resp.StatusCode == status, "%s %s was answered %s, want %d", r.method, r.path, resp.Status, status)
	if answer != nil {
		must(json.Unmarshal(body, answer))
	}
	return resp.Header
}

// refused sends a request, expects the platform to refuse it with a status, and returns the reason.
func (c *caller) refused(ctx context.Context, r request, status int) (detail string) {
	var why problem.Details
	c.call(ctx, r, status, &why)
	expect(why.Status == status && why.Detail != "", "%s %s was refused with %+v", r.method, r.path, why)
	return why.Detail
}

func (c *caller) send(ctx context.Context, r request) (*http.Response, error) {
	var sent io.Reader = http.NoBody
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.url+r.path, sent)
	if err != nil {
		return nil, err
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.ifMatch != "" {
		req.Header.Set("If-Match", r.ifMatch)
	}
	return c.client.Do(req)
}
