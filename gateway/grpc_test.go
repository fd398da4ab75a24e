package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/openmep/mep/api/mp1"
)

// talk is a gRPC service with one method of each kind, on messages that are text.
var talk = grpc.ServiceDesc{
	ServiceName: "mep.test.Talk", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Say", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			if in.Value == "fail" {
				return nil, status.Error(codes.FailedPrecondition, "not now: ü")
			}
			if in.Value == "wait" {
				<-ctx.Done()
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			md, _ := metadata.FromIncomingContext(ctx)
			_ = grpc.SetTrailer(ctx, metadata.Pairs("caller", md.Get("x-appinstanceid")[0], "end-bin", "\x00\xff"))
			_ = grpc.SetHeader(ctx, metadata.Pairs("begin", "1"))
			return wrapperspb.String(in.Value), nil
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				in := new(wrapperspb.StringValue)
				if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
					s.SetTrailer(metadata.Pairs("end", "1"))
					return status.Error(codes.OutOfRange, "the end")
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(in); err != nil {
					return err
				}
			}
		},
	}},
}

// serveTalk runs the gRPC service.
func serveTalk(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	server.RegisterService(&talk, nil)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
	return "http://" + ln.Addr().String()
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := serveTalk(t)
	me := w.app()
	token := w.token(me)
	w.service(me, "talk", at, func(s *mp1.ServiceInfo) { s.TransportInfo.Protocol = "gRPC" })
	w.service(me, "addressed", "", func(s *mp1.ServiceInfo) {
		addr := netip.MustParseAddrPort(strings.TrimPrefix(at, "http://"))
		s.TransportInfo.Type, s.TransportInfo.Protocol = mp1.TransportRPC, "grpc"
		s.TransportInfo.Endpoint = &mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: addr.Addr().String(), Port: int(addr.Port())}}}
	})
	plain, secure := w.gate(), w.gate(encrypted)
	for name, c := range map[string]struct {
		gate    *gate
		service string
		creds   credentials.TransportCredentials
	}{
		"h2c":       {plain, "talk", insecure.NewCredentials()},
		"TLS":       {secure, "talk", credentials.NewTLS(secure.trust())},
		"addresses": {plain, "addressed", insecure.NewCredentials()},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("dns:///"+c.gate.addr(), grpc.WithTransportCredentials(c.creds))
			require.NoError(t, err)
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			proof := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "x-appinstanceid", "forged")
			method := "/services/" + c.service + "/mep.test.Talk/"

			out := new(wrapperspb.StringValue)
			var header, trailer metadata.MD
			require.NoError(t, conn.Invoke(proof, method+"Say", wrapperspb.String("hello"), out, grpc.Header(&header), grpc.Trailer(&trailer)))
			require.Equal(t, "hello", out.Value)
			require.Equal(t, []string{"1"}, header.Get("begin"))
			require.Equal(t, []string{me}, trailer.Get("caller"))
			require.Equal(t, []string{"\x00\xff"}, trailer.Get("end-bin"))

			err = conn.Invoke(proof, method+"Say", wrapperspb.String("fail"), out)
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
			require.Equal(t, "not now: ü", status.Convert(err).Message())
			require.Equal(t, codes.Unimplemented, status.Code(conn.Invoke(proof, method+"None", wrapperspb.String("x"), out)))
			require.Equal(t, codes.Unauthenticated, status.Code(conn.Invoke(ctx, method+"Say", wrapperspb.String("x"), out)))
			require.Equal(t, codes.NotFound, status.Code(conn.Invoke(proof, "/services/none/mep.test.Talk/Say", wrapperspb.String("x"), out)))
			short, stop := context.WithTimeout(proof, 50*time.Millisecond)
			require.Equal(t, codes.DeadlineExceeded, status.Code(conn.Invoke(short, method+"Say", wrapperspb.String("wait"), out)))
			stop()

			s, err := conn.NewStream(proof, &talk.Streams[0], method+"Chat")
			require.NoError(t, err)
			for _, text := range []string{"a", "b", "c"} { // each is answered before the next is sent
				require.NoError(t, s.SendMsg(wrapperspb.String(text)))
				require.NoError(t, s.RecvMsg(out))
				require.Equal(t, text, out.Value)
			}
			require.NoError(t, s.CloseSend())
			require.Equal(t, codes.OutOfRange, status.Code(s.RecvMsg(out)))
			require.Equal(t, []string{"1"}, s.Trailer().Get("end"))
		})
	}
}
