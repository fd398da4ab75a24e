// Package contract checks the HTTP exchanges of tests against the OpenAPI documents of package openapi.
//
// A test wraps the transport of its client and goes on as before; every exchange that differs from the
// document then fails the test:
//
//	client.Transport = contract.New(t, "mec_service_mgmt").Transport(client.Transport)
//
// What is checked:
//
//   - every response: its status code is documented for the operation, its headers and body are as documented, and
//     204, 304 and answers to HEAD have no body;
//   - the request as well when it was accepted (2xx): a request that the document does not allow must be refused;
//   - requests for which there is no operation: they must not be accepted, and what refuses them must look like that
//     refusal does elsewhere in the document;
//   - streams of server-sent events while they are read: the data of every event is as documented for its type.
//
// Refused requests are not checked themselves, so that a test may send anything it likes.
package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/openmep/mep/api/openapi"
)

// The extensions of the documents.
const (
	// exclusiveExtension lists the query parameters of an operation of which a request may use at most one.
	exclusiveExtension = "x-mutually-exclusive-parameters"
	// eventExtension has, for the types of the events of a stream, the names of the schemas of their data.
	eventExtension = "x-event-data"
)

// Validator checks exchanges against one document and reports to one test. It is safe for concurrent use.
type Validator struct {
	tb    testing.TB
	name  string
	doc   *openapi3.T
	roots []string // paths of the servers, without trailing slash

	mu       sync.Mutex
	finished bool // the test is over and must not be reported to any more
}

// New loads the named document (openapi.Documents lists them) and ends the test at once when there is none, or
// when it is no valid OpenAPI document.
func New(tb testing.TB, document string) *Validator {
	tb.Helper()
	doc, err := load(tb.Context(), document)
	if err != nil {
		tb.Fatalf("contract: %v", err)
	}
	v := &Validator{tb: tb, name: document, doc: doc}
	for _, server := range doc.Servers {
		u, err := url.Parse(server.URL)
		if err != nil {
			tb.Fatalf("contract: server of %s: %v", document, err)
		}
		v.roots = append(v.roots, strings.TrimSuffix(u.EscapedPath(), "/"))
	}
	tb.Cleanup(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.finished = true
	})
	return v
}

// loaded keeps the documents, which nothing changes once they are loaded: many tests make a Validator each.
var loaded sync.Map // name → *openapi3.T

func load(ctx context.Context, document string) (*openapi3.T, error) {
	if doc, ok := loaded.Load(document); ok {
		return doc.(*openapi3.T), nil
	}
	text, ok := openapi.YAML(document)
	if !ok {
		return nil, fmt.Errorf("no OpenAPI document %q, there are %v", document, openapi.Documents())
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", document, err)
	}
	if err := doc.Validate(ctx); err != nil {
		return nil, fmt.Errorf("validate %s: %w", document, err)
	}
	loaded.Store(document, doc)
	return doc, nil
}

type toleratedKey struct{}

// Tolerated marks the requests made with the context as ones the document does not allow and the platform accepts
// all the same, by a divergence it states. Their responses are checked as ever.
func Tolerated(ctx context.Context) context.Context {
	return context.WithValue(ctx, toleratedKey{}, true)
}

// Transport returns a transport that performs exchanges with base, http.DefaultTransport when nil, and checks those
// that are inside one of the document's servers, on any host. Others pass unchecked; when the server of a document is
// the root of the host, they are those of the paths it does not list.
//
// Response bodies are read to their end before an exchange returns, except streams of events. So are request bodies without
// GetBody.
func (v *Validator) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{validator: v, base: base}
}

type transport struct {
	validator *Validator
	base      http.RoundTripper
}

// RoundTrip performs the exchange and checks it.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	target, inside := t.validator.find(req)
	if !inside {
		return t.base.RoundTrip(req)
	}
	req, err := replayable(req)
	if err != nil {
		return nil, err
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, err
	}
	if streams(req, resp) {
		t.validator.follow(target, req, resp)
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("contract: read the response: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err := t.validator.check(target, req, resp, body); err != nil {
		t.validator.report(req, resp, err)
	}
	return resp, nil
}

// CloseIdleConnections closes those of the base transport.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// replayable returns req, or a copy of it, with a body that GetBody can return once more.
func replayable(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return req, nil
	}
	data, err := io.ReadAll(req.Body)
	if closeErr := req.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("contract: read the request: %w", err)
	}
	req = req.Clone(req.Context())
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	req.Body, err = req.GetBody()
	return req, err
}

// report tells the test of a fault unless the test is over.
func (v *Validator) report(req *http.Request, resp *http.Response, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.finished {
		return
	}
	v.tb.Errorf("contract %s: %s %s answered %d: %v", v.name, req.Method, req.URL.Redacted(), resp.StatusCode, err)
}

// target is the part of the document a request is for.
type target struct {
	template string
	item     *openapi3.PathItem  // nil when the document has no such path
	op       *openapi3.Operation // nil when the path has no such method
	params   map[string]string
}

// find looks a request up; inside is false when it is none of the document's business.
func (v *Validator) find(req *http.Request) (found target, inside bool) {
	path := req.URL.EscapedPath()
	for _, root := range v.roots {
		rest, ok := strings.CutPrefix(path, root)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		for _, template := range v.doc.Paths.InMatchingOrder() {
			if params, ok := matchPath(template, rest); ok {
				item := v.doc.Paths.Value(template)
				return target{template: template, item: item, op: item.GetOperation(req.Method), params: params}, true
			}
		}
		inside = inside || root != ""
	}
	return target{}, inside
}

// matchPath matches an escaped path against a template whose variables are whole segments.
func matchPath(template, path string) (map[string]string, bool) {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	params := make(map[string]string)
	for i, segment := range want {
		name, isVariable := strings.CutPrefix(segment, "{")
		if !isVariable {
			if segment != got[i] {
				return nil, false
			}
			continue
		}
		value, err := url.PathUnescape(got[i])
		if err != nil || value == "" {
			return nil, false
		}
		params[strings.TrimSuffix(name, "}")] = value
	}
	return params, true
}

// check returns everything in which the exchange differs from the document.
func (v *Validator) check(t target, req *http.Request, resp *http.Response, body []byte) error {
	accepted := resp.StatusCode/100 == 2
	if t.op == nil {
		if accepted {
			return errors.New("the request was accepted, and the document has no such operation")
		}
		return v.checkResponse(v.refusal(t, resp.StatusCode), req, resp, body)
	}
	err := v.checkResponse(t.op.Responses.Status(resp.StatusCode), req, resp, body)
	if accepted && req.Context().Value(toleratedKey{}) == nil {
		err = errors.Join(err, v.checkRequest(t, req))
	}
	return err
}

// refusal returns what the document says about a status anywhere on the path, or anywhere at all for an unknown path:
// an operation that does not exist is refused as the others are.
func (v *Validator) refusal(t target, status int) *openapi3.ResponseRef {
	items := []*openapi3.PathItem{t.item}
	if t.item == nil {
		items = items[:0]
		for _, template := range v.doc.Paths.InMatchingOrder() {
			items = append(items, v.doc.Paths.Value(template))
		}
	}
	for _, item := range items {
		operations := item.Operations()
		for _, method := range []string{
			http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead,
		} {
			if op := operations[method]; op != nil {
				if ref := op.Responses.Status(status); ref != nil {
					return ref
				}
			}
		}
	}
	return nil
}

func (v *Validator) checkResponse(documented *openapi3.ResponseRef, req *http.Request, resp *http.Response, body []byte) error {
	if documented == nil {
		return fmt.Errorf("the document does not have the status code for this operation: %s", excerpt(body))
	}
	content := documented.Value.Content
	bodyless := req.Method == http.MethodHead || len(content) == 0 ||
		resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	if bodyless && len(body) > 0 {
		return fmt.Errorf("the response has a body where the document has none: %s", excerpt(body))
	}
	if err := v.validate(req, documented, resp.Header, body, !bodyless); err != nil {
		return fmt.Errorf("the response is not as documented: %w; it is %s", err, excerpt(body))
	}
	return nil
}

// validate checks headers, and a body if there is one, against a response of the document. The library takes no look at answers
// to HEAD nor at some status codes. It sees every response as the only one of a GET, so that headers are checked always.
func (v *Validator) validate(req *http.Request, documented *openapi3.ResponseRef, header http.Header, body []byte, hasBody bool) error {
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: &http.Request{Method: http.MethodGet, URL: req.URL, Header: req.Header},
			Route: &routers.Route{
				Spec:      v.doc,
				Method:    http.MethodGet,
				Operation: &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(http.StatusOK, documented))},
			},
		},
		Status:  http.StatusOK,
		Header:  header,
		Options: options(),
	}
	input.Options.ExcludeResponseBody = !hasBody
	input.SetBodyBytes(body)
	return openapi3filter.ValidateResponse(context.WithoutCancel(req.Context()), input)
}

// options returns what validation of requests and responses have in common: all faults at once, told briefly, and
// nothing about authentication.
func options() *openapi3filter.Options {
	o := &openapi3filter.Options{
		MultiError:          true,
		SkipSettingDefaults: true,
		AuthenticationFunc:  openapi3filter.NoopAuthenticationFunc,
	}
	o.WithCustomSchemaErrorFunc(func(err *openapi3.SchemaError) string {
		// One of the library's two validators says where the fault is, the other does not.
		if strings.Contains(err.Reason, "at '") {
			return err.Reason
		}
		if err.SchemaField == "allOf" && err.Origin != nil {
			return err.Origin.Error() // which of them, and where
		}
		return fmt.Sprintf("at '/%s': %s", strings.Join(err.JSONPointer(), "/"), err.Reason)
	})
	return o
}

func (v *Validator) checkRequest(t target, req *http.Request) error {
	// The copy outlives neither this call nor the request's deadline.
	req = req.Clone(context.WithoutCancel(req.Context()))
	err := checkQuery(t, req.URL.RawQuery)
	if t.op.RequestBody != nil {
		err = errors.Join(err, normaliseBody(req))
	}
	input := &openapi3filter.RequestValidationInput{
		Request:    req,
		PathParams: t.params,
		Route: &routers.Route{
			Spec: v.doc, Path: t.template, PathItem: t.item, Method: req.Method, Operation: t.op,
		},
		Options: options(),
	}
	err = errors.Join(err, openapi3filter.ValidateRequest(req.Context(), input))
	if err != nil {
		return fmt.Errorf("the request was accepted, and the document does not allow it: %w", err)
	}
	return nil
}

// checkQuery refuses what the library lets pass: unknown parameters, single ones that are repeated, and
// more than one of those that exclude each other.
func checkQuery(t target, rawQuery string) error {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return err
	}
	var errs []error
	for name, given := range values {
		parameter := t.op.Parameters.GetByInAndName(openapi3.ParameterInQuery, name)
		if parameter == nil {
			parameter = t.item.Parameters.GetByInAndName(openapi3.ParameterInQuery, name)
		}
		switch {
		case parameter == nil:
			errs = append(errs, fmt.Errorf("unknown query parameter %q", name))
		case len(given) > 1 && !parameter.Schema.Value.Type.Is(openapi3.TypeArray):
			errs = append(errs, fmt.Errorf("query parameter %q is repeated", name))
		}
	}
	exclusive, _ := t.op.Extensions[exclusiveExtension].([]any)
	var used []string
	for _, name := range exclusive {
		if name, ok := name.(string); ok && values.Has(name) {
			used = append(used, name)
		}
	}
	if len(used) > 1 {
		errs = append(errs, fmt.Errorf("query parameters %s exclude each other", strings.Join(used, ", ")))
	}
	return errors.Join(errs...)
}

// normaliseBody replaces the body of req by the one the document is about: without null members, which count as
// absent, and JSON when the request does not say what it is.
func normaliseBody(req *http.Request) error {
	if req.GetBody == nil {
		req.Body = nil
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if mt, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")); len(data) > 0 && strings.HasSuffix(mt, "json") {
		if data, err = withoutNulls(data); err != nil {
			return err
		}
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	req.ContentLength = int64(len(data))
	req.Body, err = req.GetBody()
	return err
}

// withoutNulls removes the members that are null from all objects. It is an error when data is not exactly one
// JSON value.
func withoutNulls(data []byte) ([]byte, error) {
	if !json.Valid(data) {
		return nil, errors.New("the body is not one JSON value")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // keeps numbers as they were written
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	return json.Marshal(prune(value))
}

func prune(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			if member == nil {
				delete(value, name)
			} else {
				value[name] = prune(member)
			}
		}
	case []any:
		for i := range value {
			value[i] = prune(value[i])
		}
	}
	return value
}

// excerpt returns the start of a body for a message.
func excerpt(body []byte) string {
	const limit = 1024
	if len(body) == 0 {
		return "(no body)"
	}
	if len(body) > limit {
		return string(slices.Concat(body[:limit], []byte("…")))
	}
	return string(body)
}
