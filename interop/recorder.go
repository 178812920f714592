package interop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// answerTimeout bounds the wait for one answer. It is longer than the time a server
// gives a client to finish its request.
const answerTimeout = 45 * time.Second

// Header is one header line of an answer.
type Header struct{ Name, Value string }

// Answer is what came back, taken apart but not interpreted: the reason phrase
// and the order of the headers are kept, because clients look at the former
// and readers of a record at the latter. Chunked bodies are joined.
type Answer struct {
	Interim []int // 1xx statuses that came before
	Proto   string
	Status  int
	Reason  string
	Headers []Header
	Body    []byte
	// Broken says how the connection ended instead of with a complete answer;
	// empty when the answer is complete.
	Broken string
}

// Get returns the values of the header with that name, joined with " | "
// when it came more than once.
func (a *Answer) Get(name string) string {
	var values []string
	for _, h := range a.Headers {
		if strings.EqualFold(h.Name, name) {
			values = append(values, h.Value)
		}
	}
	return strings.Join(values, " | ")
}

// Do sends e on a new connection and returns the answers. Errors are mistakes
// of the list or a server that cannot be reached; a connection that breaks is
// an answer.
func (r *Run) Do(e *Exchange) ([]*Answer, error) {
	head, body, err := r.Expand(e)
	if err != nil {
		return nil, fmt.Errorf("exchange %s: %w", e.Name, err)
	}
	conn, err := net.DialTimeout("tcp", r.Addr, answerTimeout)
	if err != nil {
		return nil, fmt.Errorf("exchange %s: %w", e.Name, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	method, _, _ := strings.Cut(string(head), " ")

	var answers []*Answer
	if e.ExpectContinue {
		answers, err = sendAfterContinue(conn, in, head, body)
		if err != nil {
			return nil, fmt.Errorf("exchange %s: %w", e.Name, err)
		}
	} else {
		// A server may refuse and close before it has read everything; what it
		// said before is what counts, so a failed write is no error.
		_, _ = conn.Write(append(head, body...))
	}
	if e.HalfClose {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	for len(answers) < e.Responses {
		a := readAnswer(in, method == "HEAD")
		answers = append(answers, a)
		if a.Broken != "" {
			break
		}
	}
	r.answers[e.Name] = answers
	return answers, nil
}

// sendAfterContinue sends the head, waits for the server's word, and sends the
// body only if that word was 100. A final status instead is the answer.
func sendAfterContinue(conn net.Conn, in *bufio.Reader, head, body []byte) ([]*Answer, error) {
	if _, err := conn.Write(head); err != nil {
		return nil, err
	}
	peek, err := in.Peek(len("HTTP/1.1 100"))
	if err != nil {
		return []*Answer{{Broken: brokenBy(err)}}, nil
	}
	if !bytes.HasSuffix(peek, []byte(" 100")) {
		return []*Answer{readAnswer(in, false)}, nil
	}
	_, err = conn.Write(body)
	return nil, err
}

func brokenBy(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no complete answer in time"
	}
	return "connection closed"
}

// readAnswer reads one final answer and the interim ones before it.
func readAnswer(in *bufio.Reader, headOnly bool) *Answer {
	a := &Answer{}
	for {
		line, err := readLine(in)
		if err != nil {
			a.Broken = brokenBy(err)
			return a
		}
		proto, rest, _ := strings.Cut(line, " ")
		code, reason, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil || !strings.HasPrefix(proto, "HTTP/") {
			a.Broken = "not HTTP: " + strconv.Quote(line)
			return a
		}
		var headers []Header
		for {
			line, err := readLine(in)
			if err != nil {
				a.Broken = brokenBy(err)
				return a
			}
			if line == "" {
				break
			}
			name, value, _ := strings.Cut(line, ":")
			headers = append(headers, Header{name, strings.TrimSpace(value)})
		}
		if status >= 100 && status < 200 {
			a.Interim = append(a.Interim, status)
			continue
		}
		a.Proto, a.Status, a.Reason, a.Headers = proto, status, reason, headers
		break
	}
	if headOnly || a.Status == 204 || a.Status == 304 {
		return a
	}
	var err error
	switch length := a.Get("Content-Length"); {
	case strings.EqualFold(a.Get("Transfer-Encoding"), "chunked"):
		a.Body, err = readChunks(in)
	case length != "":
		var n int
		if n, err = strconv.Atoi(length); err == nil {
			a.Body = make([]byte, n)
			_, err = io.ReadFull(in, a.Body)
		}
	default:
		a.Body, err = io.ReadAll(in)
	}
	if err != nil {
		a.Broken = brokenBy(err)
	}
	return a
}

func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func readChunks(in *bufio.Reader) ([]byte, error) {
	var body []byte
	for {
		line, err := readLine(in)
		if err != nil {
			return body, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
		if err != nil {
			return body, err
		}
		if n == 0 {
			_, err := readLine(in)
			return body, err
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return body, err
		}
		body = append(body, chunk...)
		if _, err := readLine(in); err != nil {
			return body, err
		}
	}
}
