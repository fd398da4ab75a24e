package blackbox

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// offering runs a platform in development mode on which an app offers a producer as the service hello.
func offering(t *testing.T, handler http.HandlerFunc, options ...harness.Option) (*harness.Process, *harness.Producer) {
	t.Helper()
	producer := harness.NewProducer(t, "hello", handler)
	p := harness.Start(t, options...)
	newApp(p.Client(t)).register(served("hello", producer.URL))
	harness.Eventually(t, "the gateway knows the service", func() error {
		list := p.GatewayManagement(t).Get(gatewayRoot + "/routes?service=hello").Is(200).Array()
		return harness.Not(len(list) == 2, "%v", list)
	})
	return p, producer
}

func TestAQuotaIsOfEachConsumer(t *testing.T) {
	t.Parallel()
	p, producer := offering(t, nil)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	_, alice := apiKey(m, "alice", nil)
	_, bob := apiKey(m, "bob", nil)
	policy(m, "hello", object{"quotas": []any{object{"calls": 5, "per": "month"}, object{"calls": 1000, "per": "hour"}}})
	for i := range 5 {
		answer := c.Get("/services/hello/", keyed(alice)).Is(200)
		require.Contains(t, strings.Join(answer.Header.Values("RateLimit"), ","), strconv.Itoa(4-i), "%v", answer.Header)
	}
	refused := c.Get("/services/hello/", keyed(alice))
	require.Contains(t, refused.Problem(429).Detail, "5 calls a month")
	after, err := strconv.Atoi(refused.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, after)
	require.Len(t, producer.Seen(), 5)
	c.Get("/services/hello/", keyed(bob)).Is(200)
	c.Get("/services/hello/").Is(200) // who is not known is counted by address

	uses := m.Get(gatewayRoot + "/quotas?consumer=alice").Is(200).Array()
	require.Len(t, uses, 2)
	for _, u := range uses {
		require.Equal(t, "alice", u["consumer"])
	}
	policy(m, "hello", object{"quotas": []any{object{"calls": 7, "per": "month"}}})
	c.Get("/services/hello/", keyed(alice)).Is(200) // it is raised, what was counted stays
	c.Get("/services/hello/", keyed(alice)).Is(200)
	c.Get("/services/hello/", keyed(alice)).Problem(429)
	p.Stop()
	p.Restart()
	reached(t, c, "/services/hello/", keyed(bob))
	c.Get("/services/hello/", keyed(alice)).Problem(429) // it is not forgotten
	policy(m, "hello", object{"quotas": []any{object{"calls": 3, "per": "month"}}})
	c.Get("/services/hello/", keyed(alice)).Problem(429)
	policy(m, "hello", object{})
	c.Get("/services/hello/", keyed(alice)).Is(200)
}

// Whoever is killed, whenever that is: not one call more.
func TestAQuotaIsNeverExceededByReplicasThatAreKilled(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	server := harness.StartMepserver(t, etcd.Endpoint())
	producer := harness.NewProducer(t, "hello", nil)
	newApp(server.Client(t)).register(served("hello", producer.URL))
	var replicas []*harness.Process
	for range 3 {
		replicas = append(replicas, harness.StartGateway(t, etcd.Endpoint()))
	}
	m := replicas[0].GatewayManagement(t)
	const most = 400
	policy(m, "hello", object{"quotas": []any{object{"calls": most, "per": "month"}}})
	_, key := apiKey(m, "c", nil)
	for _, r := range replicas {
		harness.Eventually(t, "all replicas know the key and the quota", func() error {
			answer := r.Gateway(t).Get("/services/hello/", keyed(key))
			return harness.Not(answer.Status == 200 && answer.Header.Get("RateLimit") != "", "%d %v", answer.Status, answer.Header)
		})
	}
	var calls sync.WaitGroup
	for i := range 9 {
		r := replicas[i%3]
		calls.Go(func() {
			c := r.Gateway(t)
			refusals := 0
			for refusals < 5 {
				answer, err := c.Try("GET", "/services/hello/", nil, keyed(key))
				switch {
				case err != nil:
					time.Sleep(time.Millisecond) // it was killed
					if !r.Running() {
						return
					}
				case answer.Status == 429:
					refusals++
				case answer.Status == 503: // etcd does not answer in time
				case answer.Status != 200:
					t.Errorf("%d %s", answer.Status, answer.Body)
					return
				}
			}
		})
	}
	harness.Eventually(t, "calls are under way", func() error { n := len(producer.Seen()); return harness.Not(n > most/4, "%d", n) })
	replicas[2].Kill()
	calls.Wait()
	n := len(producer.Seen())
	require.LessOrEqual(t, n, most)
	require.Greater(t, n, most/2, "what was lost with the one that was killed is bounded")
	replicas[2].Restart()
	harness.Eventually(t, "the one that comes back knows the policy and the key", func() error {
		answer, err := replicas[2].Gateway(t).Try("GET", "/services/hello/", nil, keyed(key))
		if err != nil {
			return err
		}
		return harness.Not(answer.Status == 429, "%d", answer.Status)
	})
	require.LessOrEqual(t, len(producer.Seen()), most)
}

func TestSpikesAreArrested(t *testing.T) {
	t.Parallel()
	p, producer := offering(t, nil)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	_, alice := apiKey(m, "alice", nil)
	_, bob := apiKey(m, "bob", nil)
	policy(m, "hello", object{"spikeArrest": object{"calls": 1, "per": "minute"}})
	c.Get("/services/hello/", keyed(alice)).Is(200)
	refused := c.Get("/services/hello/", keyed(alice))
	refused.Problem(429)
	after, err := strconv.Atoi(refused.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.InDelta(t, 30, after, 30)
	c.Get("/services/hello/", keyed(bob)).Is(200)
	require.Len(t, producer.Seen(), 2)
	policy(m, "hello", object{"spikeArrest": object{"calls": 20, "per": "second", "buffer": 3}})
	outcomes := make(chan int, 12)
	for range cap(outcomes) {
		go func() {
			answer, err := c.Try("GET", "/services/hello/", nil, keyed(bob))
			if err != nil {
				outcomes <- 0
				return
			}
			outcomes <- answer.Status
		}()
	}
	count := map[int]int{}
	for range cap(outcomes) {
		count[<-outcomes]++
	}
	require.Equal(t, cap(outcomes), count[200]+count[429], "%v", count)
	require.GreaterOrEqual(t, count[200], 3, "as many as the buffer has room for wait for their turn: %v", count)
}

func TestCallsUnderWayAreBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var under atomic.Int64
	p, _ := offering(t, func(_ http.ResponseWriter, r *http.Request) {
		under.Add(1)
		defer under.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	m, c := p.GatewayManagement(t), p.Gateway(t)
	_, alice := apiKey(m, "alice", nil)
	policy(m, "hello", object{"concurrent": 2})
	done := make(chan int, 2)
	for range cap(done) {
		go func() {
			answer, err := c.Try("GET", "/services/hello/", nil, keyed(alice))
			if err != nil {
				done <- 0
				return
			}
			done <- answer.Status
		}()
	}
	harness.Eventually(t, "two are under way", func() error { return harness.Not(under.Load() == 2, "%d", under.Load()) })
	c.Get("/services/hello/", keyed(alice)).Problem(429)
	close(release)
	require.Equal(t, []int{200, 200}, []int{<-done, <-done})
	c.Get("/services/hello/", keyed(alice)).Is(200)
}

func TestBodiesAndHeadersAreBounded(t *testing.T) {
	t.Parallel()
	p, producer := offering(t, nil, harness.Args("--gateway-max-body=1000", "--gateway-max-header=2000", "--gateway-max-uri=500"))
	m, c := p.GatewayManagement(t), p.Gateway(t)
	body := bytes.Repeat([]byte("x"), 1000)
	c.Post("/services/hello/", body).Seen()
	producer.Forget()
	c.Post("/services/hello/", append(body, 'x')).Problem(413)
	require.Empty(t, producer.Seen())
	c.Post("/services/hello/", io.Reader(bytes.NewReader(append(body, 'x')))).Problem(413) // of unknown length
	c.Get("/services/hello/" + strings.Repeat("a", 500)).Problem(414)
	c.Get("/services/hello/", harness.Header("X-Long", strings.Repeat("a", 2000))).Problem(431)
	policy(m, "hello", object{"maxBody": -1})
	require.Len(t, c.Post("/services/hello/", bytes.Repeat([]byte("x"), 3<<20)).Seen().Body, 3<<20)
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	p, _ := offering(t, nil, harness.Args("--gateway-connections=3", "--gateway-connections-hard=5"))
	p.Gateway(t).Get("/services/hello/").Seen()
	var held []net.Conn
	for range 3 {
		held = append(held, p.Dial(t, "gateway"))
	}
	request := []byte("GET /services/hello/ HTTP/1.1\r\nHost: x\r\n\r\n")
	harness.Eventually(t, "further ones get 429", func() error {
		answer, ok := p.Exchange(t, "gateway", "GET", request)
		if !ok {
			return harness.Not(false, "it was closed")
		}
		return harness.Not(answer.Status == 429 && answer.Header.Get("Retry-After") != "", "%d", answer.Status)
	})
	harness.Eventually(t, "still further ones are closed", func() error {
		conn, err := net.Dial("tcp", p.Addr("gateway"))
		if err != nil {
			return nil
		}
		held = append(held, conn)
		if len(held) < 6 {
			return harness.Not(false, "there are %d", len(held))
		}
		_ = conn.SetDeadline(time.Now().Add(harness.Patience))
		_, _ = conn.Write(request) // it may be closed by now
		answer, err := io.ReadAll(io.LimitReader(conn, 12))
		return harness.Not(err != nil || len(answer) == 0, "it was answered: %s", answer)
	})
	for _, conn := range held {
		_ = conn.Close() // the other side may have done that
	}
	harness.Eventually(t, "all is well again", func() error {
		answer, ok := p.Exchange(t, "gateway", "GET", request)
		return harness.Not(ok && answer.Status == 200, "%v", answer)
	})
}
