package events

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/openmep/mep/api/mm5"
)

// batch is what is written to a client at once.
type batch struct {
	frames []byte
	// sent counts the events among the frames, by type.
	sent map[mm5.EventType]int
	// revision is that of the last of them.
	revision int64
}

// maxBatch is when a batch has enough, in bytes.
const maxBatch = 32 << 10

// add appends an event.
func (b *batch) add(at position, e *event) error {
	data, err := json.Marshal(e.data)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.name, err)
	}
	b.frames = appendFrame(b.frames, at, e.name, data)
	if b.sent == nil {
		b.sent = make(map[mm5.EventType]int)
	}
	b.sent[e.name]++
	b.revision = at.revision
	return nil
}

// appendFrame appends an event as it is sent. JSON as encoding/json writes it has none of the line ends of the standard, nor of
// Unicode, except for one at which some clients divide lines, too.
func appendFrame(dst []byte, at position, name mm5.EventType, data []byte) []byte {
	dst = append(append(dst, "id: "...), at.String()...)
	dst = append(append(dst, "\nevent: "...), name...)
	dst = append(append(dst, "\ndata: "...), bytes.ReplaceAll(data, []byte("\u0085"), []byte(`\u0085`))...)
	return append(dst, "\n\n"...)
}

// appendPlace appends an id without an event: a client that comes back goes on from there.
func appendPlace(dst []byte, at position) []byte {
	dst = append(append(dst, ":\nid: "...), at.String()...)
	return append(dst, "\n\n"...)
}
