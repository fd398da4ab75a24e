package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/openmep/mep/tests/process"
)

// yardstick runs this program as one of the yardsticks until it is killed. It prints its address.
func yardstick(which string, args []string) error {
	switch which {
	case "yardstick-etcd":
		return yardstickEtcd(args[0])
	case "yardstick-dns":
		return yardstickDNS(args[0], args[1])
	case "yardstick-http":
		return yardstickHTTP(args[0])
	case "yardstick-service":
		return yardstickService()
	case "yardstick-sockets":
		return yardstickSockets()
	case "yardstick-proxy":
		return yardstickProxy(args[0])
	}
	return fmt.Errorf("no yardstick %q", which)
}

// yardstickEtcd is an etcd server on TCP with etcd's default settings.
func yardstickEtcd(dir string) error {
	addr, err := process.FreeAddr()
	if err != nil {
		return err
	}
	peer, err := process.FreeAddr()
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	clientURL, peerURL := url.URL{Scheme: "http", Host: addr}, url.URL{Scheme: "http", Host: peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	cfg.InitialCluster = cfg.Name + "=" + peerURL.String()
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println(addr)
	return <-e.Err()
}

// yardstickHTTP is a bare gin handler that writes the content of a file.
func yardstickHTTP(file string) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.GET("/mec_service_mgmt/v1/services", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", body) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, e)
}

// startYardstick starts this program as a yardstick and returns its address and process id.
func startYardstick(which, arg string) (addr string, pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, nil, err
	}
	cmd := exec.Command(self, which, arg)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	buf := make([]byte, 64)
	got := make(chan struct{})
	go func() {
		n, _ := out.Read(buf)
		buf = buf[:n]
		close(got)
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case <-got:
		return strings.TrimSpace(string(buf)), cmd.Process.Pid, stop, nil
	case <-time.After(20 * time.Second):
		stop()
		return "", 0, nil, fmt.Errorf("%s did not start", which)
	}
}

// etcd is the yardstick etcd with its clients.
type etcd struct {
	pid     int
	addr    string
	clients []*clientv3.Client
	process func()
}

// startEtcd starts an empty etcd and creates clients with a connection each.
func startEtcd(o *options, conns int) (*etcd, error) {
	addr, pid, stop, err := startYardstick("yardstick-etcd", filepath.Join(o.dir, uuid.NewString()))
	if err != nil {
		return nil, err
	}
	e := &etcd{pid: pid, addr: addr, process: stop}
	for range conns {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
		if err != nil {
			e.stop()
			return nil, err
		}
		e.clients = append(e.clients, c)
	}
	return e, nil
}

// of returns the client of a worker.
func (e *etcd) of(worker int) *clientv3.Client { return e.clients[worker%len(e.clients)] }

func (e *etcd) stop() {
	for _, c := range e.clients {
		_ = c.Close()
	}
	e.process()
}
