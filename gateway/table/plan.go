package table

// Plan says what becomes of header fields on the way through the gateway. Names are in their canonical form.
type Plan struct {
	// Forwarded, XForwarded, Via and RequestID say which fields are sent.
	Forwarded, XForwarded, Via, RequestID bool
	// KeepAuthorization passes the Authorization header field on.
	KeepAuthorization bool
	// Claims are header fields and the claims of the token they hold.
	Claims []Field
	// Set and Remove change fields of the request, SetResponse and RemoveResponse those of the response.
	Set, SetResponse       []Field
	Remove, RemoveResponse []string
}

// Field is a header field and its value, or the claim that has it.
type Field struct{ Name, Value string }
