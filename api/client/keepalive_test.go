package client_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
)

func liveness(interval string) func(http.ResponseWriter) {
	return answer(200, `{"state":"ACTIVE","timeStamp":{"seconds":1,"nanoSeconds":0},"interval":`+interval+`}`)
}

// keepAlive runs KeepAlive for a time and returns the times of the heartbeats.
func keepAlive(t *testing.T, p *platform, d time.Duration) ([]time.Time, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	err := newClient(t, p).App(appID).KeepAlive(ctx, svcID)
	var beats []time.Time
	for _, a := range p.asked {
		if a.method == http.MethodPatch {
			beats = append(beats, a.at)
		}
	}
	return beats, err
}

func requireGaps(t *testing.T, beats []time.Time, least, most time.Duration) {
	t.Helper()
	for i := 1; i < len(beats); i++ {
		gap := beats[i].Sub(beats[i-1])
		require.GreaterOrEqual(t, gap, least)
		require.LessOrEqual(t, gap, most)
	}
}

func TestKeepAliveBeatsBeforeEachIntervalIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{answers: []func(http.ResponseWriter){liveness("10"), answer(204, "")}}
		start := time.Now()
		beats, err := keepAlive(t, p, time.Minute)
		require.NoError(t, err, "the end of the context is no failure")
		require.Equal(t, time.Minute, time.Since(start))
		require.True(t, beats[0].Equal(start), "the first beat is sent at once")
		require.GreaterOrEqual(t, len(beats), 6)
		requireGaps(t, beats, 8*time.Second, 10*time.Second)
	})
}

func TestKeepAliveObeysAnImposedInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{answers: []func(http.ResponseWriter){liveness("1"), liveness("30"), answer(204, "")}}
		beats, err := keepAlive(t, p, 5*time.Minute)
		require.NoError(t, err)
		requireGaps(t, beats, 24*time.Second, 30*time.Second)
	})
}

func TestKeepAliveOutlivesTheFaultsOfThePlatform(t *testing.T) {
	failures := map[string]func(http.ResponseWriter){
		"internal error":    refusal(500),
		"unavailable":       refusal(503, "Retry-After", "1"),
		"no token":          refusal(401),
		"too many requests": refusal(429, "Retry-After", "1"),
	}
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: []func(http.ResponseWriter){
					failure, failure, liveness("10"), answer(204, ""), failure, failure, failure, failure, failure, failure, answer(204, ""),
				}}
				beats, err := keepAlive(t, p, 2*time.Minute)
				require.NoError(t, err)
				requireGaps(t, beats, 10*time.Millisecond, 10*time.Second)
				require.Greater(t, len(beats), 12)
			})
		})
	}
}

// unreachable is a platform on a machine that does not respond.
type unreachable struct{}

func (unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, errors.New("no route")
}

func TestKeepAliveEndsWithItsContextWhenNothingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := client.New("http://mep.example", client.WithHTTPClient(&http.Client{Transport: unreachable{}}))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		require.NoError(t, c.App(appID).KeepAlive(ctx, svcID))
		require.Equal(t, time.Minute, time.Since(start))
	})
}

func TestKeepAliveReturnsWhenThePlatformRefusesForGood(t *testing.T) {
	for status, holds := range map[int]func(error) bool{
		404: client.IsNotFound, 409: client.IsConflict, 403: func(err error) bool { return err != nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){liveness("10"), answer(204, ""), refusal(status)}}
			beats, err := keepAlive(t, p, time.Minute)
			require.True(t, holds(err), "%v", err)
			require.Len(t, beats, 2)

			_, err = keepAlive(t, &platform{answers: []func(http.ResponseWriter){refusal(status)}}, time.Minute)
			require.True(t, holds(err), "%v", err)
		})
	}
}
