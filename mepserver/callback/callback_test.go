package callback_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/mepserver/callback"
)

func TestTargetsThatAreRefused(t *testing.T) {
	own := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8088"), netip.MustParseAddrPort("[::]:9090"), netip.MustParseAddrPort("0.0.0.0:9091")}
	open := &callback.Policy{AllowLoopback: true, AllowPrivate: true, Own: own}
	closed := &callback.Policy{Own: own}
	for _, c := range []struct {
		ref  string
		open bool // allowed by the open policy
		shut bool // allowed by the closed one
	}{
		{"http://example.com/x", true, true},
		{"https://93.184.216.34:8443/x?y=z", true, true},
		{"http://[2001:db8::1]/x", true, true},
		{"http://10.1.2.3/x", true, false},
		{"http://192.168.0.1/", true, false},
		{"http://[fd00::1]/", true, false},
		{"http://127.0.0.1:5000/", true, false},
		{"http://[::1]:5000/", true, false},
		{"http://[::ffff:127.0.0.1]:5000/", true, false},
		{"http://127.0.0.1:8088/", false, false},
		{"http://[::ffff:127.0.0.1]:8088/", false, false},
		{"http://127.0.0.1:9090/", false, false},
		{"http://127.0.0.1:9091/", false, false},
		{"http://[::1]:9091/", false, false},
		{"http://169.254.169.254/latest", false, false},
		{"http://[fe80::1%25eth0]/", false, false},
		{"http://0.0.0.0:80/", false, false},
		{"http://[::]/", false, false},
		{"http://224.0.0.1/", false, false},
		{"http://[ff02::1]/", false, false},
		{"http://255.255.255.255/", false, false},
		{"ftp://example.com/", false, false},
		{"/relative", false, false},
		{"http:///nohost", false, false},
		{"http://user:secret@example.com/", false, false},
		{"http://example.com/#part", false, false},
		{"http://example.com:0/", false, false},
		{"http://example.com:99999/", false, false},
		{"::", false, false},
	} {
		require.Equal(t, c.open, open.CheckURI(c.ref) == nil, "open policy, %s: %v", c.ref, open.CheckURI(c.ref))
		require.Equal(t, c.shut, closed.CheckURI(c.ref) == nil, "closed policy, %s: %v", c.ref, closed.CheckURI(c.ref))
	}
}

func client(p *callback.Policy) *callback.Client {
	return callback.NewClient(func() *callback.Policy { return p })
}

var loopback = &callback.Policy{AllowLoopback: true}

func TestPostSendsTheBodyAndItsID(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if string(b) != `{"a":1}` || r.Header.Get("X-Notification-Id") != "id" || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	require.NoError(t, client(loopback).Post(t.Context(), srv.URL, "id", []byte(`{"a":1}`)))
}

func TestResolvedAddressIsCheckedWhenDialling(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	target := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	closed := &callback.Policy{}
	require.NoError(t, closed.CheckURI(target), "a name alone tells nothing")
	err := client(closed).Post(t.Context(), target, "id", nil)
	var refused *callback.RefusedError
	require.ErrorAs(t, err, &refused)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := false
	mux := http.NewServeMux()
	mux.HandleFunc("/from", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/to", http.StatusTemporaryRedirect) })
	mux.HandleFunc("/to", func(http.ResponseWriter, *http.Request) { followed = true })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	err := client(loopback).Post(t.Context(), srv.URL+"/from", "id", []byte("{}"))
	var status *callback.StatusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, http.StatusTemporaryRedirect, status.Status)
	require.False(t, followed)
}

func TestEndlessAnswerIsCutOff(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	require.NoError(t, client(loopback).Post(t.Context(), srv.URL, "id", []byte("{}")), "the status was 200: that is all that counts")
}

func TestPostEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := client(loopback).Post(ctx, srv.URL, "id", []byte("{}"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
