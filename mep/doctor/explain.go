package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"syscall"
)

// way names the settings that say how to reach a server; cert is empty if its clients have no certificate. log says where to
// look if a server listens but does not respond.
type way struct{ address, ca, cert, log string }

// explain says why a connection failed, and what to do.
func (w way) explain(err error) (problem, remedy string) {
	if problem, remedy, ok := w.explainTLS(err); ok {
		return problem, remedy
	}
	var unknown *net.DNSError
	var slow net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refuses connections: nothing listens there", "start it, or correct " + w.address
	case errors.Is(err, fs.ErrNotExist):
		return "is a socket that does not exist", "start it, or correct " + w.address
	case errors.Is(err, fs.ErrPermission):
		return "may not be reached by this user", "run mep doctor as the user of the platform"
	case errors.As(err, &unknown):
		return fmt.Sprintf("has a host that is not known (%v)", unknown), "correct " + w.address + ", or the name server"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return fmt.Sprintf("does not answer within %s", patience), "see whether it runs, and whether a firewall is between"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "cannot be reached: there is no way to its network", "correct " + w.address + ", or the routes of this machine"
	}
	return fmt.Sprintf("cannot be reached (%v)", err), "see whether it runs, and whether " + w.address + " is right"
}

func (w way) explainTLS(err error) (problem, remedy string, ok bool) {
	var (
		untrusted x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		plain     tls.RecordHeaderError
		remote    *net.OpError
	)
	switch {
	case errors.As(err, &untrusted):
		return "shows a certificate of a CA that is not trusted here", "set " + w.ca + " to a PEM file of the CA that issued it", true
	case errors.As(err, &name):
		return fmt.Sprintf("shows a certificate that is not for %s", name.Host),
			"have it issued for that name too, or put one of its names into " + w.address, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("shows a certificate that is not valid now (%s)", invalid.Detail),
			"have it replaced, or correct the clock of this machine", true
	case errors.As(err, &plain):
		return "does not speak TLS", "correct " + w.address + ", or have TLS switched on there", true
	case errors.As(err, &remote) && remote.Op == "remote error" && strings.Contains(remote.Err.Error(), "certificate"):
		problem = fmt.Sprintf("does not take our certificate, or wants one (%v)", remote.Err)
		if w.cert == "" {
			return problem, "have it ask for none: the platform has none to show", true
		}
		return problem, "set " + w.cert + " to a client certificate of a CA that it trusts, and its key", true
	case errors.As(err, &remote) && remote.Op == "remote error" && w.cert != "":
		return fmt.Sprintf("ends the handshake (%v), as servers do that speak TLS 1.2 and want a client certificate", remote.Err),
			"set " + w.cert + ", or see which versions of TLS it has: 1.2 and 1.3 are spoken here", true
	}
	return "", "", false
}

// hostOf splits an endpoint of etcd.
func hostOf(endpoint string) (network, address, host string) {
	for _, scheme := range []string{"unix:", "unixs:"} {
		if path, ok := strings.CutPrefix(endpoint, scheme); ok {
			return "unix", strings.TrimPrefix(path, "//"), ""
		}
	}
	address = endpoint
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		address = u.Host
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return "tcp", address, host
}

// knock connects to an endpoint of etcd and, with a configuration for TLS, performs the handshake.
func knock(ctx context.Context, endpoint string, config *tls.Config) error {
	network, address, host := hostOf(endpoint)
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if config == nil || network == "unix" {
		return nil
	}
	config = config.Clone()
	config.ServerName, config.NextProtos = host, []string{"h2"}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return err
	}
	return refused(ctx, secured)
}

// refused returns an error if the server rejects our certificate. In TLS 1.3 the server says so only after the handshake, so
// refused begins an HTTP/2 connection (RFC 9113 3.4), which is answered or ended with an alert.
func refused(ctx context.Context, conn net.Conn) error {
	const preface, emptySettings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	_, err := io.WriteString(conn, preface+emptySettings)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if remote, ok := errors.AsType[*net.OpError](err); ok && remote.Op == "remote error" {
		return err
	}
	return nil
}

// speaksTLS reports whether a server uses TLS that was thought not to.
func speaksTLS(ctx context.Context, endpoint string) bool {
	network, address, _ := hostOf(endpoint)
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	//nolint:gosec // nothing is sent over this connection
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) == nil
}
