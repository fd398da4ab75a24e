package doctor

import (
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEtcd(t *testing.T) {
	each(t, checkEtcd, map[string]broken{
		"the embedded one has gone": {
			of: running, by: func(_ *testing.T, f *fixture) { f.etcd.Stop() },
			finding: "is a socket that does not exist", remedy: "lock",
		},
		"the embedded one has no room": {of: running, by: noRoom, finding: "has reached its quota", remedy: "storage.quota"},
		"one beside it has no room":    {of: outside, by: noRoom, finding: "has reached its quota", remedy: "etcdctl alarm disarm"},
		"a database that has grown": {
			by: func(t *testing.T, f *fixture) {
				require.NoError(t, os.Truncate(f.path("etcd/member/snap/db"), 2000*mib))
			},
			level: Warn, finding: "has 2000 MiB, storage.quota is 2048 MiB", remedy: "raise storage.quota",
		},
		"one of two endpoints does not answer": {
			of: outside, by: func(t *testing.T, f *fixture) {
				f.Common.EtcdEndpoints = append(f.Common.EtcdEndpoints, free(t))
			},
			level: Warn, finding: "refuses connections", remedy: "correct etcd.endpoints",
		},
		"the only endpoint does not answer": {
			of: outside, by: func(t *testing.T, f *fixture) { f.Common.EtcdEndpoints = []string{"http://" + free(t)} },
			finding: "refuses connections", remedy: "correct etcd.endpoints",
		},
		"something else answers": {
			of: outside, by: func(t *testing.T, f *fixture) { f.Common.EtcdEndpoints = []string{serverAt(t, time.Now(), "hello")} },
			finding: "does not answer as etcd does", remedy: "whether etcd listens there",
		},
		"it has TLS": {
			of: outside, by: func(t *testing.T, f *fixture) {
				_, address, _ := hostOf(secured(t, newCA(t), false))
				f.Common.EtcdEndpoints = []string{address}
			},
			finding: "speaks TLS, and is asked without", remedy: "https://",
		},
		"its CA is missing": {
			of: outside, by: func(_ *testing.T, f *fixture) { f.Common.EtcdCA = "/nowhere/etcd.crt" },
			finding: "/nowhere/etcd.crt does not exist", remedy: "correct the path",
		},
		"its client certificate is for servers": {
			of: outside, by: func(t *testing.T, f *fixture) {
				f.connect(t, false)
				f.Common.EtcdCert, f.Common.EtcdKey = newCA(t).issue(t, func(c *x509.Certificate) {
					c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				})
			},
			finding: "other purposes than clientAuth", remedy: "extended key usage",
		},
		"its CA is another": {
			of: outside, by: func(t *testing.T, f *fixture) {
				f.connect(t, false)
				f.Common.EtcdCA = newCA(t).file
			},
			finding: "shows a certificate of a CA that is not trusted here", remedy: "set etcd.ca",
		},
		"it wants a client certificate": {
			of: outside, by: func(t *testing.T, f *fixture) { f.connect(t, true) },
			finding: "does not take our certificate, or wants one", remedy: "set etcd.cert and etcd.key",
		},
		"it wants another client certificate": {
			of: outside, by: func(t *testing.T, f *fixture) {
				f.connect(t, true)
				f.Common.EtcdCert, f.Common.EtcdKey = newCA(t).issue(t, nil)
			},
			finding: "does not take our certificate, or wants one", remedy: "set etcd.cert and etcd.key",
		},
	})
	t.Run("with client certificates, in order", func(t *testing.T) {
		f := outside(t)
		f.Common.EtcdCert, f.Common.EtcdKey = f.connect(t, true).issue(t, nil)
		require.Empty(t, alarming(examine(t.Context(), f.Installation, f.host)))
	})
}

// noRoom raises etcd's alarm for a database that has reached its quota.
func noRoom(t *testing.T, f *fixture) {
	client := f.etcd.Client(t)
	_, err := etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(), &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: etcdserverpb.AlarmType_NOSPACE,
	})
	require.NoError(t, err)
}

func TestMembers(t *testing.T) {
	named := func(name string) *etcdserverpb.Member {
		return &etcdserverpb.Member{ID: 0xab, Name: name, PeerURLs: []string{"http://p:2380"}}
	}
	learner := &etcdserverpb.Member{Name: "l", IsLearner: true}
	for name, x := range map[string]struct {
		members []*etcdserverpb.Member
		levels  []Level
		says    string
	}{
		"one":               {[]*etcdserverpb.Member{named("a")}, []Level{Note}, "has one member"},
		"three":             {[]*etcdserverpb.Member{named("a"), named("b"), named("c")}, []Level{OK}, "has 3 members"},
		"a learner besides": {[]*etcdserverpb.Member{named("a"), named("b"), named("c"), learner}, []Level{OK}, "has 3 members"},
		"two":               {[]*etcdserverpb.Member{named("a"), named("b")}, []Level{Warn}, "has 2 members, and outlasts the loss of no more of them than 1 would"},
		"never started":     {[]*etcdserverpb.Member{named("a"), named("b"), named("")}, []Level{Warn, OK}, "http://p:2380 that never started"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &findings{}
			membership(f, x.members)
			var levels []Level
			for _, one := range f.list {
				levels = append(levels, one.Level)
			}
			require.Equal(t, x.levels, levels)
			require.Contains(t, f.list[0].Finding, x.says)
		})
	}
}

func TestAClusterThatIsNone(t *testing.T) {
	member := func(cluster, leader uint64) *clientv3.StatusResponse {
		return &clientv3.StatusResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: cluster}, Leader: leader}
	}
	for name, x := range map[string]struct {
		members      []*clientv3.StatusResponse
		says, remedy string
	}{
		"no leader":    {[]*clientv3.StatusResponse{member(1, 0), member(1, 0)}, "has no leader", "start the members"},
		"two clusters": {[]*clientv3.StatusResponse{member(1, 5), member(2, 6)}, "belong to different clusters", "one cluster only"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &findings{}
			(&examination{}).cluster(t.Context(), f, nil, "etcd", x.members)
			require.Len(t, f.list, 1)
			require.Equal(t, Fail, f.list[0].Level)
			require.Contains(t, f.list[0].Finding, x.says)
			require.Contains(t, f.list[0].Remedy, x.remedy)
		})
	}
}

func TestALearnerIsNotAskedByThePlatform(t *testing.T) {
	f := &findings{}
	learner := &clientv3.StatusResponse{Header: &etcdserverpb.ResponseHeader{}, IsLearner: true}
	(&examination{}).answered(t.Context(), f, nil, []member{{endpoint: "e", status: learner}})
	require.Equal(t, Warn, f.list[0].Level)
	require.Contains(t, f.list[0].Finding, "is a learner")
}

func TestTheSizeOfTheDatabase(t *testing.T) {
	for name, x := range map[string]struct {
		size, used, quota int64
		beside            bool
		level             Level
		remedy            string
	}{
		"small":                       {size: 10 * mib, used: 5 * mib, quota: 100 * mib, level: OK},
		"nearly full":                 {size: 85 * mib, used: 80 * mib, quota: 100 * mib, level: Warn, remedy: "storage.quota"},
		"nearly full, beside":         {size: 85 * mib, used: 80 * mib, quota: 100 * mib, beside: true, level: Warn, remedy: "--quota-backend-bytes"},
		"mostly holes":                {size: 95 * mib, used: 5 * mib, quota: 100 * mib, level: OK},
		"mostly holes, beside":        {size: 95 * mib, used: 5 * mib, quota: 100 * mib, beside: true, level: Warn, remedy: "etcdctl defrag"},
		"a quota that is set":         {size: 45 * mib, used: 41 * mib, level: Warn, remedy: "storage.quota"},
		"a quota that is not known":   {size: 45 * mib, used: 41 * mib, beside: true, level: OK},
		"less than one mebibyte":      {size: 40 << 10, used: 20 << 10, quota: 100 * mib, level: OK},
		"small, with a quota to come": {size: mib, used: mib, level: OK},
	} {
		t.Run(name, func(t *testing.T) {
			f := stopped(t)
			if f.Quota = 50 * mib; x.beside {
				f.Common.EtcdEndpoints = []string{"e"}
			}
			got := &findings{}
			(&examination{Installation: f.Installation}).size(got, "etcd", &clientv3.StatusResponse{DbSize: x.size, DbSizeInUse: x.used, DbSizeQuota: x.quota})
			require.Len(t, got.list, 1)
			require.Equal(t, x.level, got.list[0].Level)
			require.Contains(t, got.list[0].Remedy, x.remedy)
		})
	}
	require.Equal(t, "40 KiB", amount(40<<10))
	require.Equal(t, "3 MiB", amount(3<<20))
}

func TestAlarms(t *testing.T) {
	f := &findings{}
	x := &examination{Installation: stopped(t).Installation}
	x.alarm(f, "etcd", etcdserverpb.AlarmType_CORRUPT)
	x.alarm(f, "etcd", etcdserverpb.AlarmType(99))
	require.Contains(t, f.list[0].Finding, "different data")
	require.Contains(t, f.list[1].Finding, "raised the alarm")
}
