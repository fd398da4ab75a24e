package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/pki"
)

// own is a configuration that issues certificates in a directory.
func own(dir string, c *clock, names ...string) pki.Config {
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1", "::1"}
	}
	return pki.Config{Dir: dir, Now: c.now, Names: func() ([]string, error) { return names, nil }}
}

func open(t *testing.T, cfg pki.Config) *pki.Keeper {
	t.Helper()
	k, err := pki.Open(cfg)
	require.NoError(t, err)
	return k
}

func TestFirstStartMakesACAAndACertificate(t *testing.T) {
	// The umask does not affect what clients must be able to read.
	defer syscall.Umask(syscall.Umask(0o077))
	c, dir, reg, log := newClock(), filepath.Join(t.TempDir(), "data", "pki"), prometheus.NewRegistry(), new(journal)
	cfg := own(dir, c)
	cfg.Registerer, cfg.Log = reg, log.logger()
	k := open(t, cfg)
	require.Equal(t, filepath.Join(dir, "ca.crt"), k.CAFile())
	require.NoError(t, k.Fault())

	for file, mode := range map[string]os.FileMode{"": 0o755, "ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), file)
	}
	ca, leaf := parse(t, read(t, k.CAFile())), parse(t, read(t, filepath.Join(dir, "server.crt")))
	require.Regexp(t, `^CN=mep CA [0-9a-f]{8}$`, ca.Subject.String())
	require.True(t, ca.IsCA)
	require.True(t, ca.MaxPathLenZero)
	require.Equal(t, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, ca.KeyUsage)
	require.NotEmpty(t, ca.SubjectKeyId)
	require.Equal(t, c.now().Add(3650*day).Unix(), ca.NotAfter.Unix())
	require.Equal(t, c.now().Add(-time.Hour).Unix(), ca.NotBefore.Unix())
	require.Equal(t, ca.SubjectKeyId, leaf.AuthorityKeyId)
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, leaf.ExtKeyUsage)
	require.Equal(t, c.now().Add(90*day).Unix(), leaf.NotAfter.Unix())
	require.Equal(t, c.now().Add(-time.Hour).Unix(), leaf.NotBefore.Unix())
	require.Greater(t, leaf.SerialNumber.BitLen(), 96)
	require.InDelta(t, leaf.NotAfter.Unix(), metric(t, reg, "expiry_timestamp_seconds", "server"), 0)
	require.InDelta(t, ca.NotAfter.Unix(), metric(t, reg, "expiry_timestamp_seconds", "server-ca"), 0)
	require.Zero(t, metric(t, reg, "bad", "server"))
	require.Empty(t, pki.Check(pki.Files{
		Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), CA: k.CAFile(),
		Names: []string{"localhost", "127.0.0.1", "::1"}, Usage: x509.ExtKeyUsageServerAuth, Within: 30 * day,
	}, c.now()))

	addr := serve(t, k.ServerConfig())
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		config := trusting(t, c, read(t, k.CAFile()))
		config.ServerName = name
		require.True(t, leaf.Equal(leafSeen(t, addr, config)), name)
	}
}

func TestSecondStartChangesNothing(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	open(t, own(dir, c))
	before := contents(t, dir)
	c.advance(30 * day)
	open(t, own(dir, c))
	require.Equal(t, before, contents(t, dir))
}

// contents returns the CA and the server's pair.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, file := range []string{"ca.crt", "ca.key", "server.crt", "server.key"} {
		all[file] = string(read(t, filepath.Join(dir, file)))
	}
	return all
}

func TestServerCertificateIsIssuedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string, c *clock)
		names  []string
		reason string
	}{
		{name: "missing", reason: "server.crt is missing", change: func(t *testing.T, dir string, _ *clock) {
			require.NoError(t, os.Remove(filepath.Join(dir, "server.crt")))
		}},
		{name: "its key missing", reason: "server.key is missing", change: func(t *testing.T, dir string, _ *clock) {
			require.NoError(t, os.Remove(filepath.Join(dir, "server.key")))
		}},
		{name: "empty", reason: "holds no certificate", change: func(t *testing.T, dir string, _ *clock) {
			write(t, filepath.Join(dir, "server.crt"), nil)
		}},
		{name: "its key is another", reason: "is not the key", change: func(t *testing.T, dir string, _ *clock) {
			write(t, filepath.Join(dir, "server.key"), keyToPEM(t, newKey(t)))
		}},
		{name: "of another CA", reason: "not issued by the present CA", change: func(t *testing.T, dir string, c *clock) {
			certPEM, keyPEM := newIssuer(t, "stranger", c.now()).issue(t, newKey(t), nil)
			write(t, filepath.Join(dir, "server.crt"), certPEM)
			write(t, filepath.Join(dir, "server.key"), keyPEM)
		}},
		{name: "expired", reason: "expired on", change: func(_ *testing.T, _ string, c *clock) { c.advance(91 * day) }},
		{name: "past two thirds", reason: "two thirds", change: func(_ *testing.T, _ string, c *clock) { c.advance(61 * day) }},
		{name: "clock was ahead", reason: "not valid before", change: func(_ *testing.T, _ string, c *clock) { c.advance(-2 * time.Hour) }},
		{name: "host name added", reason: "it is not for mep.example.com", names: []string{"localhost", "mep.example.com"}},
		{name: "address added", reason: "it is not for 192.0.2.1", names: []string{"localhost", "192.0.2.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, when := range []string{"at the start", "while running"} {
				t.Run(when, func(t *testing.T) {
					c, dir, log := newClock(), t.TempDir(), new(journal)
					names := []string{"localhost"}
					cfg := own(dir, c)
					cfg.Names = func() ([]string, error) { return names, nil }
					cfg.Log = log.logger()
					k := open(t, cfg)
					ca := read(t, k.CAFile())
					addr := serve(t, k.ServerConfig())
					before := leafSeen(t, addr, trusting(t, c, ca))
					if tt.change != nil {
						tt.change(t, dir, c)
					}
					if tt.names != nil {
						names = tt.names
					}
					if when == "at the start" {
						k = open(t, cfg)
						addr = serve(t, k.ServerConfig())
					} else {
						require.NoError(t, k.Reload())
					}
					require.Len(t, log.lines("certificate issued", tt.reason), 1)
					config := trusting(t, c, ca)
					if tt.name == "clock was ahead" {
						// The CA was renewed too.
						config = trusting(t, c, read(t, k.CAFile()))
					}
					after := leafSeen(t, addr, config)
					require.False(t, before.Equal(after))
					require.NotEqual(t, before.PublicKey, after.PublicKey)
					for _, n := range names {
						require.NoError(t, after.VerifyHostname(n))
					}
					require.NoError(t, k.Reload())
					require.True(t, after.Equal(leafSeen(t, addr, config)), "it is issued once")
				})
			}
		})
	}
}

func TestFewerNamesAreNoReasonForANewCertificate(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	open(t, own(dir, c, "localhost", "mep.example.com", "192.0.2.1"))
	before := contents(t, dir)
	open(t, own(dir, c, "localhost"))
	require.Equal(t, before, contents(t, dir))
}

func TestRenewedCAIsTrustedByThoseWhoHaveTheOld(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	k := open(t, own(dir, c))
	old := read(t, k.CAFile())
	key := read(t, filepath.Join(dir, "ca.key"))
	addr := serve(t, k.ServerConfig())

	c.advance(8*365*day - time.Hour)
	require.NoError(t, k.Reload())
	require.Equal(t, old, read(t, k.CAFile()), "two years are left")
	c.advance(2 * time.Hour)
	require.NoError(t, k.Reload())
	renewed := read(t, k.CAFile())
	require.NotEqual(t, old, renewed)
	was, is := parse(t, old), parse(t, renewed)
	require.Equal(t, was.RawSubject, is.RawSubject)
	require.Equal(t, was.SubjectKeyId, is.SubjectKeyId)
	require.Equal(t, was.PublicKey, is.PublicKey)
	require.NotEqual(t, was.SerialNumber, is.SerialNumber)
	require.Equal(t, key, read(t, filepath.Join(dir, "ca.key")))

	// Some time later the server has a certificate that was issued after the renewal.
	c.advance(100 * day)
	require.NoError(t, k.Reload())
	for name, ca := range map[string][]byte{"old": old, "renewed": renewed} {
		leaf := leafSeen(t, addr, trusting(t, c, ca))
		require.True(t, leaf.NotBefore.After(is.NotBefore), name)
	}
	// Once the old one has expired, only the renewed one is of use.
	c.advance(2 * 365 * day)
	require.NoError(t, k.Reload())
	_, _, err := dial(addr, trusting(t, c, old))
	require.ErrorContains(t, err, "expired")
	leafSeen(t, addr, trusting(t, c, renewed))
}

func TestCABroughtAlongKeepsItsNameWhenItIsRenewed(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	theirs := newIssuer(t, "their CA", c.now())
	write(t, filepath.Join(dir, "ca.crt"), theirs.pem())
	write(t, filepath.Join(dir, "ca.key"), keyToPEM(t, theirs.key))
	k := open(t, own(dir, c))
	require.Equal(t, theirs.pem(), read(t, k.CAFile()))
	c.advance(9 * 365 * day)
	require.NoError(t, k.Reload())
	renewed := parse(t, read(t, k.CAFile()))
	require.False(t, theirs.cert.Equal(renewed))
	require.Equal(t, theirs.cert.RawSubject, renewed.RawSubject)
	require.Equal(t, theirs.cert.SubjectKeyId, renewed.SubjectKeyId)
	leafSeen(t, serve(t, k.ServerConfig()), trusting(t, c, theirs.pem()))
}

// TestExpiredCAIsRenewedWithItsKey has a clock without a battery, which starts in the past or makes its CA there.
func TestExpiredCAIsRenewedWithItsKey(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	right := c.now()
	c.advance(-30 * 365 * day)
	k := open(t, own(dir, c))
	was := parse(t, read(t, k.CAFile()))
	c.advance(right.Sub(c.now()))
	require.NoError(t, k.Reload())
	is := parse(t, read(t, k.CAFile()))
	require.Equal(t, was.PublicKey, is.PublicKey)
	require.Equal(t, was.RawSubject, is.RawSubject)
	leafSeen(t, serve(t, k.ServerConfig()), trusting(t, c, read(t, k.CAFile())))
}

func TestStateAProcessWasKilledIn(t *testing.T) {
	c := newClock()
	for _, tt := range []struct {
		name string
		// keep are the files that were written.
		keep []string
		// torn are temporary files that were being written.
		torn  []string
		wrong func(t *testing.T, dir string)
		// sameCA says that a CA existed, so that it must exist afterwards.
		sameCA bool
	}{
		{name: "nothing yet"},
		{name: "key of the CA half written", torn: []string{"ca.key.tmp"}},
		{name: "key of the CA written", keep: []string{"ca.key"}, sameCA: true},
		{name: "CA half written", keep: []string{"ca.key"}, torn: []string{"ca.crt.tmp"}, sameCA: true},
		{name: "CA written", keep: []string{"ca.key", "ca.crt"}, sameCA: true},
		{name: "key of the server half written", keep: []string{"ca.key", "ca.crt"}, torn: []string{"server.key.tmp"}, sameCA: true},
		{name: "key of the server written", keep: []string{"ca.key", "ca.crt", "server.key"}, sameCA: true},
		{name: "server half written", keep: []string{"ca.key", "ca.crt", "server.key"}, torn: []string{"server.crt.tmp"}, sameCA: true},
		{name: "server renewed by half", keep: []string{"ca.key", "ca.crt", "server.key", "server.crt"}, sameCA: true,
			wrong: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "server.key"), keyToPEM(t, newKey(t))) }},
		{name: "CA being renewed", keep: []string{"ca.key", "ca.crt", "server.key", "server.crt"}, torn: []string{"ca.crt.tmp"}, sameCA: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			whole, dir := t.TempDir(), t.TempDir()
			open(t, own(whole, c))
			for _, file := range tt.keep {
				write(t, filepath.Join(dir, file), read(t, filepath.Join(whole, file)))
			}
			for _, file := range tt.torn {
				write(t, filepath.Join(dir, file), []byte("-----BEGIN"))
			}
			if tt.wrong != nil {
				tt.wrong(t, dir)
			}
			k := open(t, own(dir, c))
			addr := serve(t, k.ServerConfig())
			leafSeen(t, addr, trusting(t, c, read(t, k.CAFile())))
			_, _, err := dial(addr, trusting(t, c, read(t, filepath.Join(whole, "ca.crt"))))
			if tt.sameCA {
				require.NoError(t, err, "who trusted the CA goes on doing so")
			} else {
				require.Error(t, err)
			}
			for _, file := range tt.torn {
				if len(tt.keep) < 4 {
					require.NoFileExists(t, filepath.Join(dir, file))
				} // else nothing was due; the file is replaced when it is next written
			}
			info, err := os.Stat(filepath.Join(dir, "server.key"))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		})
	}
}

func TestDamagedCAIsRefusedAndKept(t *testing.T) {
	c := newClock()
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		kind   pki.Kind
		file   string
		says   string
	}{
		{"key missing", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "ca.key")))
		}, pki.Unreadable, "ca.key", "restore it from a backup, or remove ca.crt to make a new CA"},
		{"another key", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "ca.key"), keyToPEM(t, newKey(t)))
		}, pki.KeyMismatch, "ca.key", "restore ca.crt and ca.key from a backup, or remove both"},
		{"empty key", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "ca.key"), nil)
		}, pki.Malformed, "ca.key", "restore ca.crt and ca.key"},
		{"empty certificate", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "ca.crt"), nil)
		}, pki.Malformed, "ca.crt", "restore ca.crt and ca.key"},
		{"key is a directory", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "ca.key")))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "ca.key"), 0o700))
		}, pki.Unreadable, "ca.key", "not a regular file"},
		{"certificate of an intermediate CA", func(t *testing.T, dir string) {
			certPEM, keyPEM := newIssuer(t, "root", c.now()).issue(t, newKey(t), func(x *x509.Certificate) {
				x.IsCA, x.BasicConstraintsValid, x.KeyUsage = true, true, x509.KeyUsageCertSign
			})
			write(t, filepath.Join(dir, "ca.crt"), certPEM)
			write(t, filepath.Join(dir, "ca.key"), keyPEM)
		}, pki.WrongUsage, "ca.crt", "not the certificate of a self-signed CA"},
		{"certificate missing, and it was not ours", func(t *testing.T, dir string) {
			i := newIssuer(t, "their CA", c.now())
			certPEM, keyPEM := i.issue(t, newKey(t), nil)
			write(t, filepath.Join(dir, "server.crt"), certPEM)
			write(t, filepath.Join(dir, "server.key"), keyPEM)
			write(t, filepath.Join(dir, "ca.key"), keyToPEM(t, i.key))
			require.NoError(t, os.Remove(filepath.Join(dir, "ca.crt")))
		}, pki.Unreadable, "ca.crt", "remove ca.key to make a new CA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, log := t.TempDir(), new(journal)
			cfg := own(dir, c)
			cfg.Log = log.logger()
			running := open(t, cfg)
			addr, ca := serve(t, running.ServerConfig()), read(t, running.CAFile())
			tt.change(t, dir)
			before, err := os.ReadDir(dir)
			require.NoError(t, err)

			_, err = pki.Open(own(dir, c))
			require.Contains(t, requireFault(t, err, tt.kind, filepath.Join(dir, tt.file)), tt.says)

			require.Error(t, running.Reload())
			require.Error(t, running.Reload())
			require.Error(t, running.Fault())
			require.Len(t, log.lines("not in order"), 1)
			leafSeen(t, addr, trusting(t, c, ca))

			after, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, after, len(before))
		})
	}
}

func TestCAIsNotMadeUnderARunningProcess(t *testing.T) {
	c, dir := newClock(), filepath.Join(t.TempDir(), "pki")
	k := open(t, own(dir, c))
	addr, ca := serve(t, k.ServerConfig()), read(t, k.CAFile())
	require.NoError(t, os.RemoveAll(dir))
	_ = requireFault(t, k.Reload(), pki.Unreadable, k.CAFile())
	require.NoDirExists(t, dir)
	leafSeen(t, addr, trusting(t, c, ca))
}

func TestCAThatWasReplacedByHandIsTakenUp(t *testing.T) {
	c, dir, log := newClock(), t.TempDir(), new(journal)
	cfg := own(dir, c)
	cfg.Log = log.logger()
	k := open(t, cfg)
	addr := serve(t, k.ServerConfig())
	require.NoError(t, os.Remove(filepath.Join(dir, "ca.crt")))
	require.NoError(t, os.Remove(filepath.Join(dir, "ca.key")))
	open(t, cfg)
	require.Len(t, log.lines("level=WARN", "clients must be given the new one"), 1)
	require.NoError(t, k.Reload())
	leafSeen(t, addr, trusting(t, c, read(t, k.CAFile())))
}

func TestRenewalThatCannotBeWritten(t *testing.T) {
	c, dir, reg, log := newClock(), t.TempDir(), prometheus.NewRegistry(), new(journal)
	cfg := own(dir, c)
	cfg.Registerer, cfg.Log = reg, log.logger()
	open(t, cfg)
	before := contents(t, dir)
	// Even root cannot write this.
	obstacle := filepath.Join(dir, "server.key.tmp")
	require.NoError(t, os.MkdirAll(filepath.Join(obstacle, "full"), 0o700))
	c.advance(61 * day)

	k, err := pki.Open(cfg)
	require.NoError(t, err, "the certificate is good for another month")
	addr, ca := serve(t, k.ServerConfig()), read(t, k.CAFile())
	leafSeen(t, addr, trusting(t, c, ca))
	require.ErrorContains(t, k.Reload(), "write the key of the server")
	require.ErrorContains(t, k.Fault(), "write the key of the server")
	require.Len(t, log.lines("not in order"), 1)
	require.InDelta(t, 1, metric(t, reg, "bad", "server"), 0)
	require.Equal(t, before, contents(t, dir))

	require.NoError(t, os.RemoveAll(obstacle))
	require.NoError(t, k.Reload())
	require.NoError(t, k.Fault())
	require.Zero(t, metric(t, reg, "bad", "server"))
	require.Len(t, log.lines("in order again"), 1)
	require.NotEqual(t, before, contents(t, dir))
	c.advance(60 * day)
	leafSeen(t, addr, trusting(t, c, ca))
}

func TestExpiredCertificateThatCannotBeRenewedIsRefusedAtTheStart(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	open(t, own(dir, c))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "server.key.tmp", "full"), 0o700))
	c.advance(91 * day)
	_, err := pki.Open(own(dir, c))
	require.ErrorContains(t, err, "write the key of the server")
}

func TestNamesThatCannotBeHad(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	var names []string
	var fault error
	cfg := own(dir, c)
	cfg.Names = func() ([]string, error) { return names, fault }
	_, err := pki.Open(cfg)
	require.ErrorContains(t, err, "no name")
	names = []string{"localhost"}
	k := open(t, cfg)
	fault = fmt.Errorf("the interfaces are in a mess")
	require.ErrorIs(t, k.Reload(), fault)
	leafSeen(t, serve(t, k.ServerConfig()), trusting(t, c, read(t, k.CAFile())))
}

func TestTwoNamesShareACA(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	server := own(dir, c, "localhost")
	other := own(dir, c, "other.example.com")
	other.Name = "other"
	k := open(t, server)
	before := contents(t, dir)
	o := open(t, other)
	require.NoError(t, k.Reload())
	require.NoError(t, o.Reload())
	require.Equal(t, before, contents(t, dir))
	config := trusting(t, c, read(t, k.CAFile()))
	config.ServerName = "other.example.com"
	leafSeen(t, serve(t, o.ServerConfig()), config)
}

func TestManyStartsAtOnceMakeOneCA(t *testing.T) {
	c, dir := newClock(), filepath.Join(t.TempDir(), "pki")
	const starts = 8
	keepers, faults := make([]*pki.Keeper, starts), make([]error, starts)
	var wg sync.WaitGroup
	for i := range starts {
		wg.Go(func() { keepers[i], faults[i] = pki.Open(own(dir, c)) })
	}
	wg.Wait()
	ca, leaf := read(t, filepath.Join(dir, "ca.crt")), parse(t, read(t, filepath.Join(dir, "server.crt")))
	for i := range starts {
		require.NoError(t, faults[i])
		require.True(t, leaf.Equal(leafSeen(t, serve(t, keepers[i].ServerConfig()), trusting(t, c, ca))))
	}
}

// victimDir names the directory in which a separate process makes certificates until it is killed.
const victimDir = "PKI_TEST_VICTIM_DIR"

func victim(dir string) {
	fmt.Println("ready")
	for {
		if _, err := pki.Open(own(dir, newClock())); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_ = os.Remove(filepath.Join(dir, "server.crt"))
	}
}

func TestKilledProcess(t *testing.T) {
	for i := range 12 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c, dir := newClock(), filepath.Join(t.TempDir(), "pki")
			var start sync.WaitGroup
			var victims []*exec.Cmd
			for range 2 {
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), victimDir+"="+dir)
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				victims = append(victims, cmd)
				start.Go(func() { _, _ = io.ReadFull(out, make([]byte, len("ready\n"))) })
			}
			start.Wait()
			// Any instant will do: the invariants do not depend on it.
			time.Sleep(rand.N(4 * time.Millisecond))
			for _, v := range victims {
				require.NoError(t, v.Process.Kill())
				require.ErrorContains(t, v.Wait(), "killed")
			}
			var trusted []byte
			if _, err := os.Stat(filepath.Join(dir, "ca.crt")); err == nil {
				trusted = read(t, filepath.Join(dir, "ca.crt"))
			}
			k := open(t, own(dir, c))
			ca := read(t, k.CAFile())
			if trusted != nil {
				require.Equal(t, string(trusted), string(ca))
			}
			leafSeen(t, serve(t, k.ServerConfig()), trusting(t, c, ca))
			_, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
			require.NoError(t, err)
		})
	}
}
