package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
)

// The request to the producer's service, and the caller that uses an API key.
const (
	throughGateway = "/services/" + location + "/zones/7"
	partner        = "weather-partner"
)

// position is the response of the producer's service: the request, and what the gateway said about the caller.
type position struct {
	Path   string `json:"path"`
	Zone   string `json:"zone"`
	Caller string `json:"caller"`
	Scopes string `json:"scopes"`
	Secret bool   `json:"secret"` // whether there was a token or a key in the request
}

// locate is the producer's service. It trusts the gateway's statement about the caller.
func locate(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(position{
		Path: r.URL.Path, Zone: r.PathValue("zone"), Caller: r.Header.Get("X-AppInstanceID"), Scopes: r.Header.Get("X-Consumer-Scopes"),
		Secret: r.Header.Get("Authorization")+r.Header.Get("X-Api-Key")+r.URL.RawQuery != "",
	})
}

// visitor calls the service through the gateway.
type visitor struct {
	*story
	client *http.Client
	proof  func(ctx context.Context, h http.Header)
}

// visits returns a visitor for an app that calls with its token.
func (s *story) visits(a *app) *visitor {
	return &visitor{s, a.support.client, func(ctx context.Context, h http.Header) {
		token, err := a.tokens.Token(ctx)
		must(err)
		h.Set("Authorization", "Bearer "+token)
	}}
}

// asks calls the service, expects a status, and returns the header and the body of the response. fields are names and values of
// additional header fields.
func (v *visitor) asks(ctx context.Context, status int, fields ...string) (http.Header, []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.platform.running.URL("gateway")+throughGateway, http.NoBody)
	must(err)
	v.proof(ctx, req.Header)
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := v.client.Do(req)
	must(err)
	body, err := io.ReadAll(resp.Body)
	must(errors.Join(err, resp.Body.Close()))
	expect(resp.StatusCode == status, "the call through the gateway was answered %s, want %d", resp.Status, status)
	return resp.Header, body
}

// reaches expects the call to reach the service, with the caller's identity and without a secret.
func (v *visitor) reaches(ctx context.Context, caller string, fields ...string) http.Header {
	header, body := v.asks(ctx, http.StatusOK, fields...)
	var got position
	must(json.Unmarshal(body, &got))
	want := position{Path: "/location/v2/zones/7", Zone: "7", Caller: caller, Scopes: "mp1"}
	expect(got == want, "the service was told %+v, want %+v", got, want)
	return header
}

// isRefused expects the call to be refused with a status and a reason that contains words.
func (v *visitor) isRefused(ctx context.Context, status int, words string, fields ...string) http.Header {
	header, body := v.asks(ctx, status, fields...)
	var why problem.Details
	must(json.Unmarshal(body, &why))
	expect(strings.Contains(why.Detail, words), "the call was refused because %q, want %q", why.Detail, words)
	return header
}

// useGateway makes the consumer and others call the producer's service through the gateway.
func (s *story) useGateway(ctx context.Context) {
	consumer := s.visits(s.consumer)
	s.step("The consumer calls the service through the gateway, with its token. The service hears who calls, and sees no token.")
	consumer.reaches(ctx, consumerID)

	s.step("Nobody gets there without a proof, and what a caller says of itself does not reach the service.")
	stranger := &visitor{s, s.watched("stranger", s.producer.client()), func(context.Context, http.Header) {}}
	header := stranger.isRefused(ctx, http.StatusUnauthorized, "who calls is not known", "X-AppInstanceID", consumerID)
	expect(strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer "), "the WWW-Authenticate is %q", header.Get("WWW-Authenticate"))
	consumer.reaches(ctx, consumerID, "X-AppInstanceID", producerID, "X-Consumer-Scopes", "mm5")

	s.letPartnerIn(ctx, stranger)
	s.limitConsumers(ctx, consumer)
	id := s.shareOnRequest(ctx, consumer)
	s.explainCall(ctx)
	s.shareFreely(ctx, consumer, id)
}

// gatewayManager returns the MEPM as a caller of the gateway's management.
func (s *story) gatewayManager() *caller {
	management := s.manager.caller
	management.url = s.platform.running.URL("gateway-management") + gateway.Base
	return &management
}

// setPolicy sets the policy of the service.
func (s *story) setPolicy(ctx context.Context, p gateway.Policy, status int) {
	s.gatewayManager().call(ctx, request{method: http.MethodPut, path: "/policies/" + location, body: p}, status, nil)
}

// letPartnerIn gives an API key to a partner without tokens, and deletes it.
func (s *story) letPartnerIn(ctx context.Context, stranger *visitor) {
	s.step("The MEPM makes an API key for a partner who has no tokens, good for this service. It is shown this once.")
	var key gateway.APIKey
	management := s.gatewayManager()
	management.call(ctx, request{method: http.MethodPost, path: "/api_keys", body: gateway.APIKeyRequest{
		Consumer: partner, Services: []string{location}, Lifetime: "1h",
	}}, http.StatusCreated, &key)
	expect(key.Key != "" && key.Consumer == partner, "the key is of %q", key.Consumer)
	stranger.client = s.watched("partner", s.producer.client())
	stranger.reaches(ctx, partner, "X-Api-Key", key.Key)

	s.step("The operator lists the keys, without the keys themselves. A key that is deleted opens nothing from then on.")
	printed := s.mep(ctx, "apikey", "list")
	expect(strings.Contains(printed, key.ID) && !strings.Contains(printed, key.Key), "the list of keys is %s", printed)
	management.call(ctx, request{method: http.MethodDelete, path: "/api_keys/" + key.ID}, http.StatusNoContent, nil)
	stranger.isRefused(ctx, http.StatusUnauthorized, "API key is not in force", "X-Api-Key", key.Key)
}

// limitConsumers exhausts a quota.
func (s *story) limitConsumers(ctx context.Context, consumer *visitor) {
	s.step("The MEPM lets each consumer make 2 calls a day. The third one gets 429, and learns when to try again.")
	s.setPolicy(ctx, gateway.Policy{Quotas: []gateway.Quota{{Calls: 2, Per: gateway.PerDay}}}, http.StatusCreated)
	for range 2 {
		consumer.reaches(ctx, consumerID)
	}
	header := consumer.isRefused(ctx, http.StatusTooManyRequests, "2 calls a day is used up")
	after, err := time.ParseDuration(header.Get("Retry-After") + "s")
	must(err)
	expect(after > 0 && after <= 24*time.Hour, "the Retry-After is %s", after)
	s.note("that is in %s; the others may still call", after)
	s.visits(s.producer).reaches(ctx, producerID)
}

// shareOnRequest makes the producer decide who may use its service.
func (s *story) shareOnRequest(ctx context.Context, consumer *visitor) (id string) {
	s.step("From now on the service is shared on request. The consumer applies for access, at the gateway.")
	s.setPolicy(ctx, gateway.Policy{Sharing: gateway.SharingConditional}, http.StatusOK)
	consumer.isRefused(ctx, http.StatusForbidden, "shared on request")
	var applied gateway.AccessRequest
	s.accessAs(s.consumer).call(ctx, request{method: http.MethodPost, body: gateway.AccessApplication{
		SerName: location, Purpose: "maps of the area",
	}}, http.StatusCreated, &applied)
	expect(applied.State == gateway.AccessPending && applied.Owner == producerID, "the request is %+v", applied)

	s.step("Nobody grants this to itself: the producer does, who owns the service.")
	grant := request{method: http.MethodPut, path: "/" + applied.ID, body: gateway.AccessDecision{State: gateway.AccessGranted}}
	s.accessAs(s.consumer).refused(ctx, grant, http.StatusForbidden)
	s.accessAs(s.producer).call(ctx, grant, http.StatusOK, &applied)
	expect(applied.State == gateway.AccessGranted && applied.DecidedBy == producerID, "the request is %+v", applied)
	consumer.reaches(ctx, consumerID)

	s.step("It takes that back, and the next call is refused.")
	revoke := gateway.AccessDecision{State: gateway.AccessRefused, Reason: "for maps of last year only"}
	s.accessAs(s.producer).call(ctx, request{method: http.MethodPut, path: "/" + applied.ID, body: revoke}, http.StatusOK, nil)
	consumer.isRefused(ctx, http.StatusForbidden, "shared on request")
	return applied.ID
}

// accessAs returns a caller for access requests on behalf of an app.
func (s *story) accessAs(a *app) *caller {
	return &caller{url: s.platform.running.URL("gateway") + gateway.Base + "/access_requests", client: a.support.client, token: a.support.token}
}

// explainCall makes the gateway explain its decision.
func (s *story) explainCall(ctx context.Context) {
	s.step("The operator has that explained.")
	printed := s.mep(ctx, "gateway", "explain", http.MethodGet, throughGateway, "--consumer", consumerID)
	expect(strings.Contains(printed, "403") && strings.Contains(printed, "shared on request"), "the explanation is %s", printed)
}

// shareFreely gives everybody access again.
func (s *story) shareFreely(ctx context.Context, consumer *visitor, id string) {
	s.step("The consumer withdraws its request, and the MEPM the policy: the service is shared as it was.")
	s.accessAs(s.consumer).call(ctx, request{method: http.MethodDelete, path: "/" + id}, http.StatusNoContent, nil)
	s.gatewayManager().call(ctx, request{method: http.MethodDelete, path: "/policies/" + location}, http.StatusNoContent, nil)
	consumer.reaches(ctx, consumerID)
}

// callTooLate expects the route to have been removed with the service.
func (s *story) callTooLate(ctx context.Context) {
	s.step("The gateway knows no way there either.")
	s.visits(s.consumer).isRefused(ctx, http.StatusNotFound, "no active service")
}

// showCalls shows some access records and searches them for secrets.
func (s *story) showCalls() {
	s.step("Every call through the gateway has a record in data/access/access.jsonl. The last one:")
	written, err := os.ReadFile(s.platform.file("access", "access.jsonl"))
	must(err)
	lines := strings.Split(strings.TrimSpace(string(written)), "\n")
	last := lines[len(lines)-1]
	s.json("operator: data/access/access.jsonl", []byte(last))
	var entry struct {
		Consumer, Reason string
		Status           int
	}
	must(json.Unmarshal([]byte(last), &entry))
	expect(entry.Consumer == consumerID && entry.Status == http.StatusNotFound && entry.Reason != "", "the last record is %+v", entry)
	s.expectNoSecret("the access records", string(written))
}
