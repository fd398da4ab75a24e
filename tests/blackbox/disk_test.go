package blackbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// smallDisk mounts a file system of a size, or skips the test where that is not allowed.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

// fill leaves about so many bytes free on a disk, and returns what makes room again.
func fill(t *testing.T, disk string, leave int64) (free func()) {
	t.Helper()
	f, err := os.CreateTemp(disk, "ballast-")
	require.NoError(t, err)
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		block := make([]byte, size)
		for {
			var st syscall.Statfs_t
			require.NoError(t, syscall.Statfs(disk, &st))
			if int64(st.Bavail)*st.Bsize < leave+int64(size) {
				break
			}
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				break
			} else {
				require.NoError(t, err)
			}
		}
	}
	return func() { require.NoError(t, os.Remove(f.Name())) }
}

func TestOnAFullDiskReadsGoOnAndChangesAreRefused(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 128)
	p := harness.Start(t, harness.DataDir(filepath.Join(disk, "data")), harness.Args("--storage-reserve=50331648"))
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	sub := a.subscribe(cb.URL("/cb"), nil)
	svc := a.register(monitored("x", 60))
	cb.AwaitChange(t, "/cb", "ADDED x ACTIVE")

	free := fill(t, disk, 40<<20)
	harness.Eventually(t, "registrations are refused", func() error {
		answer := a.Post(a.services(), own("more"))
		return harness.Not(answer.Status == 507, "answered %d", answer.Status)
	})
	problem := a.Post(a.services(), own("y")).Problem(507)
	require.Contains(t, problem.Detail, "disk")
	a.Put(a.service(svc.id), own("y")).Problem(507)
	a.Post(a.subscriptions(), subscription("http://10.0.0.1/")).Problem(507)
	same(t, svc.info, a.Get(services+"/"+svc.id).Is(200).Object())
	a.Get(services).Is(200)
	a.Get(a.subscription(sub)).Is(200)
	a.beat(svc.id).Is(204) // costs no write
	a.Post(a.services(), object{}).Problem(400)
	status, ready, err := p.Ready()
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.True(t, ready.IsDegraded("storage"), "%+v", ready)

	p.Stop()
	again := fill(t, disk, 40<<20) // etcd gives back what it allocated ahead
	p.Restart()
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).Is(200).ETag())
	a.Post(a.services(), own("y")).Problem(507)
	free()
	again()
	later := a.eventuallyRegister(own("later"))
	cb.AwaitChange(t, "/cb", "ADDED later ACTIVE")
	harness.Eventually(t, "nothing is degraded", func() error {
		_, ready, err := p.Ready()
		if err != nil {
			return err
		}
		return harness.Not(len(ready.Degraded) == 0, "%+v", ready)
	})
	list := len(a.Get(a.services()).Array())
	p.Restart()
	require.Len(t, a.Get(a.services()).Is(200).Array(), list)
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
	require.Equal(t, later.etag, a.Get(a.service(later.id)).ETag())
}

// etcd allocates its log ahead, also when it starts. Where there is no room for that it may refuse, but not as if something
// were broken.
func TestAStartOnADiskWithoutRoomHarmsNothing(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 96)
	p := harness.Start(t, harness.DataDir(filepath.Join(disk, "data")), harness.Args("--storage-reserve=16777216"))
	a := newApp(p.Client(t))
	svc := a.register(own("x"))
	var ballast []func()
	for _, leave := range []int64{30, 28, 26, 24, 20, 12, 4} {
		p.Stop()
		ballast = append(ballast, fill(t, disk, leave<<20))
		if running, code := p.RestartOrEnd(); !running {
			require.Equal(t, 1, code)
			require.Contains(t, p.Log(), "no space left")
			require.NotContains(t, p.Log(), "cannot be repaired")
			continue
		}
		require.Equal(t, svc.etag, a.Get(a.service(svc.id)).Is(200).ETag())
	}
	for _, free := range ballast {
		free()
	}
	p.Restart()
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).Is(200).ETag())
	a.eventuallyRegister(own("y"))
}

func TestWithoutTheReserveChangesAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args(fmt.Sprint("--storage-reserve=", int64(1)<<60)))
	a := newApp(p.Client(t))
	a.Post(a.services(), own("x")).Problem(507)
	a.Post(a.subscriptions(), subscription("http://10.0.0.1/")).Problem(507)
	require.Empty(t, a.Get(services).Is(200).Array())
	_, ready, err := p.Ready()
	require.NoError(t, err)
	require.True(t, ready.IsDegraded("storage"))
}

// To remove something is documented with other answers than 507: it is what makes room.
func TestRemovalIsPossibleWithoutTheReserve(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(own("x"))
	sub := a.subscribe("http://10.0.0.1/", nil)
	p.Restart(harness.Args(fmt.Sprint("--storage-reserve=", int64(1)<<60)))
	a.Post(a.services(), own("y")).Problem(507)
	for _, path := range []string{a.service(svc.id), a.subscription(sub)} {
		require.Contains(t, []int{204, 503}, a.Delete(path).Status, "%s", path)
	}
}

// Without a guard etcd runs into the end of the disk. The process may end then, but not lose what it has answered.
func TestADiskThatIsFullToTheLastByteCorruptsNothing(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 128)
	p := harness.Start(t, harness.DataDir(filepath.Join(disk, "data")), harness.Args("--storage-reserve=0", "--limits-services=100000"), harness.MayFail())
	a := newApp(p.Unchecked(t))
	kept := map[string]registered{}
	info := but(own("x"), "transportInfo.implSpecificInfo", strings.Repeat("x", 15<<10))
	for range 20 {
		svc := a.register(info)
		kept[svc.id] = svc
	}
	free := fill(t, disk, 0)
	refused := 0
	for range 4000 {
		answer, err := a.Try("POST", a.services(), info)
		if err != nil {
			break // the process has ended
		}
		if answer.Status != 201 {
			require.Contains(t, []int{503, 507, 403}, answer.Status, "%s", answer.Body)
			if refused++; refused == 3 {
				break
			}
			continue
		}
		svc := a.read(answer)
		kept[svc.id] = svc
	}
	if !p.Running() {
		require.NotZero(t, p.Ended())
		require.Contains(t, p.Log(), "no space left", "it says why")
		require.NotContains(t, p.Log(), "goroutine ")
	}
	t.Logf("%d services were acknowledged, %d requests refused", len(kept), refused)
	free()
	p.Restart()
	found := a.Get(a.services()).Is(200).Array()
	// The one that was not answered may be there.
	require.LessOrEqual(t, len(found)-len(kept), refused+1)
	for _, info := range found {
		id := info["serInstanceId"].(string)
		if svc, acknowledged := kept[id]; acknowledged {
			same(t, without(svc.info, "_links"), without(info, "_links"))
			delete(kept, id)
		}
	}
	require.Empty(t, kept, "what was acknowledged is there")
	for range 3 {
		a.register(info)
	}
}

// untilFull registers services until the database has reached its quota, and returns those that were acknowledged.
func untilFull(t *testing.T, p *harness.Process, a app) (ids []string) {
	t.Helper()
	large := but(own("x"), "transportInfo.security.vendor", strings.Repeat("x", 100<<10))
	for len(ids) < 400 {
		answer := a.Post(a.services(), large)
		if answer.Status != 201 {
			answer.Problem(507)
			harness.Eventually(t, "the platform says that it is full", func() error {
				_, ready, err := p.Ready()
				if err != nil {
					return err
				}
				return harness.Not(ready.IsDegraded("storage"), "%+v", ready)
			})
			return ids
		}
		ids = append(ids, a.read(answer).id)
	}
	t.Fatal("the database does not fill up")
	return nil
}

// Whoever is told that there is no room must be able to rely on it, or they register twice.
func TestARegistrationThatFoundNoRoomIsNotThere(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--storage-quota=16777216"))
	a := newApp(p.Unchecked(t))
	large := but(own("x"), "transportInfo.security.vendor", strings.Repeat("x", 300<<10))
	type outcome struct {
		answer *harness.Answer
		err    error
	}
	outcomes := make(chan outcome, 1000)
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for refused := 0; refused < 3; {
				answer, err := a.Try("POST", a.services(), large)
				outcomes <- outcome{answer, err}
				if err != nil || answer.Status != 201 {
					refused++
				}
			}
		})
	}
	working.Wait()
	close(outcomes)
	var acknowledged []string
	unsure := 0
	for o := range outcomes {
		require.NoError(t, o.err)
		switch o.answer.Status {
		case 201:
			acknowledged = append(acknowledged, a.read(o.answer).id)
		case 503:
			unsure++ // says that it may have been made
		default:
			o.answer.Problem(507)
		}
	}
	found := names(a.Get(a.services()).Is(200).Array(), "serInstanceId")
	require.Subset(t, found, acknowledged)
	require.LessOrEqual(t, len(found)-len(acknowledged), unsure, "some were registered although the answer was 507")
}

// What is removed while there is no room to remember it must be told all the same, whatever happens to the history.
func TestARemovalFromAFullDatabaseIsTold(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--storage-quota=16777216"))
	a := newApp(p.Unchecked(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), object{"serNames": []any{"gone"}})
	gone := a.register(own("gone"))
	cb.AwaitChange(t, "/cb", "ADDED gone ACTIVE")
	cb.Behave(harness.Status(500))
	untilFull(t, p, a)
	harness.Eventually(t, "the service can be removed", func() error {
		answer := a.Delete(a.service(gone.id))
		return harness.Not(answer.Status == 204, "answered %d: %s", answer.Status, answer.Body)
	})
	// The platform helps itself by taking the history away.
	harness.Eventually(t, "the history was taken away", func() error {
		return harness.Not(strings.Contains(p.Log(), "reached its quota"), "the log does not say so")
	})
	p.Kill()
	cb.Behave(harness.Status(204))
	p.Restart()
	cb.Await(t, "the removal is told", func(d harness.Delivery) bool { return d.Status == 204 && d.Change.ChangeType == "REMOVED" })
}

// A database that is full of services in use gets room when apps remove services.
func TestADatabaseAtItsQuotaCanBeEmptied(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--storage-quota=16777216"))
	a := newApp(p.Unchecked(t))
	ids := untilFull(t, p, a)
	a.Get(services + "/" + ids[0]).Is(200)
	for _, id := range ids[:len(ids)/2] {
		harness.Eventually(t, "a service can be removed", func() error {
			answer := a.Delete(a.service(id))
			return harness.Not(answer.Status == 204 || answer.Status == 404, "answered %d: %s", answer.Status, answer.Body)
		})
	}
	a.eventuallyRegister(own("small"))
}
