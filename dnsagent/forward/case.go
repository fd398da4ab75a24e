package forward

import "time"

const (
	// caseLosses is after how many responses in a row that lost the capitals of the query an upstream is asked without.
	caseLosses = 3
	// caseRest is for how long. One more such response then begins the next rest.
	caseRest = time.Hour
)

// capitals is what became of the capitals of a query.
type capitals uint8

const (
	// capitalsUnknown is for queries without any, and for what may be forged.
	capitalsUnknown capitals = iota
	capitalsKept
	capitalsLost
)

// casing is what is known of how an upstream treats capitals. What comes over UDP may be forged by somebody who wants the capitals to
// go: only responses over TCP show that they are lost.
type casing struct {
	losses int       // in a row
	until  time.Time // asked without until then
	said   bool
}

// randomCase reports whether an upstream is to be asked with random capitals.
func (f *Forwarder) randomCase(s *settings, u *upstream) bool {
	if !s.RandomCase || u.TLS { // where nobody can forge
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !f.now().Before(u.casing.until)
}

// noteCase takes note of what became of the capitals of a query.
func (f *Forwarder) noteCase(u *upstream, c capitals) {
	if c == capitalsUnknown {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.casing
	switch {
	case u.retired:
		return
	case c == capitalsKept:
		u.casing.losses, u.casing.until = 0, time.Time{}
	default:
		if u.casing.losses++; u.casing.losses >= caseLosses {
			u.casing.until = f.now().Add(caseRest)
		}
	}
	lost := u.casing.losses >= caseLosses
	if lost == (was.losses >= caseLosses) {
		return
	}
	f.metrics.setCase(u)
	if lost && !was.said {
		u.casing.said = true
		f.log.Warn("an upstream does not keep the capitals of names and is asked without: that makes answers in its name easier to forge",
			"zone", u.zone, "upstream", u.label)
	}
}
