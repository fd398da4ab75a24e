package problem

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Place is a part of a request in which faults are looked for: the whole of it, a member, an element of a list.
type Place struct {
	// At is its path, as InvalidParam.Name has it; "" is the whole request.
	At string
	// Faults gets what is found.
	Faults *InvalidParams
	// Most is how many faults are collected, 0 for all.
	Most int
}

// Path is that of a member, or of the place itself, which is called "".
func (p Place) Path(name string) string {
	switch {
	case p.At == "":
		return name
	case name == "":
		return p.At
	}
	return p.At + "." + name
}

// In is the place of a member.
func (p Place) In(name string) Place {
	p.At = p.Path(name)
	return p
}

// Item is the place of an element, from 0, of the list that a member is.
func (p Place) Item(name string, i int) Place {
	p.At = fmt.Sprintf("%s[%d]", p.Path(name), i)
	return p
}

// Full reports whether no more faults are collected.
func (p Place) Full() bool { return p.Most > 0 && len(*p.Faults) >= p.Most }

// Fault records what is wrong with a member, unless something about the same one was recorded already: one whose type was refused is not
// reported a second time as missing.
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

// Check records an error that ends a sentence that starts with the name of the member. There may be none.
func (p Place) Check(name string, err error) {
	if err != nil {
		p.Fault(name, err.Error())
	}
}

// MaxQuoted is how many characters of a refused value are repeated.
const MaxQuoted = 64

// Quote shows a value of the request, shortened and without anything that could upset a terminal or a log.
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

// Refused says what a value must be and what it is, as the end of a sentence that starts with its name.
func Refused(want, value string) error {
	return errors.New("must be " + want + ", not " + Quote(value))
}
