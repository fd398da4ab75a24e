package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/pki"
)

// errStopped means that the embedded etcd does not run, because the platform does not.
var errStopped = errors.New("the platform does not run")

// slow is how long a read may take that needs a majority of the members.
const slow = 500 * time.Millisecond

// connect connects to etcd as the platform does, or to the etcd within a running platform.
func (x *examination) connect() (*etcd.Store, error) {
	switch {
	case !x.embedded():
		return node.DialOnce(x.Common)
	case x.up.lockErr != nil:
		return nil, fmt.Errorf("it is not known whether the platform runs: %w", x.up.lockErr)
	case !x.up.held:
		return nil, errStopped
	case x.up.socket == "":
		return nil, fmt.Errorf("%s does not say how its etcd is reached", x.up.holder)
	}
	return etcd.Dial(etcd.Config{Endpoints: []string{x.up.socket}, Timeout: patience})
}

// etcd examines the embedded etcd, or each member of an external one.
func (x *examination) etcd(ctx context.Context, f *findings) {
	if !x.embedded() {
		x.external(ctx, f)
		return
	}
	store, err := x.store()
	switch {
	case errors.Is(err, errStopped):
		x.resting(f)
		return
	case err != nil:
		f.note("embedded etcd", "cannot be asked ("+err.Error()+")")
		return
	}
	m := x.members()[0]
	if m.status == nil {
		f.fail(m.endpoint, m.problem, m.remedy)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x.cluster(ctx, f, store, "embedded etcd", []*clientv3.StatusResponse{m.status})
}

// resting examines the database while nobody uses it.
func (x *examination) resting(f *findings) {
	file := x.within("etcd", "member", "snap", "db")
	info, err := os.Stat(file)
	if err != nil {
		f.note("embedded etcd", "does not run, and has no database that can be seen")
		return
	}
	// The file grows by this much at a time.
	const step = 16 << 20
	text := fmt.Sprintf("has %s, storage.quota is %s; more is known while the platform runs", amount(info.Size()), amount(x.Quota))
	if (info.Size()-step)*10 >= x.Quota*9 {
		f.warn(file, text, "raise storage.quota; above it, changes are refused")
		return
	}
	f.note(file, text)
}

// member is an endpoint and the result of asking it.
type member struct {
	endpoint        string
	problem, remedy string
	status          *clientv3.StatusResponse
}

// external examines an external etcd.
func (x *examination) external(ctx context.Context, f *findings) {
	c := x.Common
	var faults []pki.Fault
	if c.EtcdCA != "" {
		faults = pki.Check(pki.Files{CA: c.EtcdCA, Within: soon}, x.host.now())
	}
	if c.EtcdCert != "" {
		faults = append(faults, pki.Check(pki.Files{
			Cert: c.EtcdCert, Key: c.EtcdKey, Usage: x509.ExtKeyUsageClientAuth, Within: soon,
		}, x.host.now())...)
	}
	f.faults(faults)
	store, err := x.store()
	if err != nil {
		if f.worst() != Fail {
			f.fail("etcd.endpoints", "cannot be used ("+err.Error()+")", "correct it")
		}
		return
	}
	x.answered(ctx, f, store, x.members())
}

// ask asks every known member for its status. It asks none if there is no connection to be had.
func (x *examination) ask(ctx context.Context) []member {
	store, err := x.store()
	if err != nil {
		return nil
	}
	endpoints, w := x.Common.EtcdEndpoints, way{"etcd.endpoints", "etcd.ca", "etcd.cert and etcd.key", "see whether etcd listens there for clients, and its log"}
	if x.embedded() {
		endpoints, w = []string{x.up.socket}, way{address: "the address in " + x.LockFile, log: "look at the log of the platform"}
	}
	config, err := x.etcdTLS()
	if err != nil {
		return nil // store has failed, too
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	members := make([]member, len(endpoints))
	var all sync.WaitGroup
	for i, endpoint := range endpoints {
		all.Go(func() { members[i] = w.ask(ctx, store, endpoint, config) })
	}
	all.Wait()
	return members
}

// away reports whether none of the members answers.
func (x *examination) away() bool {
	return !slices.ContainsFunc(x.members(), func(m member) bool { return m.status != nil })
}

// answered reports how the members responded.
func (x *examination) answered(ctx context.Context, f *findings, store *etcd.Store, members []member) {
	var answered []*clientv3.StatusResponse
	for _, m := range members {
		if m.status != nil {
			answered = append(answered, m.status)
		}
	}
	for _, m := range members {
		switch {
		case m.status == nil && len(answered) == 0:
			f.fail(m.endpoint, m.problem, m.remedy)
		case m.status == nil:
			f.warn(m.endpoint, m.problem, m.remedy)
		case m.status.IsLearner:
			f.warn(m.endpoint, "is a learner, which answers neither reads nor writes", "promote it with etcdctl member promote, or take it out of etcd.endpoints")
		default:
			f.ok(m.endpoint, "runs etcd "+m.status.Version)
		}
	}
	if len(answered) > 0 {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		x.cluster(ctx, f, store, "etcd", answered)
	}
}

// etcdTLS returns the configuration of the connections to etcd; nil if they are plain.
func (x *examination) etcdTLS() (*tls.Config, error) {
	c := x.Common
	encrypted := c.EtcdCA != "" || c.EtcdCert != "" || slices.ContainsFunc(c.EtcdEndpoints, func(e string) bool {
		return strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://")
	})
	if !encrypted {
		return nil, nil
	}
	client, err := pki.OpenClient(pki.ClientConfig{CAFile: c.EtcdCA, CertFile: c.EtcdCert, KeyFile: c.EtcdKey, Now: x.host.now})
	if err != nil {
		return nil, err
	}
	return client.Config(), nil
}

// ask asks one member for its status.
func (w way) ask(ctx context.Context, store *etcd.Store, endpoint string, config *tls.Config) member {
	m := member{endpoint: endpoint}
	err := knock(ctx, endpoint, config)
	if err != nil {
		m.problem, m.remedy = w.explain(err)
		return m
	}
	within, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	if m.status, err = store.Client.Status(within, endpoint); err == nil {
		return m
	}
	m.status = nil
	if config == nil && speaksTLS(ctx, endpoint) {
		m.problem, m.remedy = "speaks TLS, and is asked without", "write it with https:// in etcd.endpoints, and set etcd.ca"
		return m
	}
	m.problem, m.remedy = "takes connections, but does not answer as etcd does ("+err.Error()+")", w.log
	return m
}

// cluster examines what the members say about the whole cluster.
func (x *examination) cluster(ctx context.Context, f *findings, store *etcd.Store, subject string, members []*clientv3.StatusResponse) {
	leaderless := 0
	for _, m := range members {
		if m.Leader == 0 {
			leaderless++
		}
		if m.Header.ClusterId != members[0].Header.ClusterId {
			f.fail("etcd.endpoints", "belong to different clusters", "name the members of one cluster only")
			return
		}
	}
	if leaderless == len(members) {
		f.fail(subject, "has no leader: too few members run, and changes are refused", "start the members that are missing (etcdctl endpoint status --cluster)")
		return
	}
	x.reading(ctx, f, store, subject)
	if !x.embedded() {
		if list, err := store.Client.MemberList(ctx); err == nil {
			membership(f, list.Members)
		}
	}
	if alarms, err := store.Client.AlarmList(ctx); err == nil {
		for _, a := range alarms.Alarms {
			x.alarm(f, subject, a.Alarm)
		}
	}
	fullest := slices.MaxFunc(members, func(a, b *clientv3.StatusResponse) int { return cmp.Compare(a.DbSize, b.DbSize) })
	x.size(f, subject, fullest)
}

// reading performs a read that needs a majority.
func (x *examination) reading(ctx context.Context, f *findings, store *etcd.Store, subject string) {
	begin := time.Now()
	_, err := store.Client.Get(ctx, state.Root, clientv3.WithCountOnly())
	took := time.Since(begin).Round(100 * time.Microsecond)
	switch {
	case err != nil:
		f.fail(subject, "does not answer a read ("+err.Error()+")", "see whether a majority of the members runs, and their logs")
	case took > slow:
		f.warn(subject, fmt.Sprintf("answered a read after %s", took), "look at the disks and the load of the members, and at the network between them")
	default:
		f.ok(subject, fmt.Sprintf("answered a read after %s", took))
	}
}

// membership checks which members the cluster has.
func membership(f *findings, list []*etcdserverpb.Member) {
	var voters int
	for _, m := range list {
		if m.IsLearner {
			continue
		}
		if voters++; m.Name == "" {
			f.warn("etcd", fmt.Sprintf("has a member at %s that never started", strings.Join(m.PeerURLs, " ")),
				fmt.Sprintf("start it, or take it out with etcdctl member remove %x", m.ID))
		}
	}
	switch {
	case voters == 1:
		f.note("etcd", "has one member: when that is away, changes are refused")
	case voters%2 == 0:
		f.warn("etcd", fmt.Sprintf("has %d members, and outlasts the loss of no more of them than %d would", voters, voters-1), "add a member, or take one out")
	default:
		f.ok("etcd", fmt.Sprintf("has %d members", voters))
	}
}

// alarm reports what an alarm of etcd means.
func (x *examination) alarm(f *findings, subject string, alarm etcdserverpb.AlarmType) {
	switch {
	case alarm == etcdserverpb.AlarmType_NOSPACE && x.embedded():
		f.fail(subject, "has reached its quota: changes are refused", "wait a minute, in which old revisions are removed; if that does not help, raise storage.quota and restart, or have services removed")
	case alarm == etcdserverpb.AlarmType_NOSPACE:
		f.fail(subject, "has reached its quota: changes are refused", "compact and defragment it, then etcdctl alarm disarm; or raise --quota-backend-bytes of etcd")
	case alarm == etcdserverpb.AlarmType_CORRUPT:
		f.fail(subject, "has found out that its members hold different data", "follow etcd's documentation on data corruption, or restore a backup")
	default:
		f.fail(subject, "raised the alarm "+alarm.String(), "see etcd's documentation")
	}
}

// size compares the database with its quota.
func (x *examination) size(f *findings, subject string, m *clientv3.StatusResponse) {
	quota := m.DbSizeQuota
	if quota == 0 && x.embedded() {
		quota = x.Quota
	}
	text := fmt.Sprintf("has a database of %s, %s of it in use", amount(m.DbSize), amount(m.DbSizeInUse))
	if quota <= 0 {
		f.ok(subject, text)
		return
	}
	text += "; the quota is " + amount(quota)
	setting := "--quota-backend-bytes of etcd"
	if x.embedded() {
		setting = "storage.quota"
	}
	switch {
	case m.DbSizeInUse*10 >= quota*8:
		f.warn(subject, text, "raise "+setting+", or have services removed; above it, changes are refused")
	case m.DbSize*10 >= quota*9 && !x.embedded():
		f.warn(subject, text, "give room back with etcdctl defrag, one member after the other")
	default:
		f.ok(subject, text)
	}
}

// amount formats a size in bytes for people.
func amount(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
