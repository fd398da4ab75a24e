package forward

import "time"

const (
	// caseLosses is the number of responses in a row that must lose the capitals of the query before an upstream is asked without
	// capitals.
	caseLosses = 3
	// caseRest is how long the upstream is then asked without them. Afterwards, a single further loss begins the next rest.
	caseRest = time.Hour
)

// capitals says whether a response preserves the capitals of the query.
type capitals uint8

const (
	// capitalsUnknown is for queries without capitals, and for responses that may be forged.
	capitalsUnknown capitals = iota
	capitalsKept
	capitalsLost
)

// casing is what is known about how an upstream treats capitals. A response over UDP may be forged by an attacker who wants capitals to
// be given up, so only responses over TCP show that they are lost.
type casing struct {
	losses int       // in a row
	until  time.Time // asked without capitals until then
	said   bool
}

// randomCase reports whether an upstream is to be asked with random capitals.
func (f *Forwarder) randomCase(s *settings, u *upstream) bool {
	if !s.RandomCase || u.TLS { // nobody can forge responses over TLS
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !f.now().Before(u.casing.until)
}

// noteCase records whether a response preserved the capitals of its query.
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
