package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openmep/mep/api/openapi"
)

// Subscriber is the callback server of an app. It answers 204 unless configured otherwise, and records every delivery in the
// order of arrival.
type Subscriber struct {
	tb     testing.TB
	server *httptest.Server
	ended  chan struct{}

	mu       sync.Mutex
	behave   Behaviour
	received []*Delivery
	attempts map[string]int // by path and id
}

// Behaviour answers one delivery. It may block: the request's context ends with the connection.
type Behaviour func(w http.ResponseWriter, r *http.Request, d Delivery)

// Delivery is one attempt to deliver a notification.
type Delivery struct {
	// Path is the path that was called.
	Path string
	// ID is X-Notification-Id.
	ID string
	// Attempt counts the deliveries with this id on this path, from 1.
	Attempt int
	// At is the time of arrival.
	At time.Time
	// Status is the status of the response, 0 until there is one.
	Status int
	// Body is the notification as received.
	Body []byte
	// Subscription is the href of the subscription.
	Subscription string
	// Change is the single service reference of the notification.
	Change ServiceReference
	// Termination is the content of a termination notification, nil for other types.
	Termination *Termination
}

// Termination is the content of a termination notification (MEC 011 7.1.4.2).
type Termination struct {
	OperationAction    string `json:"operationAction"`
	MaxGracefulTimeout int    `json:"maxGracefulTimeout"`
	Links              struct {
		Subscription       Link `json:"subscription"`
		ConfirmTermination Link `json:"confirmTermination"`
	} `json:"_links"`
}

// Link is a link to a resource.
type Link struct {
	Href string `json:"href"`
}

// ServiceReference is a reference to a changed service (MEC 011 8.1.4.2).
type ServiceReference struct {
	Link          *Link  `json:"link"`
	SerName       string `json:"serName"`
	SerInstanceID string `json:"serInstanceId"`
	State         string `json:"state"`
	ChangeType    string `json:"changeType"`
}

// String returns the change in short form, such as "ADDED rnis ACTIVE".
func (c ServiceReference) String() string { return c.ChangeType + " " + c.SerName + " " + c.State }

// NewSubscriber runs a callback server until the test ends. Every notification is checked against the OpenAPI document.
func NewSubscriber(tb testing.TB) *Subscriber {
	tb.Helper()
	s := &Subscriber{tb: tb, ended: make(chan struct{}), behave: Status(http.StatusNoContent), attempts: make(map[string]int)}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	tb.Cleanup(func() {
		close(s.ended)
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// URL returns the URL of a path on the server.
func (s *Subscriber) URL(path string) string { return s.server.URL + path }

// Behave sets how deliveries are answered from now on.
func (s *Subscriber) Behave(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = b
}

// Status returns a Behaviour that answers with a status and no body.
func Status(status int) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ Delivery) { w.WriteHeader(status) }
}

// Hang returns a Behaviour that does not answer before the caller gives up or the test ends.
func (s *Subscriber) Hang() Behaviour {
	return func(_ http.ResponseWriter, r *http.Request, _ Delivery) {
		select {
		case <-r.Context().Done():
		case <-s.ended:
		}
	}
}

// Ended returns a channel that is closed when the test is over.
func (s *Subscriber) Ended() <-chan struct{} { return s.ended }

func (s *Subscriber) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the platform was killed during the call
	}
	d, err := parse(r, body)
	if err != nil {
		s.tb.Errorf("notification %s %s: %v: %s", r.Method, r.URL, err, body)
	}
	s.mu.Lock()
	s.attempts[d.Path+" "+d.ID]++
	d.Attempt = s.attempts[d.Path+" "+d.ID]
	s.received = append(s.received, d)
	behave, copied := s.behave, *d
	s.mu.Unlock()
	rec := &statusRecorder{ResponseWriter: w}
	behave(rec, r, copied)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Status = rec.status
	if d.Status == 0 && r.Context().Err() == nil {
		d.Status = http.StatusOK
	}
}

func parse(r *http.Request, body []byte) (*Delivery, error) {
	d := &Delivery{Path: r.URL.Path, ID: r.Header.Get("X-Notification-Id"), Attempt: 1, At: time.Now(), Body: body}
	var n struct {
		NotificationType  string             `json:"notificationType"`
		ServiceReferences []ServiceReference `json:"serviceReferences"`
		Termination
	}
	if err := json.Unmarshal(body, &n); err != nil {
		return d, err
	}
	d.Subscription = n.Links.Subscription.Href
	kind := availabilityNotification
	if n.NotificationType == "AppTerminationNotification" {
		d.Termination, kind = &n.Termination, terminationNotification
	}
	if len(n.ServiceReferences) > 0 {
		d.Change = n.ServiceReferences[0]
	}
	switch {
	case r.Method != http.MethodPost:
		return d, fmt.Errorf("the method is %s", r.Method)
	case d.ID == "":
		return d, fmt.Errorf("there is no X-Notification-Id")
	case r.Header.Get("Content-Type") != "application/json":
		return d, fmt.Errorf("the Content-Type is %q", r.Header.Get("Content-Type"))
	case len(n.ServiceReferences) != 1 && d.Termination == nil:
		return d, fmt.Errorf("there are %d service references", len(n.ServiceReferences))
	}
	return d, kind.check(body)
}

// message is a type of message that the platform sends. Its schema is compiled once, because some tests receive thousands of
// messages.
type message struct {
	schema func() (*jsonschema.Schema, error)
}

var (
	availabilityNotification = newMessage("mec_service_mgmt", "ServiceAvailabilityNotification")
	terminationNotification  = newMessage("mec_app_support", "AppTerminationNotification")
)

func newMessage(document, schema string) message {
	return message{sync.OnceValues(func() (*jsonschema.Schema, error) { return compile(document, schema) })}
}

func (m message) check(body []byte) error {
	schema, err := m.schema()
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// compile compiles a schema of an OpenAPI document for use on its own.
func compile(document, schema string) (*jsonschema.Schema, error) {
	text, _ := openapi.YAML(document)
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	data, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	resource, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	name := "mem:///" + document + ".json"
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource(name, resource); err != nil {
		return nil, err
	}
	return compiler.Compile(name + "#/components/schemas/" + schema)
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap supports http.ResponseController.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// All returns the deliveries so far in the order of arrival, restricted to the given paths if there are any.
func (s *Subscriber) All(paths ...string) []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Delivery
	for _, d := range s.received {
		if len(paths) == 0 || slices.Contains(paths, d.Path) {
			list = append(list, *d)
		}
	}
	return list
}

// Distinct is like All but returns only the first delivery of each notification.
func (s *Subscriber) Distinct(paths ...string) []Delivery {
	seen := make(map[string]bool)
	return slices.DeleteFunc(s.All(paths...), func(d Delivery) bool {
		key := d.Path + " " + d.ID
		again := seen[key]
		seen[key] = true
		return again
	})
}

// Changes returns the changes of the distinct notifications on the given paths, in short form.
func (s *Subscriber) Changes(paths ...string) []string {
	list := []string{}
	for _, d := range s.Distinct(paths...) {
		list = append(list, d.Change.String())
	}
	return list
}

// Await waits for a delivery for which wanted returns true, and returns the first one.
func (s *Subscriber) Await(tb testing.TB, what string, wanted func(Delivery) bool) Delivery {
	tb.Helper()
	var found Delivery
	Eventually(tb, what, func() error {
		for _, d := range s.All() {
			if wanted(d) {
				found = d
				return nil
			}
		}
		return fmt.Errorf("received so far: %s", strings.Join(s.Changes(), ", "))
	})
	return found
}

// AwaitChange waits until a change of a service was delivered on a path and answered with 2xx. The change is given in the form
// of ServiceReference.String.
func (s *Subscriber) AwaitChange(tb testing.TB, path, change string) Delivery {
	tb.Helper()
	return s.Await(tb, change+" on "+path, func(d Delivery) bool {
		return d.Path == path && d.Change.String() == change && d.Status/100 == 2
	})
}
