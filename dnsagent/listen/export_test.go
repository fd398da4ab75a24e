package listen

import "time"

// SetGrace sets how long answers under way may take when the server ends.
func (s *Server) SetGrace(d time.Duration) { s.grace = d }
