package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/mm5"
)

// manager is the MEC platform manager (MEPM), which uses Mm5: it provisions credentials for apps, configures the platform for
// them, and terminates them.
type manager struct {
	caller
	creds  *auth.Credentials
	tokens *auth.Source
}

// newManager returns a MEPM with the credentials.
func newManager(s *screen, creds *auth.Credentials) *manager {
	h, err := creds.HTTPClient()
	must(err)
	m := &manager{caller: caller{url: creds.URLs["mm5"], client: s.watched("MEPM", h)}, creds: creds}
	m.tokens, err = creds.Source(m.client)
	must(err)
	m.token = m.tokens.Token
	return m
}

// as returns the manager under another name on the screen, with the same token.
func (m *manager) as(s *screen, who string) *manager {
	other := *m
	h, err := m.creds.HTTPClient()
	must(err)
	other.client = s.watched(who, h)
	return &other
}

// confs returns the path of the credentials of an app instance.
func confs(appInstanceID string) string {
	return "/mep/appMng/v1/applications/" + appInstanceID + "/confs"
}

// instance returns the path of an app instance.
func instance(appInstanceID string) string { return "/mm5/v1/app_instances/" + appInstanceID }

// provision creates credentials for an app instance and returns them as the MEPM passes them to the app. The platform generates
// missing keys and must not repeat given ones.
func (m *manager) provision(ctx context.Context, appInstanceID string, wanted auth.Confs) auth.KeyPair {
	keys := wanted.AuthInfo.Credentials
	var made auth.Confs
	m.call(ctx, request{method: http.MethodPut, path: confs(appInstanceID), body: wanted}, http.StatusOK, &made)
	got := made.AuthInfo.Credentials
	if keys.SecretKey == "" {
		expect(got.SecretKey != "", "the platform made no secret key")
		return got
	}
	expect(got.AccessKeyID == keys.AccessKeyID, "the access key is %s, want %s", got.AccessKeyID, keys.AccessKeyID)
	expect(got.SecretKey == "", "the platform repeats a secret key it did not make")
	return keys
}

// configure configures the platform for an app instance and returns the path of the operation.
func (m *manager) configure(ctx context.Context, appInstanceID string, wanted mm5.ConfigPlatformForAppRequest) (operation string) {
	return m.begin(ctx, instance(appInstanceID)+"/configure_platform_for_app", wanted)
}

// terminate begins a graceful termination of an app instance and returns the path of the operation.
func (m *manager) terminate(ctx context.Context, appInstanceID string, grace time.Duration) (operation string) {
	seconds := int(grace / time.Second)
	return m.begin(ctx, instance(appInstanceID)+"/terminate", mm5.TerminateAppRequest{
		TerminationType: mm5.Graceful, GracefulTerminationTimeout: &seconds,
	})
}

func (m *manager) begin(ctx context.Context, path string, body any) (operation string) {
	header := m.call(ctx, request{method: http.MethodPost, path: path, body: body}, http.StatusAccepted, nil)
	operation, ok := strings.CutPrefix(header.Get("Location"), m.url)
	expect(ok, "the operation is at %q", header.Get("Location"))
	return operation
}

// look reads an operation and expects it to be in a state, or to reach it soon.
func (m *manager) look(ctx context.Context, operation string, state mm5.OperationState) (op mm5.AppLcmOpOcc) {
	m.poll(ctx, operation, &op, func() bool { return op.OperationState == state || op.OperationState.Done() })
	expect(op.OperationState == state, "the operation is %s, want %s: %s", op.OperationState, state, op.Detail)
	expect(state.Done() == (op.EndTime != nil) && state.Done() == (op.Percentage == 100), "the operation is %+v", op)
	return op
}

// poll reads a resource until good returns true, for a limited time.
func (m *manager) poll(ctx context.Context, path string, answer any, good func() bool) {
	for end := time.Now().Add(patience); ; pause(ctx, 100*time.Millisecond) {
		m.call(ctx, request{method: http.MethodGet, path: path}, http.StatusOK, answer)
		if good() || time.Now().After(end) {
			return
		}
	}
}
