package pki

// Kind is the kind of a Fault.
type Kind string

// The kinds of faults.
const (
	// Unreadable is a file that is missing or may not be read.
	Unreadable Kind = "unreadable"
	// Malformed is a file that does not hold what it should.
	Malformed Kind = "malformed"
	// KeyMismatch is a private key that does not belong to the certificate.
	KeyMismatch Kind = "key-mismatch"
	// Unsupported is a key that TLS cannot use.
	Unsupported Kind = "unsupported"
	// Expired is a certificate that has expired.
	Expired Kind = "expired"
	// ExpiresSoon is a certificate that expires soon.
	ExpiresSoon Kind = "expires-soon"
	// NotYetValid is a certificate that is not valid yet.
	NotYetValid Kind = "not-yet-valid"
	// NameMissing is a name that the certificate does not cover.
	NameMissing Kind = "name-missing"
	// WrongUsage is a certificate that is not meant for this purpose.
	WrongUsage Kind = "wrong-usage"
	// Untrusted is a certificate that does not chain to the CA.
	Untrusted Kind = "untrusted"
	// KeyExposed is a private key that other users can read or replace.
	KeyExposed Kind = "key-exposed"
	// WeakKey is a key that is too short.
	WeakKey Kind = "weak-key"
	// WeakSignature is a signature made with a broken hash function.
	WeakSignature Kind = "weak-signature"
)

// Fault is something wrong with a certificate, a key or a CA. It is an error.
type Fault struct {
	// Kind is the kind of the fault.
	Kind Kind
	// File is the file with the fault.
	File string
	// Problem says what is wrong, in words that follow the name of the file.
	Problem string
	// Remedy says what to do.
	Remedy string
	// Warning says that connections are made nevertheless.
	Warning bool
}

// Error returns one line: the file, what is wrong with it, and what to do.
func (f *Fault) Error() string { return f.File + " " + f.Problem + ": " + f.Remedy }
