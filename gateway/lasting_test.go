package gateway_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/openmep/mep/api/mp1"
)

// held is a call that lasts.
type held struct {
	name string
	// talk makes something pass over the call; the error says why it could not.
	talk func() error
	// over waits until the call ends, and returns how the client sees the end.
	over func() string
}

// kind is a kind of calls that last.
type kind struct {
	name string
	// serve starts the upstream and returns its address.
	serve func(*testing.T) string
	open  func(t *testing.T, g *gate, path string, proof [2]string) *held
	// denied and gone are how the client sees the end when the right to the call ends, and when its service is gone.
	denied, gone string
}

// ticks answers with a line every few milliseconds.
func ticks(w http.ResponseWriter, r *http.Request) {
	tick := "data: tick\n\n"
	switch r.URL.Path {
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
	case "/long":
		w.Header().Set("Content-Length", fmt.Sprint(1<<40))
		tick = strings.Repeat(tick, 1000) // more than is buffered on the way
	case "/upload":
		_, _ = io.Copy(io.Discard, r.Body)
		return
	}
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, tick); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func kinds() []kind {
	http1 := func(t *testing.T) string { return serve(t, ticks).URL }
	return []kind{
		{"WebSocket", func(t *testing.T) string { return serve(t, echo.ServeHTTP).URL }, openSocket, "close 1008", "close 1001"},
		{"events over HTTP/1.1", http1, reading("/events", false), "cut", "cut"},
		{"events over HTTP/2", http1, reading("/events", true), "cut", "cut"},
		{"download", http1, reading("/long", false), "cut", "cut"},
		{"download over HTTP/2 from HTTP/2", func(t *testing.T) string { return serveH2C(t, ticks) }, reading("/long", true), "cut", "cut"},
		{"upload", http1, upload, "denied", "503"},
		{"gRPC", serveTalk, openTalk, "PermissionDenied", "Unavailable"},
	}
}

func openSocket(t *testing.T, g *gate, path string, proof [2]string) *held {
	t.Helper()
	l := g.in(t).dial()
	require.NoError(t, l.SetDeadline(time.Now().Add(time.Minute)))
	l.send("GET " + path + "/ HTTP/1.1\nHost: a\nOrigin: http://a\n" + proof[0] + ": " + proof[1] + "\n" + handshake + "\n")
	resp, err := http.ReadResponse(l.in, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	frame := func() (opcode byte, payload []byte, err error) {
		var head [2]byte
		if _, err := io.ReadFull(l.in, head[:]); err != nil {
			return 0, nil, err
		}
		payload = make([]byte, head[1])
		_, err = io.ReadFull(l.in, payload)
		return head[0] & 15, payload, err
	}
	return &held{talk: func() error {
		l.write("\x81\x82\x00\x00\x00\x00hi")
		opcode, payload, err := frame()
		if err == nil && (opcode != 1 || string(payload) != "hi") {
			err = fmt.Errorf("opcode %d: %q", opcode, payload)
		}
		return err
	}, over: func() string {
		for {
			switch opcode, payload, err := frame(); {
			case err != nil:
				return err.Error()
			case opcode == 8:
				l.write("\x88\x82\x00\x00\x00\x00\x03\xf0")
				_, err := l.in.ReadByte()
				require.ErrorIs(t, err, io.EOF)
				return fmt.Sprintf("close %d", binary.BigEndian.Uint16(payload))
			}
		}
	}}
}

func reading(path string, two bool) func(*testing.T, *gate, string, [2]string) *held {
	return func(t *testing.T, g *gate, service string, proof [2]string) *held {
		t.Helper()
		transport := &http.Transport{}
		if two {
			transport.Protocols = unencrypted()
		}
		t.Cleanup(transport.CloseIdleConnections)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL()+service+path, nil)
		require.NoError(t, err)
		r.Header.Set(proof[0], proof[1])
		resp, err := transport.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return &held{talk: func() error {
			_, err := io.ReadFull(resp.Body, make([]byte, 12))
			return err
		}, over: func() string {
			if _, err := io.Copy(io.Discard, resp.Body); err == nil {
				return "it looks complete"
			}
			return "cut"
		}}
	}
}

// upload is a call whose body never ends.
func upload(t *testing.T, g *gate, service string, proof [2]string) *held {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	body, in := io.Pipe()
	t.Cleanup(func() { _ = body.Close() })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL()+service+"/upload", body)
	require.NoError(t, err)
	r.Header.Set(proof[0], proof[1])
	answer := make(chan string, 1)
	go func() {
		resp, err := transport.RoundTrip(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			answer <- "denied"
			return
		}
		answer <- strconv.Itoa(resp.StatusCode)
	}()
	return &held{talk: func() error {
		_, err := io.WriteString(in, "data")
		return err
	}, over: func() string { return <-answer }}
}

func openTalk(t *testing.T, g *gate, service string, proof [2]string) *held {
	t.Helper()
	conn, err := grpc.NewClient("dns:///"+g.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), strings.ToLower(proof[0]), proof[1])
	s, err := conn.NewStream(ctx, &talk.Streams[0], service+"/mep.test.Talk/Chat")
	require.NoError(t, err)
	out := new(wrapperspb.StringValue)
	return &held{talk: func() error {
		if err := s.SendMsg(wrapperspb.String("hi")); err != nil {
			return err
		}
		return s.RecvMsg(out)
	}, over: func() string {
		err := s.RecvMsg(out)
		for ; err == nil; err = s.RecvMsg(out) {
			continue
		}
		if errors.Is(err, context.Canceled) {
			return "canceled"
		}
		if code := status.Code(err); code != codes.Unauthenticated {
			return code.String()
		}
		return codes.PermissionDenied.String() // either one, as for all kinds
	}}
}

// offering registers a service of each kind, named by its number, and returns their ids.
func (w *world) offering(t *testing.T, owner string, kinds []kind, changes ...func(*mp1.ServiceInfo)) (ids []string) {
	t.Helper()
	for n, k := range kinds {
		all := changes
		if k.name == "gRPC" {
			all = append([]func(*mp1.ServiceInfo){func(s *mp1.ServiceInfo) { s.TransportInfo.Protocol = "gRPC" }}, changes...)
		}
		ids = append(ids, w.service(owner, fmt.Sprint("kind-", n), k.serve(t), all...))
	}
	return ids
}

// hold makes a call of each kind, and checks that it works.
func (g *gate) hold(t *testing.T, kinds []kind, proof [2]string) (all []*held) {
	t.Helper()
	for n, k := range kinds {
		h := k.open(t, g, fmt.Sprint("/services/kind-", n), proof)
		h.name = k.name
		all = append(all, h)
	}
	working(t, all, "at the beginning")
	return all
}

func working(t *testing.T, all []*held, when string) {
	t.Helper()
	for _, h := range all {
		require.NoError(t, h.talk(), "%s %s", h.name, when)
	}
}

func asToken(token string) [2]string { return [2]string{"Authorization", "Bearer " + token} }
func asKey(key string) [2]string     { return [2]string{"X-Api-Key", key} }
