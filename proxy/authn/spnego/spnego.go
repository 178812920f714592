// Package spnego is the server's side of Kerberos over HTTP: it takes the token
// of an "Authorization: Negotiate" header and says which principal sent it.
//
// An Acceptor serves the HTTP/… principals of a keytab. It takes tokens of plain
// Kerberos, which Hadoop's Java client sends, and of SPNEGO around Kerberos,
// which curl, browsers and everything built on MIT's library send, and answers
// each in its own form, with the AP-REP that proves the server to a client that
// asked for mutual authentication. A client must prefer Kerberos, under its own
// object identifier or under Microsoft's: one that prefers NTLM and would also
// take Kerberos is refused.
//
// Tickets and session keys must be AES, with SHA1 or SHA2; RC4 and DES are
// refused. Tickets of clients in other realms are taken as their KDCs issued
// them. As with the Java server the realms on the way are not looked at (the
// rules that make user names from principals say which realms are trusted), and
// neither are the addresses in a ticket, which NAT makes meaningless. Delegated
// tickets are ignored. Anonymous principals are refused.
//
// # Replays
//
// Every authenticator is accepted once. Those accepted are remembered for twice
// the clock skew and half a minute, in this process: what one node accepted can
// be replayed to another one that holds the same key, and to the same one after
// a restart, for as long as clocks may be apart; and when this server's clock is
// set back by more than the skew, so can what was forgotten before. Only TLS
// helps against that.
// The memory is bounded. When it is full, fresh tokens are refused, too, as
// Full: a client that tries again later, or at another node, succeeds, and
// nothing is forgotten that could be replayed. One client can fill half of it.
//
// The JDK sends the identical token again when a connection breaks. It recovers
// when that is answered as an Error's Retry says.
package spnego

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/internal/krb5conf"
)

// httpService begins the names of the principals that serve HTTP.
const httpService = "HTTP/"

// lookupTime bounds the question for this host's name.
const lookupTime = 5 * time.Second

// Config is what an Acceptor needs to know.
type Config struct {
	// Keytab is the path of the file with the server's keys
	// (hadoop.kms.authentication.kerberos.keytab).
	Keytab string
	// Principal is whom the server answers for
	// (hadoop.kms.authentication.kerberos.principal): HTTP/host@REALM, several
	// such names with commas between them, or * for all HTTP/… principals of the
	// keytab. Without @REALM the default realm of krb5.conf is meant, and _HOST
	// stands for this host's full name in lower case.
	Principal string
	// Krb5Conf is the path of krb5.conf; empty: krb5conf.Path().
	Krb5Conf string
	// Host replaces _HOST; empty: this host's full name.
	Host string
	// Replays bounds how many authenticators are remembered; 0: DefaultReplays.
	Replays int
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Acceptor accepts tokens. It is safe for concurrent use.
type Acceptor struct {
	cfg     Config
	reload  sync.Mutex // held while a new state is made
	state   atomic.Pointer[state]
	replays *replays
	elapsed func() time.Duration // since New; does not follow changes of the clock
	counts  struct{ accepted, refused, replays, full atomic.Uint64 }
}

// state is what Reload replaces. It is immutable.
type state struct {
	keys  keyring
	realm string
	skew  time.Duration
	// After the skew was lowered, what was accepted until then stays remembered
	// as under the larger one, until all of it is too old.
	largerSkew  time.Duration
	largerUntil time.Duration // of Acceptor.elapsed
	// After the skew was raised, notBefore bounds the age of authenticators: some
	// of what is older was accepted and has been forgotten. It counts until all
	// that is older has left the skew, and no longer, lest a clock that was ahead
	// then and was put right keeps everybody out.
	notBefore      time.Time
	notBeforeUntil time.Duration // of Acceptor.elapsed
	warnings       []string
	files          []string
}

// remembered returns the largest skew under which an authenticator of which a
// replay could still be in time was accepted.
func (s *state) remembered(elapsed time.Duration) time.Duration {
	if elapsed < s.largerUntil {
		return max(s.skew, s.largerSkew)
	}
	return s.skew
}

// lifetime is how long authenticators are remembered that were accepted under a
// skew. They are good from one skew before the client's time to one after it.
func lifetime(skew time.Duration) time.Duration { return 2*skew + margin }

// follow takes over from the state before what this one has to know of it.
func (s *state) follow(old *state, now time.Time, elapsed time.Duration) {
	s.largerSkew, s.largerUntil = old.largerSkew, old.largerUntil
	s.notBefore, s.notBeforeUntil = old.notBefore, old.notBeforeUntil
	remembered := old.remembered(elapsed)
	if s.skew < old.skew {
		s.largerSkew, s.largerUntil = remembered, elapsed+lifetime(remembered)
	}
	if s.skew > remembered {
		if begin := now.Add(-remembered); elapsed >= s.notBeforeUntil || begin.After(s.notBefore) {
			s.notBefore = begin
		}
		s.notBeforeUntil = elapsed + s.skew
	}
}

// ConfigError tells what keeps an Acceptor from being made, and what to do.
type ConfigError struct {
	Field string // of Config: Keytab, Principal or Krb5Conf
	Err   error
}

func (e *ConfigError) Error() string { return e.Err.Error() }

func (e *ConfigError) Unwrap() error { return e.Err }

// New makes an Acceptor, or says what is wrong with its keytab, its principals
// or krb5.conf and what to do about it. Errors are *ConfigError.
func New(cfg Config) (*Acceptor, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Replays <= 0 {
		cfg.Replays = DefaultReplays
	}
	if cfg.Krb5Conf == "" {
		cfg.Krb5Conf = krb5conf.Path()
	}
	a := &Acceptor{cfg: cfg, replays: newReplays(cfg.Replays)}
	began := cfg.Now()
	a.elapsed = func() time.Duration { return cfg.Now().Sub(began) }
	if err := a.Reload(); err != nil {
		return nil, err
	}
	return a, nil
}

// Reload reads the keytab and krb5.conf again. On error, a *ConfigError, all
// stays as it was.
// Tickets last for hours after a change of keys, so that a new keytab ought to
// hold the old keys, too, under their versions. What was accepted before stays
// remembered.
func (a *Acceptor) Reload() error {
	a.reload.Lock()
	defer a.reload.Unlock()
	next, err := a.load()
	if err != nil {
		return err
	}
	if old := a.state.Load(); old != nil {
		next.follow(old, a.cfg.Now(), a.elapsed())
	}
	a.state.Store(next)
	return nil
}

func (a *Acceptor) load() (*state, error) {
	conf, err := krb5conf.Load(a.cfg.Krb5Conf)
	if err != nil {
		return nil, &ConfigError{"Krb5Conf", err}
	}
	names, err := a.names(conf.DefaultRealm())
	if err != nil {
		return nil, &ConfigError{"Principal", err}
	}
	entries, mode, err := readKeytab(a.cfg.Keytab)
	if err != nil {
		return nil, &ConfigError{"Keytab", fmt.Errorf("keytab: %w", err)}
	}
	s := &state{realm: conf.DefaultRealm(), skew: conf.ClockSkew()}
	s.keys, s.warnings, err = pick(entries, names, s.realm)
	s.keys.forgetOthers(entries)
	if err != nil {
		return nil, &ConfigError{"Keytab", fmt.Errorf("keytab %s: %w", a.cfg.Keytab, err)}
	}
	for i, w := range s.warnings {
		s.warnings[i] = fmt.Sprintf("keytab %s: %s", a.cfg.Keytab, w)
	}
	if mode&0o077 != 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("keytab %s: its mode %04o lets others read the server's keys: chmod 600", a.cfg.Keytab, mode.Perm()))
	}
	s.files = append([]string{a.cfg.Keytab}, conf.Files()...)
	return s, nil
}

// names splits Principal and fills in the host.
func (a *Acceptor) names(realm string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(a.cfg.Principal, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if name == "*" {
			return []string{"*"}, nil
		}
		host, ok := strings.CutPrefix(name, httpService)
		if !ok || host == "" {
			return nil, fmt.Errorf("principal %q: clients ask for HTTP/<host>, so the name must begin with HTTP/: correct it or use *", name)
		}
		host, at, given := strings.Cut(host, "@")
		if !given && realm == "" {
			return nil, fmt.Errorf("principal %q: it has no realm, and krb5.conf has no default_realm: append @REALM", name)
		}
		if host == "_HOST" {
			if host = a.cfg.Host; host == "" {
				var err error
				if host, err = localHost(); err != nil {
					return nil, fmt.Errorf("principal %q: the name of this host: %w: write it in the place of _HOST", name, err)
				}
			}
			host = strings.ToLower(host)
		}
		if name = httpService + host; given {
			name += "@" + at
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, errors.New("no principal is given: use HTTP/<host>@<REALM>, or * for all HTTP/ principals of the keytab")
	}
	return names, nil
}

// localHost returns the full name of this host: its own if that has a domain,
// else the one that the resolver has for its address, else the short one.
func localHost() (string, error) {
	name, err := os.Hostname()
	if err != nil || strings.Contains(name, ".") {
		return name, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return name, nil
	}
	for _, address := range addresses {
		full, err := net.DefaultResolver.LookupAddr(ctx, address)
		if err == nil && len(full) > 0 && strings.HasPrefix(full[0], name+".") {
			return strings.TrimSuffix(full[0], "."), nil
		}
	}
	return name, nil
}

// Accept verifies a token, decoded from base64 (see Decode). It returns the
// client's principal as name@REALM or service/host@REALM, and the token to send
// back as "WWW-Authenticate: Negotiate <base64>"; reply is nil when there is
// nothing to send. It keeps no reference to token.
//
// Errors are *Error. They are answered as Error.Retry says.
func (a *Acceptor) Accept(token []byte) (principal string, reply []byte, err error) {
	principal, reply, refusal := a.accept(token)
	if refusal == nil {
		a.counts.accepted.Add(1)
		return principal, reply, nil
	}
	switch refusal.Kind {
	case Replay:
		a.counts.replays.Add(1)
	case Full:
		a.counts.full.Add(1)
	default:
		a.counts.refused.Add(1)
	}
	return "", nil, refusal
}

// accept turns a panic of a parser below into a refusal.
func (a *Acceptor) accept(token []byte) (principal string, reply []byte, refusal *Error) {
	defer func() {
		if r := recover(); r != nil {
			principal, reply = "", nil
			refusal = refuse(Internal, "the token could not be read").because("panic: %v", r)
		}
	}()
	request, refusal := unwrap(token)
	if refusal != nil {
		return "", nil, refusal
	}
	return a.state.Load().verify(request, a.replays, a.cfg.Now(), a.elapsed())
}

// Principals returns whom the server answers for, as service/host@REALM.
func (a *Acceptor) Principals() []string { return a.state.Load().keys.names() }

// DefaultRealm returns the default realm of krb5.conf, "" where it has none.
func (a *Acceptor) DefaultRealm() string { return a.state.Load().realm }

// Warnings returns remarks on what was last loaded: whole sentences that name
// file and remedy. The caller must not change the slice.
func (a *Acceptor) Warnings() []string { return a.state.Load().warnings }

// Files returns the files and folders whose change is a reason to Reload. The
// caller must not change the slice.
func (a *Acceptor) Files() []string { return a.state.Load().files }

// Stats counts what became of tokens since New.
type Stats struct {
	Accepted   uint64
	Refused    uint64 // for other reasons than the next two
	Replays    uint64 // seen before
	Full       uint64 // refused because no more can be remembered
	Remembered int    // authenticators in memory now
}

// Stats returns the counts.
func (a *Acceptor) Stats() Stats {
	return Stats{
		Accepted:   a.counts.accepted.Load(),
		Refused:    a.counts.refused.Load(),
		Replays:    a.counts.replays.Load(),
		Full:       a.counts.full.Load(),
		Remembered: a.replays.size(),
	}
}
