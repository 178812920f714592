package kms

import "fmt"

// URIError is what ParseURI says of a URI that names no KMS.
type URIError struct {
	URI  string
	What string // what is wrong, as said of the URI
}

func (e *URIError) Error() string {
	return fmt.Sprintf("provider URI %q %s: write it like kms://https@kms1;kms2:9600/kms", e.URI, e.What)
}
