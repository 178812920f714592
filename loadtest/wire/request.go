package wire

import "strconv"

// Request is what one request is made of.
type Request struct {
	Method string
	Target []byte // path and query, escaped
	Host   string // host:port as in the URL
	Auth   string // header lines that say who asks, each ended by CRLF; may be empty
	Body   []byte // nil sends none, and no Content-Length, as Java's client does
}

// Append appends the bytes of a request, with the header fields Hadoop's client
// sends.
func Append(dst []byte, r *Request) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Host...)
	dst = append(dst, "\r\n"...)
	dst = append(dst, r.Auth...)
	dst = append(dst, "Cache-Control: no-cache\r\nPragma: no-cache\r\nUser-Agent: edekload\r\n"+
		"Accept: text/html, image/gif, image/jpeg, */*; q=0.2\r\nConnection: keep-alive\r\n"...)
	if r.Body != nil || r.Method == "GET" {
		dst = append(dst, "Content-Type: application/json\r\n"...)
	}
	if r.Body != nil {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(r.Body)), 10)
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "\r\n"...)
	return append(dst, r.Body...)
}
