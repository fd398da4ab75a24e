package blackbox

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

const accessRequests = gatewayRoot + "/access_requests"

// shared is served as a service that consumers have to apply for.
func shared(name string, urls ...string) object {
	info := served(name, urls...)
	return but(info, "transportInfo", but(info["transportInfo"].(object), "implSpecificInfo", object{"gateway": object{"sharing": "conditional"}}))
}

func TestAConsumerAppliesForAccessAndTheOwnerDecides(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	at := func(k harness.Keys) *harness.Client {
		return p.AccessAtGateway(t).With(k.Fetch(p.Auth(t)).AccessToken)
	}
	ownerApp, ownerKeys := appOf(t, p)
	consumerApp, consumerKeys := appOf(t, p)
	_, strangerKeys := appOf(t, p)
	svc := ownerApp.register(shared("hello", producer.URL))
	owner, consumer, stranger := at(ownerKeys), at(consumerKeys), at(strangerKeys)
	calls := p.Gateway(t).With(consumerKeys.Fetch(p.Auth(t)).AccessToken)
	byInstance := "/instances/" + svc.id + "/"
	require.Contains(t, calls.Get("/services/hello/").Problem(403).Detail, "access_requests")
	calls.Get(byInstance).Problem(403)
	p.Gateway(t).With(ownerKeys.Fetch(p.Auth(t)).AccessToken).Get("/services/hello/").Seen()

	p.AccessAtGateway(t).Post(accessRequests, object{"serName": "hello"}).Problem(401)
	p.AccessAtGateway(t).Get(accessRequests).Problem(401)
	consumer.Post(accessRequests, object{"serName": "hello", "consumer": uuid.NewString()}).Problem(403)
	consumer.Post(accessRequests, object{"serName": "nothing"}).Problem(404)
	applied := consumer.Post(accessRequests, object{"serName": "hello", "purpose": "to show it"}).Is(201)
	id := applied.Object()["id"].(string)
	path := accessRequests + "/" + id
	consumer.Post(accessRequests, object{"serInstanceId": svc.id}).Problem(409)
	calls.Get("/services/hello/").Problem(403) // asking is not enough

	consumer.Put(path, object{"state": "GRANTED"}).Problem(403)
	stranger.Get(path).Problem(404)
	stranger.Put(path, object{"state": "GRANTED"}).Problem(404)
	stranger.Delete(path).Problem(404)
	require.Empty(t, stranger.Get(accessRequests).Is(200).Array())
	require.Len(t, owner.Get(accessRequests+"?state=PENDING").Is(200).Array(), 1)

	for range 10 { // what is answered is in force
		granted := owner.Put(path, object{"state": "GRANTED", "reason": "fine"}).Is(200)
		calls.Get("/services/hello/").Seen()
		calls.Get(byInstance).Seen()
		p.Gateway(t).With(strangerKeys.Fetch(p.Auth(t)).AccessToken).Get("/services/hello/").Problem(403)
		owner.Put(path, object{"state": "REFUSED"}, harness.Header("If-Match", applied.ETag())).Problem(412)
		owner.Put(path, object{"state": "REFUSED", "reason": "no more"}, harness.Header("If-Match", granted.ETag())).Is(200)
		calls.Get("/services/hello/").Problem(403)
		calls.Get(byInstance).Problem(403)
	}
	require.Equal(t, "no more", consumer.Get(path).Is(200).Object()["reason"])
	owner.Put(path, object{"state": "PENDING"}).Problem(400)

	m := p.GatewayManagement(t)
	m.Put(path, object{"state": "GRANTED"}).Is(200)
	calls.Get("/services/hello/").Seen()
	p.Kill()
	p.Restart()
	calls.Get("/services/hello/").Seen()
	// The grant is of this owner: whoever takes the name later did not grant anything.
	ownerApp.remove(svc.id)
	thief, _ := appOf(t, p)
	thief.register(shared("hello", producer.URL))
	calls.Get("/services/hello/").Problem(403)
	ownerApp.register(shared("hello", producer.URL))
	for range 5 {
		require.Equal(t, consumerApp.id, calls.Get("/services/hello/").Seen().Names("X-AppInstanceID")[0])
	}
	consumer.Delete(path).Is(204)
	calls.Get("/services/hello/").Problem(403)
	consumer.Get(path).Problem(404)
	entry := auditOf(t, p, "the grant", func(e object) bool {
		return e["action"] == "gateway.access.decide" && strings.Contains(fmt.Sprint(e), "GRANTED")
	})
	require.Contains(t, fmt.Sprint(entry), ownerApp.id)

	// A policy shares a service whatever its owner says.
	policy(m, "hello", object{"sharing": "open"})
	calls.Get("/services/hello/").Seen()
	policy(m, "hello", object{"sharing": "conditional"})
	calls.Get("/services/hello/").Problem(403)
}

func TestAccessThatIsTakenBackEndsCallsAndLetsNoneBegin(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	p := harness.Start(t)
	m := p.GatewayManagement(t)
	newApp(p.Client(t)).register(shared("hello", producer.URL))
	_, key := apiKey(m, "c", nil)
	var made object
	m.Post(accessRequests, object{"serName": "hello", "consumer": "c"}).Is(201).Into(&made)
	path := accessRequests + "/" + made["id"].(string)
	m.Put(path, object{"state": "GRANTED"}).Is(200)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", p.URL("gateway")+"/services/hello/", nil)
	require.NoError(t, err)
	r.Header.Set("X-Api-Key", key)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	first, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "first\n", first)
	m.Delete(path).Is(204)
	p.Gateway(t).Get("/services/hello/", keyed(key)).Problem(403)
	_, err = lines.ReadString('\n')
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "it does not look whole")
}

func TestWhatAnAppLeavesAtTheGatewayEndsWithIt(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t)
	m, mm5 := p.GatewayManagement(t), mepmOf(t, p)
	newApp(p.Client(t)).register(shared("hello", producer.URL))
	id := uuid.NewString()
	mm5.done(mm5.configure(id, configuration("x", 0, 0)))
	_, key := apiKey(m, id, nil)
	var made object
	m.Post(accessRequests, object{"serName": "hello", "consumer": id}).Is(201).Into(&made)
	path := accessRequests + "/" + made["id"].(string)
	m.Put(path, object{"state": "GRANTED"}).Is(200)
	require.Equal(t, []string{id}, p.Gateway(t).Get("/services/hello/", keyed(key)).Seen().Names("X-AppInstanceID"))
	mm5.done(mm5.terminate(id, forceful))
	answered(t, p.Gateway(t), 401, "/services/hello/", keyed(key))
	harness.Eventually(t, "the request is gone", func() error {
		answer := m.Get(path)
		return harness.Not(answer.Status == 404, "%d %s", answer.Status, answer.Body)
	})
}

func TestSeveralManagersDecideAtOnce(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t)
	m := p.GatewayManagement(t)
	newApp(p.Client(t)).register(shared("hello", producer.URL))
	var made object
	answer := m.Post(accessRequests, object{"serName": "hello", "consumer": "c"}).Is(201)
	answer.Into(&made)
	outcomes := make(chan int, 8)
	for i := range cap(outcomes) {
		go func() {
			got, err := p.UncheckedGatewayManagement(t).Try("PUT", accessRequests+"/"+made["id"].(string),
				object{"state": []string{"GRANTED", "REFUSED"}[i%2]}, harness.Header("If-Match", answer.ETag()))
			if err != nil {
				outcomes <- 0
				return
			}
			outcomes <- got.Status
		}()
	}
	won := 0
	for range cap(outcomes) {
		switch status := <-outcomes; status {
		case 200:
			won++
		default:
			require.Equal(t, 412, status)
		}
	}
	require.Equal(t, 1, won)
}
