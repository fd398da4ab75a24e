package protect

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"
)

// Lengths of the data of the option in octets (RFC 7873 4, RFC 9018 4).
const (
	// ClientCookieSize is the length of a client cookie.
	ClientCookieSize = 8
	// CookieSize is the length of what Append makes: the client cookie and that of the server.
	CookieSize = ClientCookieSize + serverCookieSize

	serverCookieSize = 16
	leastServer      = 8
	mostServer       = 32
)

// The one version of a server cookie there is (RFC 9018 4.1).
const cookieVersion = 1

// How old a server cookie may be, and how far ahead the clock that stamped it (RFC 9018 4.3).
const (
	oldestCookie = time.Hour
	renewCookie  = 30 * time.Minute
	newestCookie = 5 * time.Minute
)

// Verdict is what a query's cookie is worth.
type Verdict uint8

// The verdicts.
const (
	// CookieNone is for a query without the option.
	CookieNone Verdict = iota
	// CookieMalformed is for data of a length there is not, which is answered with FORMERR (RFC 7873 5.2.2).
	CookieMalformed
	// CookieClientOnly is for a client that has no server cookie yet; it learns one from the answer.
	CookieClientOnly
	// CookieBad is for a server cookie that is not ours, or too old, or not for this client; treated like CookieClientOnly.
	CookieBad
	// CookieValid says that the client receives what is sent to its address.
	CookieValid
	// CookieRenew is CookieValid where the answer should bring a new server cookie: this one is getting old, or made with
	// the previous secret.
	CookieRenew
)

// Genuine reports whether the client is known to receive what is sent to its address.
func (v Verdict) Genuine() bool { return v == CookieValid || v == CookieRenew }

// Cookies makes server cookies and checks them (RFC 7873, in the form of RFC 9018, so that servers of different make at one
// address understand each other's). It never changes.
type Cookies struct {
	secrets []Secret
}

// NewCookies makes cookies with a secret; those made with one of the previous ones are taken, too (RFC 9018 5).
func NewCookies(secret Secret, previous ...Secret) *Cookies {
	return &Cookies{secrets: append([]Secret{secret}, previous...)}
}

// Check says what the data of a query's cookie option is worth; nil says that there was none.
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
	// The difference of serial numbers (RFC 1982): the time stamp goes round in 2106.
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

// Append appends the data of an answer's cookie option, CookieSize octets: the client cookie, of which there have to be
// ClientCookieSize octets, and a new server cookie.
func (c *Cookies) Append(buf, clientCookie []byte, client netip.Addr, now time.Time) []byte {
	begin := len(buf)
	buf = append(buf, clientCookie[:ClientCookieSize]...)
	buf = append(buf, cookieVersion, 0, 0, 0)
	buf = binary.BigEndian.AppendUint32(buf, uint32(now.Unix())) //nolint:gosec // a serial number
	return binary.LittleEndian.AppendUint64(buf, c.secrets[0].hash(buf[begin:], client))
}

// hash is that of RFC 9018 4.4: of the client cookie, the server cookie up to the hash, and the address.
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
