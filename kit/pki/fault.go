package pki

// Kind says what sort of fault a Fault is.
type Kind string

// The kinds of faults.
const (
	// Unreadable is a file that is missing or may not be read.
	Unreadable Kind = "unreadable"
	// Malformed is a file that does not hold what it should.
	Malformed Kind = "malformed"
	// KeyMismatch is a private key that is not the certificate's.
	KeyMismatch Kind = "key-mismatch"
	// Unsupported is a key that TLS cannot be spoken with.
	Unsupported Kind = "unsupported"
	// Expired is a certificate whose time is over.
	Expired Kind = "expired"
	// ExpiresSoon is a certificate whose time is nearly over.
	ExpiresSoon Kind = "expires-soon"
	// NotYetValid is a certificate whose time has not come.
	NotYetValid Kind = "not-yet-valid"
	// NameMissing is a name the certificate is not for.
	NameMissing Kind = "name-missing"
	// WrongUsage is a certificate that is not meant for this purpose.
	WrongUsage Kind = "wrong-usage"
	// Untrusted is a certificate that does not lead to the CA.
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
	// Kind says what sort of fault it is.
	Kind Kind
	// File is where it was found.
	File string
	// Problem says what is wrong; it goes on from the name of the file.
	Problem string
	// Remedy says what to do.
	Remedy string
	// Warning says that connections are made all the same.
	Warning bool
}

// Error is one line: the file, what is wrong with it, and what to do.
func (f *Fault) Error() string { return f.File + " " + f.Problem + ": " + f.Remedy }
