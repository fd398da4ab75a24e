package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

const eventStream = "text/event-stream"

// streams reports whether a response is a stream of events, which has no end to wait for.
func streams(req *http.Request, resp *http.Response) bool {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return mt == eventStream && resp.StatusCode == http.StatusOK && req.Method != http.MethodHead
}

// follow checks the exchange that began a stream at once, and the events as the test reads them.
func (v *Validator) follow(t target, req *http.Request, resp *http.Response) {
	report := func(err error) { v.report(req, resp, err) }
	if t.op == nil {
		report(errors.New("the request was accepted, and the document has no such operation"))
		return
	}
	var documented *openapi3.MediaType
	response := t.op.Responses.Status(resp.StatusCode)
	if response != nil {
		documented = response.Value.Content.Get(eventStream)
	}
	if documented == nil {
		report(errors.New("the document has no stream of events for this operation"))
		return
	}
	if err := v.validate(req, response, resp.Header, nil, false); err != nil {
		report(fmt.Errorf("the response is not as documented: %w", err))
	}
	if req.Context().Value(toleratedKey{}) == nil {
		if err := v.checkRequest(t, req); err != nil {
			report(err)
		}
	}
	names, _ := documented.Extensions[eventExtension].(map[string]any)
	resp.Body = &follower{ReadCloser: resp.Body, report: report, check: func(event string, data []byte) error {
		name, _ := names[event].(string)
		schema := v.doc.Components.Schemas[name]
		if schema == nil {
			return fmt.Errorf("the document has no event %q", event)
		}
		// As if the data were the body of a response.
		one := openapi3.NewResponse().WithJSONSchemaRef(openapi3.NewSchemaRef("#/components/schemas/"+name, schema.Value))
		header := http.Header{"Content-Type": {"application/json"}}
		if err := v.validate(req, &openapi3.ResponseRef{Value: one}, header, data, true); err != nil {
			return fmt.Errorf("the data of the event %q is not as documented: %w; it is %s", event, err, excerpt(data))
		}
		return nil
	}}
}

// follower checks a stream that somebody reads.
type follower struct {
	io.ReadCloser
	report func(error)
	check  func(event string, data []byte) error

	pending []byte // of the block that is not complete yet
}

// Read reads from the stream and checks the blocks that are complete with what was read.
func (f *follower) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.pending = append(f.pending, p[:n]...)
	for {
		block, rest, complete := bytes.Cut(f.pending, []byte("\n\n"))
		if !complete {
			return n, err
		}
		if err := f.block(string(block)); err != nil {
			f.report(err)
		}
		f.pending = rest
	}
}

// block checks a block of a stream (WHATWG HTML 9.2.5), of which this project writes the plain form only: line feeds between the
// lines, and a space after the colon.
func (f *follower) block(text string) error {
	fields := make(map[string]string)
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, ":") {
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		if _, twice := fields[name]; !ok || twice || value == "" {
			return fmt.Errorf("%q is no line of a stream of events, or there are two of its kind", line)
		}
		fields[name] = value
	}
	event, data := fields["event"], fields["data"]
	var errs []error
	for name, value := range fields {
		switch name {
		case "id", "event", "data":
		case "retry":
			if _, err := strconv.ParseUint(value, 10, 31); err != nil {
				errs = append(errs, fmt.Errorf("retry is %q, which is no number", value))
			}
		default:
			errs = append(errs, fmt.Errorf("a stream of events has no field %q", name))
		}
	}
	if (event == "") != (data == "") {
		errs = append(errs, fmt.Errorf("an event has both a type and data: %q", text))
	}
	if data != "" {
		if fields["id"] == "" {
			errs = append(errs, fmt.Errorf("the event has no id: %q", text))
		}
		errs = append(errs, f.check(event, []byte(data)))
	}
	return errors.Join(errs...)
}
