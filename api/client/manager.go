package client

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/openmep/mep/api/mm5"
)

// Manager acts as a MEC platform manager at the Mm5 reference point of one platform.
//
// Changes that take time are operations at the platform: methods that begin one return its id immediately, for use with
// WaitOperation. Repeating a request returns the same operation, unless that operation has failed.
type Manager struct {
	c *Client
	// endless sends requests whose responses are unbounded.
	endless *http.Client
}

// NewManager returns a manager for the platform whose Mm5 listener is at baseURL, an absolute http or https URL such as
// "https://mep.example:8089". It sends no request.
func NewManager(baseURL string, opts ...Option) (*Manager, error) {
	c, err := New(baseURL, opts...)
	if err != nil {
		return nil, err
	}
	endless := *c.http
	endless.Timeout = 0
	return &Manager{c: c, endless: &endless}, nil
}

func (m *Manager) request(method string, segments ...string) request {
	return request{method: method, root: managerRoot, path: segments, repeatable: true}
}

// begin sends a request that begins an operation and returns the operation's id.
func (m *Manager) begin(ctx context.Context, r request) (operation string, err error) {
	ans, err := m.c.do(ctx, r, nil)
	if err != nil {
		return "", err
	}
	if operation = IDOf(ans.header.Get("Location")); operation == "" {
		return "", errors.New("the platform's answer does not say which operation has begun")
	}
	return operation, nil
}

// Configure replaces the configuration of an application instance with cfg as a whole, and creates the instance if necessary.
// IsConflict holds for the error while the instance is being stopped or terminated.
func (m *Manager) Configure(
	ctx context.Context, appInstanceID string, cfg mm5.ConfigPlatformForAppRequest, pre ...Precondition,
) (operation string, err error) {
	return m.begin(ctx, m.configuration(appInstanceID, cfg, pre))
}

func (m *Manager) configuration(appInstanceID string, cfg mm5.ConfigPlatformForAppRequest, pre []Precondition) request {
	// Rules without a state are ACTIVE; those of the caller stay as they are.
	cfg.AppTrafficRule, cfg.AppDNSRule = slices.Clone(cfg.AppTrafficRule), slices.Clone(cfg.AppDNSRule)
	cfg.SetDefaults()
	r := m.request(http.MethodPut, "app_instances", appInstanceID)
	r.body = cfg
	r.apply(pre)
	return r
}

// DryRun reports what Configure would change, with the same errors, and changes nothing.
func (m *Manager) DryRun(
	ctx context.Context, appInstanceID string, cfg mm5.ConfigPlatformForAppRequest, pre ...Precondition,
) (*mm5.ConfigurationDiff, error) {
	r := m.configuration(appInstanceID, cfg, pre)
	r.query, r.repeatable = url.Values{"dryRun": {"true"}}, true
	diff := &mm5.ConfigurationDiff{}
	if _, err := m.c.do(ctx, r, diff); err != nil {
		return nil, err
	}
	return diff, nil
}

// Configuration reads the configuration of an application instance as it was declared. IsNotFound holds for the error when the
// instance has none.
func (m *Manager) Configuration(ctx context.Context, appInstanceID string) (*Tagged[mm5.AppConfiguration], error) {
	return tagged[mm5.AppConfiguration](ctx, m.c, m.request(http.MethodGet, "app_instances", appInstanceID))
}

// Unconfigure removes the configuration and the rules of an application instance. The request is not retried, because the
// second response would not identify the operation. IsNotFound holds for the error when there is no configuration, IsConflict
// while the instance is being stopped or terminated.
func (m *Manager) Unconfigure(ctx context.Context, appInstanceID string, pre ...Precondition) (operation string, err error) {
	r := m.request(http.MethodDelete, "app_instances", appInstanceID)
	r.repeatable = false
	r.apply(pre)
	return m.begin(ctx, r)
}

// Start reports that an application instance is running, as App.Ready does: its rules come into force. IsConflict holds for the
// error when the instance has no configuration or is being stopped or terminated.
func (m *Manager) Start(ctx context.Context, appInstanceID string) (operation string, err error) {
	r := m.request(http.MethodPost, "app_instances", appInstanceID, "operate")
	r.body = mm5.OperateAppRequest{ChangeStateTo: mm5.Started}
	return m.begin(ctx, r)
}

// EndOption changes how an application instance is stopped or terminated. Without options, the app is not notified.
type EndOption func(*ending)

type ending struct {
	how     mm5.StopType
	seconds *int
}

// Graceful notifies the app and waits until it confirms or until timeout has passed. timeout is rounded up to whole seconds and
// is at most a day; with 0 the platform's default applies.
func Graceful(timeout time.Duration) EndOption {
	return func(e *ending) {
		e.how, e.seconds = mm5.Graceful, nil
		if timeout > 0 {
			n := int(math.Ceil(timeout.Seconds()))
			e.seconds = &n
		}
	}
}

func endingOf(opts []EndOption) ending {
	e := ending{how: mm5.Forceful}
	for _, opt := range opts {
		opt(&e)
	}
	return e
}

// Stop stops an application instance: its rules are withdrawn, its services and subscriptions removed. Its configuration is
// kept. IsConflict holds for the error when the instance has no configuration or is being terminated.
func (m *Manager) Stop(ctx context.Context, appInstanceID string, opts ...EndOption) (operation string, err error) {
	e := endingOf(opts)
	r := m.request(http.MethodPost, "app_instances", appInstanceID, "operate")
	r.body = mm5.OperateAppRequest{ChangeStateTo: mm5.Stopped, StopType: e.how, GracefulStopTimeout: e.seconds}
	return m.begin(ctx, r)
}

// Terminate removes an application instance with everything it has. Without Graceful, it also ends the wait of a graceful
// termination that is in progress. Terminating an instance that is gone is not an error as long as the platform keeps the
// operation that removed it; after that, IsNotFound holds for the error.
func (m *Manager) Terminate(ctx context.Context, appInstanceID string, opts ...EndOption) (operation string, err error) {
	e := endingOf(opts)
	r := m.request(http.MethodPost, "app_instances", appInstanceID, "terminate")
	r.body = mm5.TerminateAppRequest{TerminationType: e.how, GracefulTerminationTimeout: e.seconds}
	return m.begin(ctx, r)
}

// Instances lists the application instances in a state, or all of them when state is "".
func (m *Manager) Instances(ctx context.Context, state mm5.Lifecycle) ([]mm5.AppInstance, error) {
	r := m.request(http.MethodGet, "app_instances")
	if state != "" {
		r.query = url.Values{"lifecycle": {string(state)}}
	}
	var list []mm5.AppInstance
	_, err := m.c.do(ctx, r, &list)
	return list, err
}

// Instance reads the status of an application instance.
func (m *Manager) Instance(ctx context.Context, appInstanceID string) (*mm5.AppInstance, error) {
	v := &mm5.AppInstance{}
	if _, err := m.c.do(ctx, m.request(http.MethodGet, "app_instances", appInstanceID, "status"), v); err != nil {
		return nil, err
	}
	return v, nil
}

// Capabilities reads the capabilities of the platform and the services on it.
func (m *Manager) Capabilities(ctx context.Context) (*mm5.Capabilities, error) {
	v := &mm5.Capabilities{}
	if _, err := m.c.do(ctx, m.request(http.MethodGet, "capabilities"), v); err != nil {
		return nil, err
	}
	return v, nil
}
