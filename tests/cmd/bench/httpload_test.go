package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnswersAreReadAsFarAsTheyCame(t *testing.T) {
	const whole = "HTTP/1.1 200 OK\r\nA: b\r\ncontent-LENGTH: 5\r\n\r\nhello"
	for _, c := range []struct {
		name, in       string
		status, length int
		done           bool
		fault          string
	}{
		{name: "nothing yet", in: ""},
		{name: "a part of the header", in: whole[:30]},
		{name: "the header alone", in: strings.TrimSuffix(whole, "hello"), status: 200, length: 5},
		{name: "a part of the body", in: whole[:len(whole)-1], status: 200, length: 5},
		{name: "all of it", in: whole, status: 200, length: 5, done: true},
		{name: "more than all of it", in: whole + "!", fault: "1 bytes more"},
		{name: "no body", in: "HTTP/1.1 404 Not Found\r\nContent-Length:0\r\n\r\n", status: 404, done: true},
		{name: "a body of unknown length", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", fault: "without Content-Length"},
		{name: "no HTTP", in: "220 ready\r\n\r\n", fault: "begins with"},
		{name: "a status that is none", in: "HTTP/1.1 abc OK\r\n\r\n", fault: "invalid syntax"},
		{name: "a length that is none", in: "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", fault: "invalid syntax"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, length, done, err := parseAnswer([]byte(c.in))
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []any{c.status, c.length, c.done}, []any{status, length, done})
		})
	}
}

// serving returns a server with 2 KB responses, and the requests of the load.
func serving(t *testing.T, answer http.HandlerFunc) *httpServer {
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	addr := hostOf(server.URL)
	return &httpServer{name: "test", addr: addr, size: answerSize, requests: [][]byte{get(addr, "/one", ""), get(addr, "/two", "A: b\r\n")}}
}

func TestLoadCountsWhatWasAnswered(t *testing.T) {
	var one, two atomic.Int64
	page := []byte(strings.Repeat("x", answerSize))
	s := serving(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/one" && r.Header.Get("A") == "":
			one.Add(1)
		case r.URL.Path == "/two" && r.Header.Get("A") == "b":
			two.Add(1)
		}
		_, _ = w.Write(page)
	})
	count, rate, err := s.flood(50 * time.Millisecond)
	require.NoError(t, err)
	require.Positive(t, rate)
	// Requests in flight at the end are answered too, but do not count.
	require.InDelta(t, count, one.Load()+two.Load(), clients)
	require.InDelta(t, one.Load(), two.Load(), 1)

	one.Store(0)
	two.Store(0)
	require.NoError(t, s.pace(200, 100*time.Millisecond))
	require.EqualValues(t, 20, one.Load()+two.Load())
	require.Len(t, s.p50, 1)
	require.Positive(t, s.p50[0])
}

func TestLoadRefusesAnswersThatAreNotWhatWasAskedFor(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"another status": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		},
		"another length": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("short")) },
		"the end": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serving(t, answer)
			_, _, err := s.flood(time.Second)
			require.Error(t, err)
			require.Error(t, s.pace(100, time.Second))
		})
	}
}
