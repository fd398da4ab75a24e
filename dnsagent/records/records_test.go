package records_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.etcd.io/etcd/client/pkg/v3/fileutil.purgeFile.func1"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// open returns a book on a store, with a mirror of its own, as in every process.
func open(tb testing.TB, store *etcd.Store, policy records.Policy) (*records.Book, *watched.Mirror) {
	tb.Helper()
	m := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	b := records.New(m, store, func() records.Policy { return policy })
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = m.Run(ctx) })
	tb.Cleanup(func() { cancel(); done.Wait() })
	<-m.Ready()
	return b, m
}

func rec(name, rrtype string, values ...string) dns.Record {
	return dns.Record{Name: name, Type: rrtype, TTL: 30, RData: values}
}

func names(b *records.Book, f records.Filter) string {
	var list []string
	for item := range b.List(f) {
		list = append(list, strings.TrimSpace(item.Value.Name+" "+item.Value.Type+" "+item.Value.View))
	}
	return strings.Join(list, ", ")
}

func TestRecordsAreCreatedReplacedAndDeleted(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b, _ := open(t, store, records.Policy{})
	ctx := t.Context()

	revision, err := b.Create(ctx, dns.Record{Name: "WWW.Example", Type: "A", Class: "IN", TTL: 30, RData: []string{"192.0.2.1"}})
	require.NoError(t, err)
	item, err := b.Get("www.example.", "A", "")
	require.NoError(t, err)
	require.Equal(t, revision, item.ModRevision)
	require.Equal(t, &dns.Record{Name: "www.example.", Type: "A", TTL: 30, RData: []string{"192.0.2.1"}, Zone: "."}, item.Value)
	made := records.ETag(item)

	_, err = b.Create(ctx, rec("www.example.", "A", "192.0.2.2"))
	require.ErrorIs(t, err, errs.Conflict)
	require.EqualError(t, err, "www.example. A exists already; nothing was changed")

	same, err := b.Replace(ctx, rec("www.example", "A", "192.0.2.1"), nil)
	require.NoError(t, err)
	require.Equal(t, made, records.ETag(same), "what changes nothing keeps the entity-tag")
	other, err := b.Replace(ctx, dns.Record{Name: "www.example", Type: "A", TTL: 1, RData: []string{"192.0.2.2", "192.0.2.1"}, Zone: "example"}, nil)
	require.NoError(t, err)
	require.NotEqual(t, made, records.ETag(other))
	item, err = b.Get("www.example.", "A", "")
	require.NoError(t, err)
	require.Equal(t, other.Value, item.Value)
	require.Equal(t, other.ModRevision, item.ModRevision)
	require.Equal(t, "example.", item.Value.Zone)

	stale := func(item *records.Item) error {
		if records.ETag(item) != made {
			return errs.New(errs.PreconditionFailed, "it has changed")
		}
		return nil
	}
	_, err = b.Replace(ctx, rec("www.example", "A", "192.0.2.3"), stale)
	require.ErrorIs(t, err, errs.PreconditionFailed)
	_, err = b.Delete(ctx, "www.example.", "A", "", stale)
	require.ErrorIs(t, err, errs.PreconditionFailed)

	revision, err = b.Delete(ctx, "www.example.", "A", "", nil)
	require.NoError(t, err)
	require.Greater(t, revision, item.ModRevision)
	for _, err := range []error{
		errOf(b.Get("www.example.", "A", "")), errOf(b.Replace(ctx, rec("www.example", "A", "192.0.2.3"), nil)),
		errOf(b.Delete(ctx, "www.example.", "A", "", nil)), errOf(b.Delete(ctx, "www.example.", "A", "ue", nil)),
	} {
		require.ErrorIs(t, err, errs.NotFound)
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestWhatMayStandBesideAnother(t *testing.T) {
	a, aaaa, txt := rec("h.example", "A", "192.0.2.1"), rec("h.example", "AAAA", "2001:db8::1"), rec("h.example", "TXT", "x")
	alias, viewed, elsewhere := rec("h.example", "CNAME", "g.example"), rec("h.example", "CNAME", "g.example"), rec("a.h.example", "CNAME", "g.example")
	viewed.View = "ue"
	for name, x := range map[string]struct {
		first, then []dns.Record
		conflict    string
	}{
		"two families (D-26)":         {[]dns.Record{a}, []dns.Record{aaaa, txt}, ""},
		"alias of another view":       {[]dns.Record{a}, []dns.Record{viewed}, ""},
		"alias of another name":       {[]dns.Record{a}, []dns.Record{elsewhere}, ""},
		"alias beside an address":     {[]dns.Record{a}, []dns.Record{alias}, "h.example. CNAME cannot stand beside h.example. A"},
		"address beside an alias":     {[]dns.Record{alias}, []dns.Record{a}, "h.example. A cannot stand beside h.example. CNAME"},
		"of the same request":         {nil, []dns.Record{txt, alias}, "h.example. TXT cannot stand beside h.example. CNAME"},
		"twice in one request":        {nil, []dns.Record{a, rec("H.example.", "A", "192.0.2.2")}, "more than once"},
		"one of several exists":       {[]dns.Record{txt}, []dns.Record{a, txt, aaaa}, "h.example. TXT exists already"},
		"alias that exists in a view": {[]dns.Record{viewed}, []dns.Record{viewed}, "h.example. CNAME of the view ue exists already"},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := open(t, etcdtest.Start(t).Store(t), records.Policy{Views: []string{"ue"}})
			if len(x.first) > 0 {
				_, err := b.Create(t.Context(), x.first...)
				require.NoError(t, err)
			}
			before := names(b, records.Filter{})
			_, err := b.Create(t.Context(), x.then...)
			if x.conflict == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errs.Conflict)
			require.ErrorContains(t, err, x.conflict)
			require.Equal(t, before, names(b, records.Filter{}), "all or none")
		})
	}
}

// served refuses names below a domain, and records the revision it was last asked to catch up with.
type served struct {
	refuses string
	behind  int // how many waits until it answers from the current state
	waited  int64
}

func (s *served) Displaced(recs []dns.Record) []string {
	var list []string
	for i := range recs {
		if dns.Within(recs[i].Name, s.refuses) || s.behind > 0 {
			list = append(list, recs[i].Name+" would not be answered: because")
		}
	}
	return list
}

func (s *served) CatchUp(_ context.Context, revision int64) error {
	s.waited = revision
	s.behind = max(0, s.behind-1)
	return nil
}

func TestWhatCouldNotBeAnsweredIsRefused(t *testing.T) {
	b, _ := open(t, etcdtest.Start(t).Store(t), records.Policy{})
	s := &served{refuses: "full.example."}
	b.Beside(s)
	_, err := b.Create(t.Context(), rec("a.example", "A", "192.0.2.1"), rec("B.full.example", "A", "192.0.2.1"))
	require.ErrorIs(t, err, errs.Conflict)
	require.EqualError(t, err, "b.full.example. would not be answered: because; nothing was changed")
	require.Positive(t, s.waited, "what is refused is looked at again")
	require.Empty(t, names(b, records.Filter{}))

	s.behind = 1
	_, err = b.Create(t.Context(), rec("a.example", "A", "192.0.2.1"))
	require.NoError(t, err, "it was behind")
	s.refuses = "a.example."
	_, err = b.Replace(t.Context(), rec("a.example", "A", "192.0.2.1"), nil)
	require.NoError(t, err, "nothing changes")
	_, err = b.Replace(t.Context(), rec("a.example", "A", "192.0.2.2"), nil)
	require.ErrorIs(t, err, errs.Conflict)
	s.refuses, s.behind = "x.", 1
	_, err = b.Replace(t.Context(), rec("a.example", "A", "192.0.2.2"), nil)
	require.NoError(t, err)
}

func TestAConflictNamesWhatIsInTheWay(t *testing.T) {
	b, _ := open(t, etcdtest.Start(t).Store(t), records.Policy{})
	var list []dns.Record
	for i := range dns.MaxBatch {
		list = append(list, rec(fmt.Sprintf("h%02d.example", i), "CNAME", "a.example"))
	}
	_, err := b.Create(t.Context(), list...)
	require.NoError(t, err, "as many as one request may have, in one transaction")
	_, err = b.Create(t.Context(), list[:2]...)
	require.EqualError(t, err, "h00.example. CNAME exists already; h01.example. CNAME exists already; nothing was changed")
	_, err = b.Create(t.Context(), list...)
	require.ErrorContains(t, err, "h09.example. CNAME exists already; and more; nothing was changed")
	require.NotContains(t, err.Error(), "h10")
	for _, n := range []int{0, dns.MaxBatch + 1} {
		_, err = b.Create(t.Context(), make([]dns.Record, n)...)
		require.ErrorIs(t, err, errs.Invalid)
	}
}

// Two processes race for one name: one with an alias, one with addresses. The first keeps the other out, whatever their copies
// show at the time.
func TestConcurrentCreatorsKeepTheRules(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	one, _ := open(t, store, records.Policy{})
	two, _ := open(t, store, records.Policy{})
	const rounds = 50
	for i := range rounds {
		name := fmt.Sprintf("h%d.example", i)
		wanted := []dns.Record{rec(name, "CNAME", "a.example"), rec(name, "A", "192.0.2.1"), rec(name, "TXT", "x"), rec(name, "CNAME", "b.example")}
		var won [4]bool
		var all sync.WaitGroup
		for j, book := range []*records.Book{one, two, two, one} {
			all.Go(func() {
				_, err := book.Create(context.Background(), wanted[j])
				won[j] = err == nil
				if err != nil && !errors.Is(err, errs.Conflict) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		all.Wait()
		aliases, others := won[0] || won[3], won[1] || won[2]
		require.NotEqual(t, aliases, others, "%s: %v", name, won)
		require.False(t, won[0] && won[3], name)
		require.True(t, aliases || won[1] && won[2], "what may stand together does: %v", won)
	}
}

func TestWhatAnotherProcessRemovedMayBeCreated(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	one, _ := open(t, store, records.Policy{})
	two, _ := open(t, store, records.Policy{})
	for i := range 30 {
		_, err := one.Create(t.Context(), rec("h.example", "A", fmt.Sprintf("192.0.2.%d", i)))
		require.NoError(t, err)
		_, err = two.Replace(t.Context(), rec("h.example", "A", "192.0.2.99"), nil)
		require.NoError(t, err, "the other one may not have seen it yet")
		_, err = two.Delete(t.Context(), "h.example.", "A", "", nil)
		require.NoError(t, err)
	}
}

func TestTheNumberOfRecordsIsBounded(t *testing.T) {
	const limit, tries = 20, 60
	store := etcdtest.Start(t).Store(t)
	b, _ := open(t, store, records.Policy{MaxRecords: limit})
	var made, refused atomic.Int32
	var all sync.WaitGroup
	for i := range tries {
		all.Go(func() {
			_, err := b.Create(context.Background(), rec(fmt.Sprintf("h%d.example", i), "A", "192.0.2.1"))
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, errs.Forbidden):
				refused.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, limit, made.Load())
	require.EqualValues(t, tries-limit, refused.Load())
	require.Equal(t, limit, b.Collection().Snapshot().Len())

	n, _, err := b.DeleteAll(t.Context(), records.Filter{Zone: "."})
	require.NoError(t, err)
	require.Equal(t, limit, n)
	list := make([]dns.Record, limit+1)
	for i := range list {
		list[i] = rec(fmt.Sprintf("g%d.example", i), "A", "192.0.2.1")
	}
	_, err = b.Create(t.Context(), list...)
	require.ErrorIs(t, err, errs.Forbidden)
	_, err = b.Create(t.Context(), list[1:]...)
	require.NoError(t, err)
}

func TestRecordsAreFound(t *testing.T) {
	b, _ := open(t, etcdtest.Start(t).Store(t), records.Policy{Views: []string{"ue"}})
	viewed := rec("a.example", "A", "192.0.2.2")
	viewed.View = "ue"
	zoned := rec("a.example", "TXT", "x")
	zoned.Zone = "example"
	_, err := b.Create(t.Context(), rec("a.example", "A", "192.0.2.1"), viewed, zoned, rec("b.a.example", "A", "192.0.2.1"),
		rec("*.a.example", "A", "192.0.2.1"), rec("ba.example", "AAAA", "2001:db8::1"), rec("other", "A", "192.0.2.1"))
	require.NoError(t, err)
	ue, everyone := "ue", ""
	for name, x := range map[string]struct {
		filter records.Filter
		want   string
	}{
		"all":            {records.Filter{}, "*.a.example. A, a.example. A, a.example. A ue, a.example. TXT, b.a.example. A, ba.example. AAAA, other. A"},
		"name":           {records.Filter{Name: "a.example."}, "a.example. A, a.example. A ue, a.example. TXT"},
		"name and below": {records.Filter{Below: "a.example."}, "*.a.example. A, a.example. A, a.example. A ue, a.example. TXT, b.a.example. A"},
		"type":           {records.Filter{Type: "AAAA"}, "ba.example. AAAA"},
		"zone":           {records.Filter{Zone: "example."}, "a.example. TXT"},
		"view":           {records.Filter{View: &ue}, "a.example. A ue"},
		"for everyone":   {records.Filter{Name: "a.example.", View: &everyone}, "a.example. A, a.example. TXT"},
		"none":           {records.Filter{Name: "a.example.", Type: "AAAA"}, ""},
	} {
		require.Equal(t, x.want, names(b, x.filter), name)
	}

	for limit := 1; limit <= 8; limit++ {
		var got []string
		after := ""
		for {
			p := b.Page(records.Filter{}, after, limit)
			for _, item := range p.Items {
				got = append(got, item.Key)
			}
			if after = p.Next; after == "" {
				break
			}
			require.Len(t, p.Items, limit)
		}
		var want []string
		for item := range b.List(records.Filter{}) {
			want = append(want, item.Key)
		}
		require.Equal(t, want, got, "pages of %d", limit)
	}
}

func TestRecordsAreRemovedByAFilter(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b, _ := open(t, store, records.Policy{})
	var list []dns.Record
	for i := range 250 {
		list = append(list, rec(fmt.Sprintf("h%d.example", i), "A", "192.0.2.1"))
	}
	for i := 0; i < len(list); i += 50 {
		_, err := b.Create(t.Context(), list[i:i+50]...)
		require.NoError(t, err)
	}
	_, err := b.Create(t.Context(), rec("other", "A", "192.0.2.1"))
	require.NoError(t, err)
	n, revision, err := b.DeleteAll(t.Context(), records.Filter{Below: "example."})
	require.NoError(t, err)
	require.Equal(t, 250, n)
	require.Equal(t, revision, b.Collection().Snapshot().Revision())
	require.Equal(t, "other. A", names(b, records.Filter{}))
	n, _, err = b.DeleteAll(t.Context(), records.Filter{Below: "example."})
	require.NoError(t, err)
	require.Zero(t, n)
}

// While records are being removed, another process moves some to another zone: what still matches is removed, the rest stays.
func TestRecordsThatChangeWhileTheyAreRemoved(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b, _ := open(t, store, records.Policy{})
	other, _ := open(t, store, records.Policy{})
	for round := range 10 {
		var list []dns.Record
		for i := range dns.MaxBatch {
			r := rec(fmt.Sprintf("h%d.example", i), "A", "192.0.2.1")
			r.Zone = "example"
			list = append(list, r)
		}
		_, err := b.Create(t.Context(), list...)
		require.NoError(t, err)
		moved := make(map[string]bool)
		var busy sync.WaitGroup
		busy.Go(func() {
			for i := round; i < len(list); i += 7 {
				r := list[i]
				r.Zone = ""
				if _, err := other.Replace(context.Background(), r, nil); err == nil {
					moved[r.Name+". A"] = true
				}
			}
		})
		_, _, err = b.DeleteAll(t.Context(), records.Filter{Zone: "example."})
		require.NoError(t, err)
		busy.Wait()
		left := names(b, records.Filter{})
		require.Empty(t, names(b, records.Filter{Zone: "example."}))
		for name := range moved {
			require.Contains(t, left, name)
		}
		_, _, err = b.DeleteAll(t.Context(), records.Filter{})
		require.NoError(t, err)
	}
}

func TestViewsMustBeConfigured(t *testing.T) {
	for name, x := range map[string]struct {
		views []string
		view  string
		want  string
	}{
		"everyone":   {nil, "", ""},
		"known":      {[]string{"ue", "lab"}, "lab", ""},
		"unknown":    {[]string{"ue", "lab"}, "x", "view must be a view of the DNS server's configuration: there is ue, lab"},
		"none known": {nil, "ue", "view must be a view of the DNS server's configuration: none is configured"},
		"no name":    {[]string{"ue"}, "/", `view must be the name of a view, not "/"`},
	} {
		b := records.New(watched.New(watched.Config{Prefix: state.Root}), nil, func() records.Policy { return records.Policy{Views: x.views} })
		r := rec("a.example", "A", "192.0.2.1")
		r.View = x.view
		var faults problem.InvalidParams
		b.Check(&r, &faults)
		require.Equal(t, x.want, faults.Error(), name)
	}
}

func TestWithoutTheStoreRecordsCanBeReadAndNotChanged(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	whole, _ := open(t, store, records.Policy{})
	_, err := whole.Create(t.Context(), rec("a.example", "A", "192.0.2.1"))
	require.NoError(t, err)

	away, err := etcd.Dial(etcd.Config{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "nobody")}, Timeout: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { _ = away.Close() })
	away.Source = store.Source
	b, _ := open(t, away, records.Policy{})
	_, err = b.Get("a.example.", "A", "")
	require.NoError(t, err)
	_, _, all := b.DeleteAll(t.Context(), records.Filter{})
	for what, err := range map[string]error{
		"create": errOf(b.Create(t.Context(), rec("b.example", "A", "192.0.2.1"))), "exists": errOf(b.Create(t.Context(), rec("a.example", "A", "192.0.2.1"))),
		"replace": errOf(b.Replace(t.Context(), rec("a.example", "A", "192.0.2.2"), nil)), "missing": errOf(b.Replace(t.Context(), rec("c.example", "A", "192.0.2.2"), nil)),
		"delete": errOf(b.Delete(t.Context(), "a.example.", "A", "", nil)), "delete all": all,
	} {
		require.ErrorIs(t, err, errs.Unavailable, what)
	}
}

func TestRecordsThatCannotBeReadAreLeftOut(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b, mirror := open(t, store, records.Policy{})
	good := `{"v":1,"record":{"name":"a.example.","type":"A","ttl":30,"rData":["192.0.2.1"],"zone":"."}}`
	var ops []clientv3.Op
	for key, value := range map[string]string{
		"a.example./A/":     good,
		"b.example./A/":     good,
		"a.example./AAAA/":  good,
		"a.example./A/ue":   good,
		"a.example./A":      good,
		"c.example./A/":     strings.Replace(good, `"v":1`, `"v":2`, 1),
		"a.example./TXT/":   "nothing",
		"a.example./A/a/b":  good,
		"//":                good,
		"d.example./CNAME/": `{"v":1,"record":{"ttl":3,"zone":"\u002e","type":"CNAME","name":"d.example.","rData":["a.example."]}}`,
	} {
		ops = append(ops, clientv3.OpPut(state.PrefixDNSRecords+key, value))
	}
	resp, err := store.Txn(t.Context(), nil, ops, nil)
	require.NoError(t, err)
	require.NoError(t, mirror.WaitRevision(t.Context(), resp.Header.Revision))
	require.Equal(t, "a.example. A, d.example. CNAME", names(b, records.Filter{}))
}
