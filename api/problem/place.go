package problem

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Place is the part of a request that is being checked: the whole request, a member, or an element of a list.
type Place struct {
	// At is the path of the part, as in InvalidParam.Name; "" is the whole request.
	At string
	// Faults collects the faults.
	Faults *InvalidParams
	// Most is the maximum number of faults to collect, 0 for no limit.
	Most int
}

// Path returns the path of the named member, or of the place itself when name is "".
func (p Place) Path(name string) string {
	switch {
	case p.At == "":
		return name
	case name == "":
		return p.At
	}
	return p.At + "." + name
}

// In returns the place of the named member.
func (p Place) In(name string) Place {
	p.At = p.Path(name)
	return p
}

// Item returns the place of element i, counted from 0, of the named list.
func (p Place) Item(name string, i int) Place {
	p.At = fmt.Sprintf("%s[%d]", p.Path(name), i)
	return p
}

// Full reports whether the maximum number of faults has been collected.
func (p Place) Full() bool { return p.Most > 0 && len(*p.Faults) >= p.Most }

// Fault records a fault of a member, unless that member or an element of it already has one: a member whose type was refused is not also
// reported as missing.
func (p Place) Fault(name, reason string) {
	if p.Full() {
		return
	}
	path := p.Path(name)
	for _, f := range *p.Faults {
		if f.Name == path || strings.HasPrefix(f.Name, path+"[") {
			return
		}
	}
	p.Faults.Add(path, reason)
}

// Check records err, which completes a sentence that starts with the name of the member. A nil err is ignored.
func (p Place) Check(name string, err error) {
	if err != nil {
		p.Fault(name, err.Error())
	}
}

// MaxQuoted is the maximum number of characters of a refused value that are quoted.
const MaxQuoted = 64

// Quote quotes a value of the request, shortened and with everything escaped that could upset a terminal or a log.
func Quote(value string) string {
	n := 0
	for i := range value {
		if n == MaxQuoted {
			return strconv.Quote(value[:i] + "…")
		}
		n++
	}
	return strconv.Quote(value)
}

// Refused returns an error that says what a value must be and what it is; it completes a sentence that starts with the name.
func Refused(want, value string) error {
	return errors.New("must be " + want + ", not " + Quote(value))
}
