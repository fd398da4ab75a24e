package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

// MinutesRoot is the prefix of per-minute call statistics that are older than those below PrefixStatistics. It is not below Root,
// because these records are read on demand and not mirrored by every program.
const MinutesRoot = "/mep/statistics/v1/"

// MinutesHour returns the prefix of the minutes of an hour, of all replicas.
func MinutesHour(hour time.Time) string {
	return MinutesRoot + strings.TrimPrefix(StatisticsHour(hour), PrefixStatistics)
}

// MinutesKey returns the key of the minutes for a key that StatisticsKey returned.
func MinutesKey(statistics string) string {
	return MinutesRoot + strings.TrimPrefix(statistics, PrefixStatistics)
}

// minutesVersion is the first byte of packed minutes.
const minutesVersion = 1

// microsOfAMilli is the resolution of durations in packed minutes, in microseconds.
const microsOfAMilli = 1000

// PackMinutes returns a binary encoding of less than half the size of the JSON record: it avoids base64, stores each kind of number
// together, and stores durations and bytes as differences from the average of the calls so far. Durations are in milliseconds; the
// remainder is carried over to the next minute. The errors are those of Pack.
func (s *CallStatistics) PackMinutes() ([]byte, error) {
	e := minutesEncoder{known: make(map[string]uint64)}
	e.number(uint64(len(s.Pairs)))
	for _, p := range s.Pairs {
		e.name(p.Service)
		e.name(p.Consumer)
		e.number(uint64(len(p.Buckets)))
	}
	for _, p := range s.Pairs {
		last := 0
		for _, b := range p.Buckets {
			if b.Minute < last || b.Minute >= minutesOfAnHour || min(b.Calls, b.Refused, b.Failed, b.Micros, b.Bytes) < 0 {
				return nil, errors.New("call statistics have negative numbers, or minutes that are out of order or that no hour has")
			}
			e.number(uint64(b.Minute - last)) //nolint:gosec // not negative
			last = b.Minute
		}
	}
	e.column(s.Pairs, func(b CallBucket) int64 { return b.Calls })
	e.column(s.Pairs, func(b CallBucket) int64 { return b.Refused })
	e.column(s.Pairs, func(b CallBucket) int64 { return b.Failed })
	for _, p := range s.Pairs {
		var average average
		left := int64(0)
		for _, b := range p.Buckets {
			left += b.Micros % microsOfAMilli
			millis := min(b.Micros/microsOfAMilli+left/microsOfAMilli, math.MaxInt64/microsOfAMilli)
			left %= microsOfAMilli
			e.difference(&average, b.Calls, millis)
		}
	}
	for _, p := range s.Pairs {
		var average average
		for _, b := range p.Buckets {
			e.difference(&average, b.Calls, b.Bytes)
		}
	}
	if e.long > 0 {
		return nil, fmt.Errorf("a name of %d bytes is too long for call statistics", e.long)
	}
	return deflate([]byte{minutesVersion}, e.body)
}

// UnpackMinutes decodes a result of PackMinutes. An error means that the value is damaged or of a newer version.
func UnpackMinutes(value []byte) (CallStatistics, error) {
	if len(value) == 0 || value[0] != minutesVersion {
		return CallStatistics{}, errors.New("packed minutes are not of the version that this release knows")
	}
	body, err := inflate(value[1:])
	if err != nil {
		return CallStatistics{}, err
	}
	d := minutesDecoder{statisticsDecoder: statisticsDecoder{rest: body}}
	s := CallStatistics{Pairs: d.pairs()}
	if d.damaged || len(d.rest) > 0 {
		return CallStatistics{}, errDamagedStatistics
	}
	return s, nil
}

// average predicts a number from its average per call so far. The encoder and the decoder make the same predictions.
type average struct{ calls, sum uint64 }

// of returns the prediction for a number of calls.
func (a *average) of(calls uint64) uint64 {
	hi, lo := bits.Mul64(a.sum, calls)
	if a.calls <= hi {
		return 0 // no calls so far, or an overflow
	}
	n, _ := bits.Div64(hi, lo, a.calls)
	return n
}

// add records that calls had the total n. Overflow wraps around alike in the encoder and the decoder.
func (a *average) add(calls, n uint64) {
	a.calls += calls
	a.sum += n
}

type minutesEncoder struct {
	body  []byte
	known map[string]uint64 // the number of each name written, from 1
	long  int               // the length of a name that is too long
}

func (e *minutesEncoder) number(n uint64) { e.body = binary.AppendUvarint(e.body, n) }

// name writes the number of a name, or, the first time, 0 and the name.
func (e *minutesEncoder) name(s string) {
	n := e.known[s]
	if e.number(n); n > 0 {
		return
	}
	if len(s) > maxStatisticsName {
		e.long = len(s)
	}
	e.known[s] = uint64(len(e.known) + 1)
	e.number(uint64(len(s)))
	e.body = append(e.body, s...)
}

// column writes one number of every bucket. The numbers are not negative.
func (e *minutesEncoder) column(pairs []CallPair, of func(CallBucket) int64) {
	for _, p := range pairs {
		for _, b := range p.Buckets {
			e.number(uint64(of(b))) //nolint:gosec // not negative
		}
	}
}

// difference writes the difference between n and its prediction.
func (e *minutesEncoder) difference(a *average, calls, n int64) {
	c, v := uint64(calls), uint64(n)                       //nolint:gosec // not negative
	e.body = binary.AppendVarint(e.body, int64(v-a.of(c))) //nolint:gosec // overflow wraps around in both directions
	a.add(c, v)
}

// minutesDecoder decodes a body. After the first fault it yields only zeros.
type minutesDecoder struct {
	statisticsDecoder
	names []string
}

func (d *minutesDecoder) pairs() []CallPair {
	const leastPair, leastBucket = 3, 6 // bytes
	count := d.number(int64(len(d.rest) / leastPair))
	pairs := make([]CallPair, 0, min(count, 1024))
	buckets := 0
	for range count {
		p := CallPair{Service: d.known(), Consumer: d.known()}
		n := int(d.number(minutesOfAnHour))
		if buckets += n; d.damaged || buckets > len(d.rest)/leastBucket {
			d.damaged = true
			return nil
		}
		p.Buckets = make([]CallBucket, n)
		pairs = append(pairs, p)
	}
	for _, p := range pairs {
		last := int64(0)
		for i := range p.Buckets {
			last += d.number(minutesOfAnHour - 1 - last)
			p.Buckets[i].Minute = int(last)
		}
	}
	for _, of := range []func(*CallBucket) *int64{
		func(b *CallBucket) *int64 { return &b.Calls },
		func(b *CallBucket) *int64 { return &b.Refused },
		func(b *CallBucket) *int64 { return &b.Failed },
	} {
		for _, p := range pairs {
			for i := range p.Buckets {
				*of(&p.Buckets[i]) = d.number(math.MaxInt64)
			}
		}
	}
	for _, p := range pairs {
		var average average
		for i := range p.Buckets {
			b := &p.Buckets[i]
			b.Micros = microsOfAMilli * d.difference(&average, b.Calls, math.MaxInt64/microsOfAMilli)
		}
	}
	for _, p := range pairs {
		var average average
		for i := range p.Buckets {
			b := &p.Buckets[i]
			b.Bytes = d.difference(&average, b.Calls, math.MaxInt64)
		}
	}
	return pairs
}

// known reads a name, or the number of a name read before.
func (d *minutesDecoder) known() string {
	if n := d.number(int64(len(d.names))); n > 0 {
		return d.names[n-1]
	}
	name := d.name()
	d.names = append(d.names, name)
	return name
}

// difference reads a number that minutesEncoder.difference wrote and that may be at most most.
func (d *minutesDecoder) difference(a *average, calls, most int64) int64 {
	n, size := binary.Varint(d.rest)
	if d.damaged || size <= 0 {
		d.damaged = true
		return 0
	}
	d.rest = d.rest[size:]
	c := uint64(calls)       //nolint:gosec // not negative
	v := a.of(c) + uint64(n) //nolint:gosec // overflow wraps around in both directions
	if v > uint64(most) {    //nolint:gosec // not negative
		d.damaged = true
		return 0
	}
	a.add(c, v)
	return int64(v) //nolint:gosec // at most math.MaxInt64
}
