package events

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/openmep/mep/api/mm5"
)

// batch is what is written to a client in one go.
type batch struct {
	frames []byte
	// sent counts the events among the frames, by type.
	sent map[mm5.EventType]int
	// revision is that of the last event.
	revision int64
}

// maxBatch is the size at which a batch is complete, in bytes.
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

// appendFrame appends an event as it is sent. The JSON of encoding/json contains none of the line ends of the standard, and of
// Unicode's only U+0085, which is escaped because some clients split lines there, too.
func appendFrame(dst []byte, at position, name mm5.EventType, data []byte) []byte {
	dst = append(append(dst, "id: "...), at.String()...)
	dst = append(append(dst, "\nevent: "...), name...)
	dst = append(append(dst, "\ndata: "...), bytes.ReplaceAll(data, []byte("\u0085"), []byte(`\u0085`))...)
	return append(dst, "\n\n"...)
}

// appendPlace appends an id without an event, from which a client that reconnects resumes.
func appendPlace(dst []byte, at position) []byte {
	dst = append(append(dst, ":\nid: "...), at.String()...)
	return append(dst, "\n\n"...)
}
