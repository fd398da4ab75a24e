package cache_test

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/dnsagent/cache"
	"github.com/openmep/mep/dnsagent/wire"
)

func question(t require.TestingT, name string) *cache.Question {
	n, err := wire.ParseName(name)
	require.NoError(t, err)
	return &cache.Question{Name: n, Type: dns.TypeA, Class: dns.ClassINET}
}

func TestQuestionsHaveValuesOfTheirOwn(t *testing.T) {
	base := question(t, "a.example")
	other := map[string]func(*cache.Question){
		"name":  func(q *cache.Question) { q.Name = question(t, "b.example").Name },
		"type":  func(q *cache.Question) { q.Type = dns.TypeAAAA },
		"class": func(q *cache.Question) { q.Class = dns.ClassCHAOS },
		"DO":    func(q *cache.Question) { q.DO = true },
		"CD":    func(q *cache.Question) { q.CD = true },
	}
	for name, change := range other {
		t.Run(name, func(t *testing.T) {
			c := cache.New[string](1 << 20)
			c.Put(base, "base", 10)
			q := *base
			change(&q)
			_, ok := c.Get(&q)
			require.False(t, ok)
			c.Put(&q, "other", 10)
			v, ok := c.Get(base)
			require.True(t, ok)
			require.Equal(t, "base", v)
			c.Delete(&q)
			_, ok = c.Get(base)
			require.True(t, ok)
		})
	}
}

func TestTheNameMayChangeAfterwards(t *testing.T) {
	c := cache.New[string](1 << 20)
	buf := []byte("\x01a\x00")
	q := &cache.Question{Name: wire.Name(buf)}
	c.Put(q, "a", 10)
	buf[1] = 'b'
	v, ok := c.Get(&cache.Question{Name: "\x01a\x00"})
	require.True(t, ok)
	require.Equal(t, "a", v)
}

// TestItStaysInItsBound runs random operations and compares the cache with a plain map, which holds what the cache holds and more.
func TestItStaysInItsBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.Int64Range(0, 1<<19).Draw(t, "bound")
		c, model := cache.New[int](bound), map[cache.Question]int{}
		names := rapid.SampledFrom([]string{"a", "b.a", "c.b.a", "d", "e.example", "f.example", "g", "h", "i", "j"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				q, v := question(t, names.Draw(t, "name")), rapid.Int().Draw(t, "value")
				c.Put(q, v, rapid.Int64Range(0, 1<<17).Draw(t, "cost"))
				model[*q] = v
			},
			"get": func(t *rapid.T) {
				q := question(t, names.Draw(t, "name"))
				if v, ok := c.Get(q); ok {
					require.Equal(t, model[*q], v)
				}
			},
			"delete": func(t *rapid.T) {
				q := question(t, names.Draw(t, "name"))
				c.Delete(q)
				_, ok := c.Get(q)
				require.False(t, ok)
			},
			"delete some": func(t *rapid.T) {
				odd := func(_ *cache.Question, v int) bool { return v%2 != 0 }
				c.DeleteFunc(odd)
				require.Zero(t, c.DeleteFunc(odd))
			},
			"resize": func(t *rapid.T) {
				bound = rapid.Int64Range(0, 1<<19).Draw(t, "bound")
				c.Resize(bound)
			},
			"": func(t *rapid.T) {
				entries, bytes := c.Size()
				require.LessOrEqual(t, bytes, bound)
				require.Equal(t, entries == 0, bytes == 0)
			},
		})
		c.DeleteFunc(func(*cache.Question, int) bool { return true })
		entries, bytes := c.Size()
		require.Zero(t, entries)
		require.Zero(t, bytes)
	})
}

func TestAMillionPutsStayInASmallBound(t *testing.T) {
	const bound = 1 << 20
	c := cache.New[int](bound)
	q := question(t, "0000000.example")
	name := []byte(q.Name)
	for i := range 1_000_000 {
		copy(name[1:], fmt.Sprintf("%07d", i))
		q.Name = wire.Name(name)
		c.Put(q, i, 100)
		if i%100_000 == 0 {
			_, bytes := c.Size()
			require.LessOrEqual(t, bytes, int64(bound))
		}
	}
	entries, bytes := c.Size()
	require.LessOrEqual(t, bytes, int64(bound))
	require.Greater(t, bytes, int64(bound)/2)
	require.Equal(t, uint64(1_000_000-entries), c.Evictions())
}

func TestAScanDoesNotDisplaceWhatIsInDemand(t *testing.T) {
	c := cache.New[int](1 << 20)
	var popular []*cache.Question
	for i := range 100 {
		q := question(t, "popular"+strconv.Itoa(i)+".example")
		c.Put(q, i, 100)
		popular = append(popular, q)
	}
	for i := range 50_000 {
		c.Put(question(t, "scan"+strconv.Itoa(i)+".example"), i, 100)
		if i%100 == 0 {
			for _, q := range popular {
				c.Get(q)
			}
		}
	}
	for i, q := range popular {
		v, ok := c.Get(q)
		require.True(t, ok, "%s was displaced", q.Name)
		require.Equal(t, i, v)
	}
}

func TestAValueThatIsTooLargeIsNotKept(t *testing.T) {
	c := cache.New[string](1 << 20)
	q := question(t, "a.example")
	c.Put(q, "small", 10)
	c.Put(q, "large", 1<<20)
	_, ok := c.Get(q)
	require.False(t, ok, "neither the new value, nor the old one that it was to replace")
}

func TestWithoutABoundNothingIsKept(t *testing.T) {
	for _, bound := range []int64{0, -1} {
		c := cache.New[string](bound)
		c.Put(question(t, "a.example"), "a", 0)
		_, ok := c.Get(question(t, "a.example"))
		require.False(t, ok)
	}
}

// TestWhatIsCountedIsWhatItTakes compares the counted memory with the growth of the heap.
func TestWhatIsCountedIsWhatItTakes(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, n := range []int{60_000, 115_000, 200_000} {
		before := heap()
		c := cache.New[*[64]byte](1 << 30)
		for i := range n {
			c.Put(question(t, strconv.Itoa(i)+".example"), new([64]byte), 64)
		}
		grown := heap() - before
		_, counted := c.Size()
		require.LessOrEqual(t, grown, counted, "%d entries take %d octets and are counted as %d", n, grown, counted)
		require.Greater(t, grown, counted/2, "%d entries take %d octets and are counted as %d", n, grown, counted)
		runtime.KeepAlive(c)
	}
}

func TestManyReadAndWrite(t *testing.T) {
	c := cache.New[int](1 << 16)
	var questions []*cache.Question
	for i := range 500 {
		questions = append(questions, question(t, strconv.Itoa(i)+".example"))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				n := (i*7 + w*131) % len(questions)
				if v, ok := c.Get(questions[n]); ok && v != n {
					t.Errorf("%s has the value of another", questions[n].Name)
				}
				c.Put(questions[n], n, 50)
				if i%1000 == 0 {
					c.DeleteFunc(func(_ *cache.Question, v int) bool { return v%10 == w })
				}
			}
		})
	}
	wg.Wait()
	_, bytes := c.Size()
	require.LessOrEqual(t, bytes, int64(1<<16))
}

func BenchmarkGet(b *testing.B) {
	c := cache.New[int](64 << 20)
	var questions []*cache.Question
	for i := range 10_000 {
		q := question(b, strconv.Itoa(i)+".example")
		c.Put(q, i, 100)
		questions = append(questions, q)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := c.Get(questions[i%len(questions)]); !ok {
				b.Fail()
			}
		}
	})
}
