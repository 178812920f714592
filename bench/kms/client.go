package kms

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edekd/edekd/bench/drive"
)

// EDEK is one encrypted key as the wire has it.
type EDEK struct {
	VersionName string          `json:"versionName"`
	IV          string          `json:"iv"`
	Inner       json.RawMessage `json:"encryptedKeyVersion"`
	Material    string          `json:"-"` // the wrapped key, of Inner
	Key         string          `json:"-"`
}

// Client prepares a measurement: it logs in, makes keys, takes EDEKs, and puts
// together the bytes that drive sends. It is not part of what is measured.
type Client struct {
	http *http.Client
	base string
	host string
}

// NewClient makes a client of one server, Java's too.
func NewClient(t drive.Target) *Client {
	c := &Client{host: "127.0.0.1:9600", base: "http://127.0.0.1:9600"}
	if t.Network == "tcp" {
		c.host, c.base = t.Addr, "http://"+t.Addr
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, t.Network, t.Addr)
		}}
	if t.TLS != nil {
		c.base = strings.Replace(c.base, "http", "https", 1)
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	c.http = &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	return c
}

// Disconnect closes the connections that are kept for later.
func (c *Client) Disconnect() { c.http.CloseIdleConnections() }

// Do sends one request as a user and returns the body of the answer.
func (c *Client) Do(user, method, path, body string) ([]byte, http.Header, error) {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	request, err := http.NewRequest(method, c.base+path+separator+"user.name="+url.QueryEscape(user), strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s %.500s", method, path, answer.Status, text)
	}
	return text, answer.Header, err
}

// Cookie logs a user in and returns his line of a request's header.
func (c *Client) Cookie(user string) (string, error) {
	_, header, err := c.Do(user, "OPTIONS", "/kms/v1/", "")
	if err != nil {
		return "", err
	}
	for _, set := range header.Values("Set-Cookie") {
		if value, _, _ := strings.Cut(set, ";"); strings.HasPrefix(value, "hadoop.auth=") {
			return "Cookie: " + value + "\r\n", nil
		}
	}
	return "", fmt.Errorf("no cookie for %s: %v", user, header)
}

// Token takes a delegation token and returns the owner's line of a request's
// header.
func (c *Client) Token(user string) (string, error) {
	text, _, err := c.Do(user, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&renewer=yarn", "")
	if err != nil {
		return "", err
	}
	var answer struct{ Token struct{ URLString string } }
	if err := json.Unmarshal(text, &answer); err != nil || answer.Token.URLString == "" {
		return "", fmt.Errorf("no token in %s: %w", text, err)
	}
	return "X-Hadoop-Delegation-Token: " + answer.Token.URLString + "\r\n", nil
}

// Create makes a key of 256 bits.
func (c *Client) Create(name string) error {
	_, _, err := c.Do(NameNode, "POST", "/kms/v1/keys", `{"name":"`+name+`","cipher":"AES/CTR/NoPadding","length":256}`)
	return err
}

// Roll gives a key a new version and returns that version's name.
func (c *Client) Roll(name string) (string, error) {
	text, _, err := c.Do(NameNode, "POST", "/kms/v1/key/"+name, "{ }")
	if err != nil {
		return "", err
	}
	var version struct{ VersionName string }
	err = json.Unmarshal(text, &version)
	return version.VersionName, err
}

// Drain makes the server forget what it has ready of a key.
func (c *Client) Drain(name string) error {
	_, _, err := c.Do(NameNode, "POST", "/kms/v1/key/"+name+"/_invalidatecache", "")
	return err
}

// Generate takes new EDEKs of a key.
func (c *Client) Generate(name string, n int) ([]EDEK, error) {
	text, _, err := c.Do(NameNode, "GET", "/kms/v1/key/"+name+"/_eek?eek_op=generate&num_keys="+strconv.Itoa(n), "")
	if err != nil {
		return nil, err
	}
	var edeks []EDEK
	if err := json.Unmarshal(text, &edeks); err != nil {
		return nil, err
	}
	for i := range edeks {
		var inner struct{ Material string }
		if err := json.Unmarshal(edeks[i].Inner, &inner); err != nil {
			return nil, err
		}
		edeks[i].Material, edeks[i].Key = inner.Material, name
	}
	if len(edeks) != n {
		return nil, fmt.Errorf("asked for %d EDEKs, got %d", n, len(edeks))
	}
	return edeks, nil
}

// Metrics returns the values of /metrics by their full names. The Java KMS has
// none.
func (c *Client) Metrics() (map[string]float64, error) {
	text, _, err := c.Do(NameNode, "GET", "/metrics", "")
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for line := range bytes.Lines(text) {
		text := strings.TrimSpace(string(line))
		at := strings.LastIndexByte(text, ' ') // labels may hold spaces
		if at < 0 || text[0] == '#' {
			continue
		}
		if values[text[:at]], err = strconv.ParseFloat(text[at+1:], 64); err != nil {
			return nil, fmt.Errorf("the metric %s: %w", text[:at], err)
		}
	}
	return values, nil
}

// Each calls f for 0 to n-1 from a few goroutines until one fails.
func Each(n int, f func(i int) error) error {
	var next, failed = make(chan int), make(chan error, 16)
	var workers sync.WaitGroup
	for range cap(failed) {
		workers.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < n && err == nil; {
		select {
		case next <- i:
			i++
		case err = <-failed:
		}
	}
	close(next)
	workers.Wait()
	select {
	case more := <-failed:
		if err == nil {
			err = more
		}
	default:
	}
	return err
}

// Requests put together. auth is what Cookie or Token returned; more is appended
// to the query, as "&doAs=alice".

func (c *Client) request(method, target, auth, body string) []byte {
	length := ""
	if method == "POST" {
		length = "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return []byte(method + " " + target + " HTTP/1.1\r\nContent-Type: application/json\r\n" + auth +
		"Cache-Control: no-cache\r\nPragma: no-cache\r\nUser-Agent: Java/17.0.15\r\nHost: " + c.host +
		"\r\nAccept: text/html, image/gif, image/jpeg, */*; q=0.2\r\nConnection: keep-alive\r\n" + length + "\r\n" + body)
}

// GenerateRequest asks for n EDEKs as a NameNode does.
func (c *Client) GenerateRequest(key string, n int, auth, more string) []byte {
	return c.request("GET", "/kms/v1/key/"+key+"/_eek?num_keys="+strconv.Itoa(n)+"&eek_op=generate"+more, auth, "")
}

// DecryptRequest asks for a DEK with the body Hadoop's client sends.
func (c *Client) DecryptRequest(e EDEK, auth, more string) []byte {
	return c.request("POST", "/kms/v1/keyversion/"+url.QueryEscape(e.VersionName)+"/_eek?eek_op=decrypt"+more, auth,
		"{\n  \"name\" : \""+e.Key+"\",\n  \"iv\" : \""+e.IV+"\",\n  \"material\" : \""+e.Material+"\"\n}")
}

// ReencryptRequest sends a batch to be brought to the key's current version.
func (c *Client) ReencryptRequest(edeks []EDEK, auth string) []byte {
	return c.request("POST", "/kms/v1/key/"+edeks[0].Key+"/_reencryptbatch", auth, batch(edeks))
}

// DecryptBatchRequest sends a batch to be decrypted.
func (c *Client) DecryptBatchRequest(edeks []EDEK, auth string) []byte {
	return c.request("POST", "/kms/v1/key/"+edeks[0].Key+"/_decryptbatch", auth, batch(edeks))
}

// MetricsRequest scrapes the metrics.
func (c *Client) MetricsRequest() []byte { return c.request("GET", "/metrics", "", "") }

// RollRequest rolls a key.
func (c *Client) RollRequest(key, auth string) []byte {
	return c.request("POST", "/kms/v1/key/"+key, auth, "{ }")
}

var spaces = regexp.MustCompile(`\s+`)

// batch is a list of EDEKs as Hadoop's client writes it.
func batch(edeks []EDEK) string {
	var b strings.Builder
	for i, e := range edeks {
		separator := ","
		if i == 0 {
			separator = "["
		}
		fmt.Fprintf(&b, `%s {
  "versionName" : "%s",
  "iv" : "%s",
  "encryptedKeyVersion" : %s
}`, separator, e.VersionName, e.IV, spaces.ReplaceAll(e.Inner, []byte(" ")))
	}
	b.WriteString(" ]")
	return b.String()
}
