package protect

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"
)

// Lengths of the data of the COOKIE option in octets (RFC 7873 4, RFC 9018 4).
const (
	// ClientCookieSize is the length of a client cookie.
	ClientCookieSize = 8
	// CookieSize is the length of what Append appends: a client cookie and a server cookie.
	CookieSize = ClientCookieSize + serverCookieSize

	serverCookieSize = 16
	leastServer      = 8
	mostServer       = 32
)

// cookieVersion is the only version of server cookies (RFC 9018 4.1).
const cookieVersion = 1

// The maximum age of a server cookie, its age for renewal, and how far ahead its time stamp may be (RFC 9018 4.3).
const (
	oldestCookie = time.Hour
	renewCookie  = 30 * time.Minute
	newestCookie = 5 * time.Minute
)

// Verdict is the result of checking the cookie of a query.
type Verdict uint8

// The verdicts.
const (
	// CookieNone means that the query has no COOKIE option.
	CookieNone Verdict = iota
	// CookieMalformed means that the data has an invalid length, which is answered with FORMERR (RFC 7873 5.2.2).
	CookieMalformed
	// CookieClientOnly means that the client has no server cookie yet; it learns one from the response.
	CookieClientOnly
	// CookieBad means that the server cookie is not ours, too old, or not for this client; treated like CookieClientOnly.
	CookieBad
	// CookieValid means that the client receives what is sent to its address.
	CookieValid
	// CookieRenew is CookieValid, but the response should carry a new server cookie: this one is getting old, or made with
	// a previous secret.
	CookieRenew
)

// Genuine reports whether the client is known to receive what is sent to its address.
func (v Verdict) Genuine() bool { return v == CookieValid || v == CookieRenew }

// Cookies makes and checks server cookies (RFC 7873) in the form of RFC 9018, so that different servers at one address
// accept each other's. It never changes.
type Cookies struct {
	secrets []Secret
}

// NewCookies returns Cookies that make cookies with secret, and also accept those made with a previous one (RFC 9018 5).
func NewCookies(secret Secret, previous ...Secret) *Cookies {
	return &Cookies{secrets: append([]Secret{secret}, previous...)}
}

// Check returns the verdict on the data of a query's COOKIE option; nil means that there was none.
func (c *Cookies) Check(option []byte, client netip.Addr, now time.Time) Verdict {
	server := len(option) - ClientCookieSize
	switch {
	case option == nil:
		return CookieNone
	case server == 0:
		return CookieClientOnly
	case server < leastServer || server > mostServer:
		return CookieMalformed
	case server != serverCookieSize || option[ClientCookieSize] != cookieVersion:
		return CookieBad
	}
	// Serial number arithmetic (RFC 1982): the time stamp wraps around in 2106.
	stamp := binary.BigEndian.Uint32(option[ClientCookieSize+4:])
	age := time.Duration(int32(uint32(now.Unix())-stamp)) * time.Second //nolint:gosec // see above
	if age > oldestCookie || age < -newestCookie {
		return CookieBad
	}
	made := option[:ClientCookieSize+8]
	for i := range c.secrets {
		var hash [8]byte
		binary.LittleEndian.PutUint64(hash[:], c.secrets[i].hash(made, client))
		if subtle.ConstantTimeCompare(hash[:], option[len(made):]) == 1 {
			if i > 0 || age > renewCookie {
				return CookieRenew
			}
			return CookieValid
		}
	}
	return CookieBad
}

// Append appends the data of a response's COOKIE option, CookieSize octets: the client cookie, of which there must be at
// least ClientCookieSize octets, and a new server cookie.
func (c *Cookies) Append(buf, clientCookie []byte, client netip.Addr, now time.Time) []byte {
	begin := len(buf)
	buf = append(buf, clientCookie[:ClientCookieSize]...)
	buf = append(buf, cookieVersion, 0, 0, 0)
	buf = binary.BigEndian.AppendUint32(buf, uint32(now.Unix())) //nolint:gosec // a serial number
	return binary.LittleEndian.AppendUint64(buf, c.secrets[0].hash(buf[begin:], client))
}

// hash returns the hash of RFC 9018 4.4 over the client cookie, the server cookie up to the hash, and the address.
func (s *Secret) hash(made []byte, client netip.Addr) uint64 {
	var input [ClientCookieSize + 8 + 16]byte
	n := copy(input[:], made)
	if client = client.Unmap(); client.Is4() {
		a := client.As4()
		n += copy(input[n:], a[:])
	} else {
		a := client.As16()
		n += copy(input[n:], a[:])
	}
	return sipHash((*[16]byte)(s), input[:n])
}
