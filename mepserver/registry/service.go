// Package registry registers MEC services and finds them (MEC 011 5.2.4 to 5.2.6).
//
// What is registered stands in etcd. Reads come from the watched copy and never wait; a write is one transaction, and is
// answered when this process's own copy shows it.
package registry

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/watched"
)

// APIRoot is the path of the service management API below a mount prefix.
const APIRoot = "/mec_service_mgmt/v1"

// Service is a registered service as this process holds it. It is shared and must not be changed.
type Service struct {
	// AppInstanceID is the app that offers the service.
	AppInstanceID string
	// ID is its serInstanceId.
	ID string
	// Record is what etcd holds.
	Record state.Service
	// ETag is the entity-tag of the service resource, with quotes.
	ETag string

	// rendered is the service as JSON, except that the base URL of its links is missing in two places. The second one is
	// the end when there is no liveness link.
	rendered     []byte
	first, other int
}

// Item is a service with its revisions.
type Item = watched.Item[*Service]

// Change is a change of a service.
type Change = watched.Change[*Service]

// Path is the path of the service resource below a mount prefix.
func (s *Service) Path() string {
	return APIRoot + "/applications/" + s.AppInstanceID + "/services/" + s.ID
}

// LivenessPath is the path of the service's liveness resource below a mount prefix.
func (s *Service) LivenessPath() string { return s.Path() + "/liveness" }

// Monitored reports whether the platform expects heartbeats of the service.
func (s *Service) Monitored() bool { return s.Record.Info.LivenessInterval != nil }

// AppendJSON appends the service as a JSON object whose links start with base: scheme, authority and mount prefix. The
// reader is on this MEC host, so isLocal is true (every service of this store was registered on this host).
func (s *Service) AppendJSON(dst []byte, base string) []byte {
	dst = append(dst, s.rendered[:s.first]...)
	dst = append(dst, base...)
	dst = append(dst, s.rendered[s.first:s.other]...)
	if s.other < len(s.rendered) {
		dst = append(dst, base...)
		dst = append(dst, s.rendered[s.other:]...)
	}
	return dst
}

// JSONLen is the number of bytes AppendJSON appends.
func (s *Service) JSONLen(base string) int {
	n := len(s.rendered) + len(base)
	if s.other < len(s.rendered) {
		n += len(base)
	}
	return n
}

// decode makes a Service from its record in etcd.
func decode(key string, value []byte, modRevision int64) (*Service, error) {
	return Decode(state.PrefixServices, key, value, modRevision)
}

// Decode makes a Service from a record below prefix: that of the registered services or that of the removed ones.
func Decode(prefix, key string, value []byte, modRevision int64) (*Service, error) {
	app, id, err := state.SplitKey(prefix, key)
	if err != nil {
		return nil, err
	}
	rec, err := state.Decode[state.Service](value)
	if err != nil {
		return nil, err
	}
	s := &Service{AppInstanceID: app, ID: id, Record: rec, ETag: `"` + strconv.FormatInt(modRevision, 36) + `"`}
	if err := s.render(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Service) render() error {
	info := s.Record.Info
	local := true
	info.IsLocal, info.Links = &local, nil
	body, err := json.Marshal(&info)
	if err != nil {
		return fmt.Errorf("render service %s: %w", s.ID, err)
	}
	path := s.Path()
	out := make([]byte, 0, len(body)+2*len(path)+64)
	out = append(out, body[:len(body)-1]...)
	out = append(out, `,"_links":{"self":{"href":"`...)
	s.first = len(out)
	out = append(out, path...)
	if s.Monitored() {
		out = append(out, `"},"liveness":{"href":"`...)
		s.other = len(out)
		out = append(out, path...)
		out = append(out, `/liveness"}}}`...)
	} else {
		out = append(out, `"}}}`...)
		s.other = len(out)
	}
	s.rendered = out
	return nil
}
