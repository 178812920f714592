package wire

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"strconv"
)

// Answer is what the server said. Its bytes lie in the connection's buffer.
type Answer struct {
	Status int
	Reason []byte
	Body   []byte
	Close  bool // the connection ends with this answer

	fields []byte // header lines
}

// Fields returns the values of all header fields of a name, compared without
// regard to case.
func (a *Answer) Fields(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := a.fields; len(rest) > 0; {
			line, after, _ := bytes.Cut(rest, crlf)
			rest = after
			if got, value, _ := bytes.Cut(line, colon); equalFold(got, name) && !yield(bytes.Trim(value, " \t")) {
				return
			}
		}
	}
}

// Field returns the first value of a header field, nil when there is none.
func (a *Answer) Field(name string) []byte {
	for value := range a.Fields(name) {
		return value
	}
	return nil
}

var (
	crlf    = []byte("\r\n")
	endHead = []byte("\r\n\r\n")
	colon   = []byte(":")

	errMalformed = errors.New("malformed HTTP answer")
	errExcess    = errors.New("malformed HTTP answer: bytes after its end")
)

// equalFold compares ASCII letters without regard to case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// read reads one final answer; interim ones (100 Continue) are dropped.
func (c *Conn) read() error {
	for {
		size, err := c.readHead()
		if err != nil {
			return err
		}
		if c.answer.Status >= 200 {
			return c.readBody(size)
		}
		n := copy(c.buf, c.buf[size:c.filled])
		clear(c.buf[n:c.filled])
		c.filled = n
	}
}

// readHead reads and parses status line and header and returns their size.
func (c *Conn) readHead() (int, error) {
	for seen := 0; ; {
		if i := bytes.Index(c.buf[seen:c.filled], endHead); i >= 0 {
			size := seen + i + len(endHead)
			return size, c.answer.parse(c.buf[:size-len(crlf)])
		}
		seen = max(0, c.filled-len(endHead)+1)
		if err := c.fill(maxHead); err != nil {
			return 0, unexpected(err, c.filled)
		}
	}
}

// unexpected turns an end of input into an error when something had been read.
func unexpected(err error, filled int) error {
	if err == io.EOF && filled > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parse reads the head: status line and header lines, each ended by CRLF.
func (a *Answer) parse(head []byte) error {
	*a = Answer{}
	line, fields, _ := bytes.Cut(head, crlf)
	rest, http11 := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !http11 {
		var http10 bool
		if rest, http10 = bytes.CutPrefix(line, []byte("HTTP/1.0 ")); !http10 {
			return errMalformed
		}
	}
	code, reason, _ := bytes.Cut(rest, []byte(" "))
	status, ok := digits(code)
	if !ok || len(code) != 3 || status < 100 {
		return errMalformed
	}
	a.Status, a.Reason, a.fields = status, reason, fields
	for rest := fields; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, crlf)
		rest = after
		// A line end of another kind could hide a field from one of two readers.
		if i := bytes.IndexByte(line, ':'); i <= 0 || line[0] == ' ' || line[0] == '\t' || bytes.ContainsAny(line, "\r\n") {
			return errMalformed
		}
	}
	if bytes.ContainsAny(line, "\r\n") {
		return errMalformed
	}
	a.Close = !http11
	for value := range a.Fields("Connection") {
		switch {
		case equalFold(value, "close"):
			a.Close = true
		case equalFold(value, "keep-alive") && !http11:
			a.Close = false
		}
	}
	if !http11 && a.Field("Transfer-Encoding") != nil {
		return errMalformed
	}
	return nil
}

// readBody reads the body that follows a head of the given size.
func (c *Conn) readBody(head int) error {
	if c.answer.Status == 204 || c.answer.Status == 304 {
		return c.end(head, head)
	}
	if coding := c.answer.Field("Transfer-Encoding"); coding != nil {
		if !equalFold(coding, "chunked") {
			return errMalformed
		}
		return c.readChunks(head)
	}
	length := c.answer.Field("Content-Length")
	if length == nil {
		return c.readToEnd(head)
	}
	n, ok := digits(length)
	if !ok || n > maxBody {
		return errMalformed
	}
	for value := range c.answer.Fields("Content-Length") {
		if !bytes.Equal(value, length) {
			return errMalformed
		}
	}
	for c.filled < head+n {
		if err := c.fill(maxHead + maxBody); err != nil {
			return unexpected(err, c.filled)
		}
	}
	return c.end(head, head+n)
}

// end completes the answer, whose body lies between two offsets of the buffer.
// Growing may have moved the buffer since the head was parsed.
func (c *Conn) end(head, end int) error {
	if c.filled > end {
		return errExcess
	}
	closes := c.answer.Close
	if err := c.answer.parse(c.buf[:head-len(crlf)]); err != nil {
		return err
	}
	c.answer.Close = c.answer.Close || closes
	c.answer.Body = c.buf[head:end]
	return nil
}

func (c *Conn) readToEnd(head int) error {
	c.answer.Close = true
	for {
		if err := c.fill(maxHead + maxBody); err == io.EOF {
			return c.end(head, c.filled)
		} else if err != nil {
			return err
		}
	}
}

// readChunks reads a chunked body and moves its pieces together behind the head.
// Trailing fields are dropped.
func (c *Conn) readChunks(head int) error {
	from, to := head, head
	for {
		line, next, err := c.line(from)
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 32)
		if err != nil || n > maxBody {
			return errMalformed
		}
		from = next
		if n == 0 {
			break
		}
		for c.filled < from+int(n)+len(crlf) {
			if err := c.fill(maxHead + 2*maxBody); err != nil {
				return unexpected(err, c.filled)
			}
		}
		to += copy(c.buf[to:], c.buf[from:from+int(n)])
		from += int(n)
		if !bytes.HasPrefix(c.buf[from:c.filled], crlf) {
			return errMalformed
		}
		from += len(crlf)
	}
	for {
		line, next, err := c.line(from)
		if err != nil {
			return err
		}
		from = next
		if len(line) == 0 {
			break
		}
	}
	if c.filled > from {
		return errExcess
	}
	clear(c.buf[to:c.filled])
	c.filled = to
	return c.end(head, to)
}

// line returns the line that begins at an offset, without its end, and where the
// next one begins.
func (c *Conn) line(from int) ([]byte, int, error) {
	for {
		if i := bytes.Index(c.buf[from:c.filled], crlf); i >= 0 {
			return c.buf[from : from+i], from + i + len(crlf), nil
		}
		if c.filled-from > maxHead {
			return nil, 0, errMalformed
		}
		if err := c.fill(maxHead + 2*maxBody); err != nil {
			return nil, 0, unexpected(err, c.filled)
		}
	}
}

// digits reads a number of decimal digits and nothing else.
func digits(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int(d-'0')
	}
	return n, true
}
