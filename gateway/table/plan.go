package table

// Plan says how header fields are changed on the way through the gateway. Names are in canonical form.
type Plan struct {
	// Forwarded, XForwarded, Via and RequestID say which of these fields are sent.
	Forwarded, XForwarded, Via, RequestID bool
	// KeepAuthorization says that the Authorization header field is passed on.
	KeepAuthorization bool
	// Claims lists header fields and the token claims they carry.
	Claims []Field
	// Set and Remove change header fields of the request, SetResponse and RemoveResponse those of the response.
	Set, SetResponse       []Field
	Remove, RemoveResponse []string
}

// Field is a header field with its value, or with the claim that provides the value.
type Field struct{ Name, Value string }
