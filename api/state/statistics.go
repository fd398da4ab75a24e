package state

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Reserved names in call statistics, such as those of calls to the platform itself. A serName or consumer of this form is unlikely
// to occur by accident.
const (
	// ServiceRegister counts POST …/applications/{appInstanceId}/services, ServiceDiscovery GET …/mec_service_mgmt/v1/services.
	ServiceRegister  = "(serviceRegister)"
	ServiceDiscovery = "(serviceDiscovery)"
	// Others counts the services or consumers that are too many to be counted separately.
	Others = "(other)"
	// Anonymous counts callers that did not identify themselves.
	Anonymous = "(anonymous)"
)

// CallStatistics are the calls that a replica of the gateway counted in a part of an hour. The hour and the replica are in the key.
type CallStatistics struct {
	// Folded reports whether each pair has a single bucket, of minute 0, for the whole time.
	Folded bool
	Pairs  []CallPair
}

// CallPair holds the calls of one consumer to one service.
type CallPair struct {
	Service, Consumer string
	Buckets           []CallBucket
}

// CallBucket holds the calls of one minute of the hour, 0 to 59. No number is negative.
type CallBucket struct {
	Minute int
	Calls  int64
	// Refused counts the calls that the gateway answered with 4xx, Failed those with 5xx.
	Refused, Failed int64
	// Micros is the total duration of the calls in microseconds, Bytes the total size of the responses.
	Micros, Bytes int64
}

// Add adds the calls of another bucket. Sums that would overflow become math.MaxInt64.
func (b *CallBucket) Add(o CallBucket) {
	for _, p := range []struct {
		to *int64
		n  int64
	}{{&b.Calls, o.Calls}, {&b.Refused, o.Refused}, {&b.Failed, o.Failed}, {&b.Micros, o.Micros}, {&b.Bytes, o.Bytes}} {
		if *p.to > math.MaxInt64-p.n {
			*p.to = math.MaxInt64
			continue
		}
		*p.to += p.n
	}
}

// Fold adds up the buckets of each pair.
func (s *CallStatistics) Fold() CallStatistics {
	folded := CallStatistics{Folded: true, Pairs: make([]CallPair, 0, len(s.Pairs))}
	for _, p := range s.Pairs {
		var sum CallBucket
		for _, b := range p.Buckets {
			sum.Add(b)
		}
		folded.Pairs = append(folded.Pairs, CallPair{Service: p.Service, Consumer: p.Consumer, Buckets: []CallBucket{sum}})
	}
	return folded
}

// Merge adds the calls of others, which is of the same hour. Both must be unfolded.
func (s *CallStatistics) Merge(others CallStatistics) {
	type names struct{ service, consumer string }
	at := make(map[names]int, len(s.Pairs))
	for i, p := range s.Pairs {
		at[names{p.Service, p.Consumer}] = i
	}
	pairs := slices.Clone(s.Pairs)
	for _, p := range others.Pairs {
		i, known := at[names{p.Service, p.Consumer}]
		if !known {
			pairs = append(pairs, p)
			continue
		}
		buckets := slices.Clone(pairs[i].Buckets)
		for _, b := range p.Buckets {
			j, found := slices.BinarySearchFunc(buckets, b.Minute, func(b CallBucket, minute int) int { return b.Minute - minute })
			if found {
				buckets[j].Add(b)
			} else {
				buckets = slices.Insert(buckets, j, b)
			}
		}
		pairs[i].Buckets = buckets
	}
	s.Pairs = pairs
}

// statisticsHour is the layout of an hour in a key; keys sort by time.
const statisticsHour = "2006010215"

// StatisticsHour returns the prefix of the statistics of an hour, of all replicas.
func StatisticsHour(hour time.Time) string {
	return PrefixStatistics + hour.UTC().Format(statisticsHour) + "/"
}

// StatisticsKey returns the key of a part of what a replica counted in an hour.
func StatisticsKey(hour time.Time, replica string, part int) string {
	return fmt.Sprintf("%s%s/%d", StatisticsHour(hour), KeyPart(replica), part)
}

// SplitStatisticsKey splits a key returned by StatisticsKey.
func SplitStatisticsKey(key string) (hour time.Time, replica string, err error) {
	rest, ok := strings.CutPrefix(key, PrefixStatistics)
	at, rest, both := strings.Cut(rest, "/")
	replica, part, all := strings.Cut(rest, "/")
	if ok && both && all && replica != "" && part != "" && !strings.Contains(part, "/") {
		if hour, err = time.Parse(statisticsHour, at); err == nil {
			return hour, TextOf(replica), nil
		}
	}
	return time.Time{}, "", fmt.Errorf("key %q is not of the form %s{hour}/{replica}/{part}", key, PrefixStatistics)
}

// PackedStatistics is the stored form of CallStatistics. The body is compressed with DEFLATE.
type PackedStatistics struct {
	Version
	Folded bool `json:"folded,omitempty"`
	// Minutes is the size in bytes of the folded minutes under MinutesKey, with their key; 0 when there are none.
	Minutes int    `json:"minutes,omitempty"`
	Body    []byte `json:"body"`
}

// The bounds of a record. A damaged record may exceed them.
const (
	maxStatisticsBody = 4 << 20 // inflated
	maxStatisticsName = 1 << 10
	minutesOfAnHour   = 60
)

// Pack returns the stored form. An error means that the statistics are invalid: a negative number, a minute out of order or that no
// hour has, or a name of more than 1 KiB.
func (s *CallStatistics) Pack() (PackedStatistics, error) {
	plain, err := appendPairs(nil, s.Pairs)
	if err != nil {
		return PackedStatistics{}, err
	}
	body, err := deflate(nil, plain)
	return PackedStatistics{Version: Current(), Folded: s.Folded, Body: body}, err
}

// A flate.Writer allocates about a megabyte and a flate reader 40 kB. They are pooled, because there are thousands of records.
var (
	deflaters sync.Pool
	inflaters = sync.Pool{New: func() any { return flate.NewReader(strings.NewReader("")) }}
)

// deflate returns to with the compressed body appended.
func deflate(to, body []byte) ([]byte, error) {
	b := bytes.NewBuffer(to)
	w, _ := deflaters.Get().(*flate.Writer)
	var err error
	if w != nil {
		w.Reset(b)
	} else if w, err = flate.NewWriter(b, flate.DefaultCompression); err != nil {
		return nil, err
	}
	defer deflaters.Put(w)
	if _, err = w.Write(body); err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("deflate call statistics: %w", err)
	}
	return b.Bytes(), nil
}

// inflate reverses deflate.
func inflate(body []byte) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(body), nil); err != nil {
		return nil, fmt.Errorf("inflate call statistics: %w", err)
	}
	plain := bytes.NewBuffer(make([]byte, 0, 4*len(body)+bytes.MinRead))
	if _, err := plain.ReadFrom(io.LimitReader(r, maxStatisticsBody+1)); err != nil {
		return nil, fmt.Errorf("inflate call statistics: %w", err)
	}
	if plain.Len() > maxStatisticsBody {
		return nil, fmt.Errorf("call statistics have more than %d bytes", maxStatisticsBody)
	}
	return plain.Bytes(), nil
}

var errDamagedStatistics = errors.New("call statistics are damaged")

// Unpack decodes the record. An error means that it is damaged.
func (p PackedStatistics) Unpack() (CallStatistics, error) {
	body, err := inflate(p.Body)
	if err != nil {
		return CallStatistics{}, err
	}
	d := statisticsDecoder{rest: body}
	s := CallStatistics{Folded: p.Folded, Pairs: d.pairs()}
	if d.damaged || len(d.rest) > 0 {
		return CallStatistics{}, errDamagedStatistics
	}
	return s, nil
}

// appendPairs appends the number of pairs, and for each pair its names and buckets. All numbers are unsigned varints. A minute is
// stored as the difference from the one before.
func appendPairs(b []byte, pairs []CallPair) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	for _, p := range pairs {
		for _, name := range []string{p.Service, p.Consumer} {
			if len(name) > maxStatisticsName {
				return nil, fmt.Errorf("a name of %d bytes is too long for call statistics", len(name))
			}
			b = binary.AppendUvarint(b, uint64(len(name)))
			b = append(b, name...)
		}
		b = binary.AppendUvarint(b, uint64(len(p.Buckets)))
		last := 0
		for _, bucket := range p.Buckets {
			for _, n := range []int64{
				int64(bucket.Minute - last), bucket.Calls, bucket.Refused, bucket.Failed, bucket.Micros, bucket.Bytes,
			} {
				if n < 0 {
					return nil, errors.New("call statistics have negative numbers or minutes out of order")
				}
				b = binary.AppendUvarint(b, uint64(n))
			}
			if last = bucket.Minute; last >= minutesOfAnHour {
				return nil, fmt.Errorf("an hour has no minute %d", last)
			}
		}
	}
	return b, nil
}

// statisticsDecoder decodes a body. After the first fault it yields only zeros.
type statisticsDecoder struct {
	rest    []byte
	damaged bool
}

func (d *statisticsDecoder) pairs() []CallPair {
	const leastPair = 3 // bytes
	count := d.number(int64(len(d.rest) / leastPair))
	pairs := make([]CallPair, 0, min(count, 1024))
	for range count {
		p := CallPair{Service: d.name(), Consumer: d.name()}
		buckets := d.number(minutesOfAnHour)
		p.Buckets = make([]CallBucket, 0, buckets)
		minute := int64(0)
		for range buckets {
			minute += d.number(minutesOfAnHour - 1 - minute)
			p.Buckets = append(p.Buckets, CallBucket{
				Minute: int(minute), Calls: d.number(math.MaxInt64), Refused: d.number(math.MaxInt64), Failed: d.number(math.MaxInt64),
				Micros: d.number(math.MaxInt64), Bytes: d.number(math.MaxInt64),
			})
		}
		if d.damaged {
			return nil
		}
		pairs = append(pairs, p)
	}
	return pairs
}

// number reads a number that may be at most most.
func (d *statisticsDecoder) number(most int64) int64 {
	n, size := binary.Uvarint(d.rest)
	if d.damaged || size <= 0 || n > uint64(max(0, most)) {
		d.damaged = true
		return 0
	}
	d.rest = d.rest[size:]
	return int64(n) //nolint:gosec // at most math.MaxInt64
}

func (d *statisticsDecoder) name() string {
	n := d.number(min(maxStatisticsName, int64(len(d.rest))))
	if d.damaged || int(n) > len(d.rest) {
		d.damaged = true
		return ""
	}
	name := string(d.rest[:n])
	d.rest = d.rest[n:]
	return name
}
