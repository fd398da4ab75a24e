package listen

import "time"

// SetGrace sets how long messages in flight may take when the server stops.
func (s *Server) SetGrace(d time.Duration) { s.grace = d }
