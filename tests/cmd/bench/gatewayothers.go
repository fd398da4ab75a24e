package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// haproxyConf makes HAProxy forward calls whose token has a valid signature and has not expired. It writes no log.
const haproxyConf = `global
	nbthread 2
	maxconn 4096
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	timeout http-keep-alive 60s
frontend calls
	bind %s
	http-request set-var(txn.bearer) http_auth_bearer
	http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
	http-request deny deny_status 401 unless { var(txn.alg) -m str ES256 }
	http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,%q) -m int 1 }
	http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
	http-request set-var(txn.now) date()
	http-request deny deny_status 401 unless { var(txn.exp),sub(txn.now) -m int gt 0 }
	default_backend service
backend service
	http-reuse always
	server service %s pool-max-conn 256
`

// startHAProxy starts HAProxy in front of the service of a gate, if it is installed. It verifies the platform's tokens.
func startHAProxy(o *options, g *gate) (*httpServer, error) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			return nil, fmt.Errorf("%w: haproxy", errMissing)
		}
	}
	key, err := writeKey(o, g.URL("auth")+"/.well-known/jwks.json")
	if err != nil {
		return nil, err
	}
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, uuid.NewString())
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConf, addr, key, g.service), 0o600); err != nil {
		return nil, err
	}
	s, err := startHTTP(o, g, "HAProxy verifying the same token", addr, program, "-db", "-q", "-f", file)
	if err != nil {
		return nil, err
	}
	// The end of the signature is modified.
	if status, err := askOnce(addr, "Authorization: Bearer "+g.token[:len(g.token)-8]+"AAAAAAAA\r\n"); err != nil || status != http.StatusUnauthorized {
		s.stop()
		return nil, errors.Join(fmt.Errorf("HAProxy answers %d to a token with a wrong signature", status), err)
	}
	return s, nil
}

// writeKey writes the first key of a JWK set to a PEM file.
func writeKey(o *options, from string) (file string, err error) {
	resp, err := client.Get(from)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var set struct{ Keys []struct{ X, Y string } }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) == 0 {
		return "", errors.Join(fmt.Errorf("%s: %s, %d keys", from, resp.Status, len(set.Keys)), err)
	}
	point := []byte{4} // uncompressed
	for _, coordinate := range []string{set.Keys[0].X, set.Keys[0].Y} {
		b, err := base64.RawURLEncoding.DecodeString(coordinate)
		if err != nil {
			return "", err
		}
		point = append(point, b...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	file = filepath.Join(o.dir, uuid.NewString())
	return file, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// caddyfile makes Caddy forward calls. It verifies nothing and writes no log.
const caddyfile = `{
	admin off
	auto_https off
}
http://%s {
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 256
			compression off
		}
	}
}
`

// startCaddy starts Caddy in front of the service of a gate, if it is installed.
func startCaddy(o *options, g *gate) (*httpServer, error) {
	program, err := exec.LookPath("caddy")
	if err != nil {
		return nil, fmt.Errorf("%w: caddy", errMissing)
	}
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, uuid.NewString())
	if err := os.WriteFile(file, fmt.Appendf(nil, caddyfile, addr, g.service), 0o600); err != nil {
		return nil, err
	}
	return startHTTP(o, g, "Caddy", addr, program, "run", "--config", file, "--adapter", "caddyfile")
}

// startHTTP starts a program that receives the same requests as the gate, and waits until it responds.
func startHTTP(o *options, g *gate, name, addr, program string, args ...string) (*httpServer, error) {
	log, err := os.CreateTemp(o.dir, "log-*")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(slices.Clone(os.Environ()), "HOME="+o.dir, "XDG_DATA_HOME="+o.dir, "XDG_CONFIG_HOME="+o.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &httpServer{
		figures: figures{pid: cmd.Process.Pid}, name: name, addr: addr, size: answerSize,
		requests: [][]byte{get(addr, "/services/bench/", g.authorization())},
		stop: func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		},
	}
	const patience = 10 * time.Second
	var status int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if status, err = askOnce(addr, g.authorization()); err == nil && status == http.StatusOK {
			return s, nil
		}
	}
	s.stop()
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("%s did not answer rightly within %s (status %d); its log:\n%s", name, patience, status, text)
}

// askOnce requests the service over a new connection.
func askOnce(addr, header string) (status int, err error) {
	conns := newWires()
	defer conns.close()
	c, err := conns.of(0, addr)
	if err != nil {
		return 0, err
	}
	status, _, err = c.do(http.MethodGet, "/services/bench/", header, nil)
	return status, err
}
