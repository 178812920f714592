package token

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/edekd/edekd/hadoop/conf"
)

// Names of the properties ReadConfig reads.
const (
	UpdateIntervalProperty      = prefix + "update-interval.sec"
	MaxLifetimeProperty         = prefix + "max-lifetime.sec"
	RenewIntervalProperty       = prefix + "renew-interval.sec"
	RemovalScanIntervalProperty = prefix + "removal-scan-interval.sec"
	AlgorithmProperty           = "hadoop.security.secret-manager.key-generator.algorithm"
	KeyBitsProperty             = "hadoop.security.secret-manager.key-length"
	MaxTokensProperty           = "edekd.tokens.max"
	MaxPerOwnerProperty         = "edekd.tokens.max-per-owner"

	prefix = "hadoop.kms.authentication.delegation-token."
)

// DefaultMaxTokens bounds the tokens of a store: with names of usual length they
// take some 400 MB of memory.
const DefaultMaxTokens = 1_000_000

// DefaultMaxPerOwner bounds the tokens of one owner, so that nobody takes all of
// the store.
const DefaultMaxPerOwner = 10_000

// Config is what a Manager needs to know. All servers that share a store must
// agree on algorithm and lifetimes.
type Config struct {
	Store Store // required

	// UpdateInterval is how long a master key makes tokens (…update-interval.sec);
	// 0: a day.
	UpdateInterval time.Duration
	// MaxLifetime is how long a token lives however often it is renewed, and how
	// long a master key is kept after its last token (…max-lifetime.sec); 0: seven
	// days.
	MaxLifetime time.Duration
	// RenewInterval is how long a token lives without being renewed
	// (…renew-interval.sec); 0: a day.
	RenewInterval time.Duration
	// RemovalScanInterval is how often expired tokens are removed
	// (…removal-scan-interval.sec); 0: an hour.
	RemovalScanInterval time.Duration

	Algorithm string // JDK's name of the MAC; empty: DefaultAlgorithm
	KeyBits   int    // length of new master keys; 0: DefaultKeyBits
	MaxTokens int    // in the store; 0: DefaultMaxTokens
	// MaxPerOwner bounds the living tokens of one owner that this server issued
	// or renewed; 0: no bound.
	MaxPerOwner int

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: slog.Default()
}

const (
	// longest keeps sums of lifetimes within what a time can hold.
	longest = 100 * 365 * 24 * time.Hour
	// shortest keeps the background from spinning.
	shortest = time.Millisecond
)

// durations are the properties that are spans of time, with Hadoop's defaults.
var durations = []struct {
	property string
	field    func(*Config) *time.Duration
	def      time.Duration
}{
	{UpdateIntervalProperty, func(c *Config) *time.Duration { return &c.UpdateInterval }, 24 * time.Hour},
	{MaxLifetimeProperty, func(c *Config) *time.Duration { return &c.MaxLifetime }, 7 * 24 * time.Hour},
	{RenewIntervalProperty, func(c *Config) *time.Duration { return &c.RenewInterval }, 24 * time.Hour},
	{RemovalScanIntervalProperty, func(c *Config) *time.Duration { return &c.RemovalScanInterval }, time.Hour},
}

// ReadConfig reads the properties above. It leaves out Store, Now and Log. The
// error of a value that cannot be used is a *conf.ValueError.
func ReadConfig(c *conf.Configuration) (Config, error) {
	var cfg Config
	for _, d := range durations {
		seconds, err := c.Int64(d.property, int64(d.def/time.Second))
		if err != nil {
			return Config{}, err
		}
		*d.field(&cfg) = time.Duration(min(max(seconds, 0), 2*int64(longest/time.Second))) * time.Second
	}
	var err error
	if cfg.Algorithm, err = c.String(AlgorithmProperty, DefaultAlgorithm); err != nil {
		return Config{}, err
	}
	if cfg.KeyBits, err = c.Int(KeyBitsProperty, DefaultKeyBits); err != nil {
		return Config{}, err
	}
	if cfg.MaxTokens, err = c.Int(MaxTokensProperty, DefaultMaxTokens); err != nil {
		return Config{}, err
	}
	if cfg.MaxPerOwner, err = c.Int(MaxPerOwnerProperty, DefaultMaxPerOwner); err != nil {
		return Config{}, err
	}
	if property, says := cfg.wrong(); property != "" {
		return Config{}, c.Wrong(property, errors.New(says))
	}
	return cfg, nil
}

// complete fills in the defaults and checks everything.
func (c *Config) complete() error {
	if c.Store == nil {
		return errors.New("a store is required")
	}
	for _, d := range durations {
		if at := d.field(c); *at == 0 {
			*at = d.def
		}
	}
	c.Algorithm = cmp.Or(c.Algorithm, DefaultAlgorithm)
	c.KeyBits = cmp.Or(c.KeyBits, DefaultKeyBits)
	c.MaxTokens = cmp.Or(c.MaxTokens, DefaultMaxTokens)
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	if property, says := c.wrong(); property != "" {
		return fmt.Errorf("%s %s", property, says)
	}
	return nil
}

// wrong returns the first property that cannot be used, and why; nothing when
// all can.
func (c *Config) wrong() (property, says string) {
	for _, d := range durations {
		if at := *d.field(c); at < shortest || at > longest {
			return d.property, fmt.Sprintf("is not a number of seconds from 1 to %d", longest/time.Second)
		}
	}
	switch {
	case hashOf(c.Algorithm) == nil:
		return AlgorithmProperty, "is not a MAC known here: use one of " + algorithmNames()
	case c.KeyBits < keyBitsMin || c.KeyBits > keyBitsMax:
		return KeyBitsProperty, fmt.Sprintf("is not a number of bits from %d to %d", keyBitsMin, keyBitsMax)
	case c.MaxTokens < 1:
		return MaxTokensProperty, "is not a number of tokens above 0"
	case c.MaxPerOwner < 0:
		return MaxPerOwnerProperty, "is not a number of tokens, or 0 for no bound"
	}
	return "", ""
}

// check refuses what would not fit into a token, or what nobody could read
// again.
func (q *Request) check() error {
	if q.Owner == "" {
		return &Error{ClassIO, "a delegation token needs an owner"}
	}
	for _, name := range []string{q.Owner, q.RealUser, q.Renewer} {
		if len(name) > issueNameMax || !utf8.ValidString(name) {
			return &Error{ClassIO, fmt.Sprintf("a name of %d bytes cannot be put into a delegation token: it must be UTF-8 of at most %d bytes", len(name), issueNameMax)}
		}
	}
	if len(q.Service) > labelMax || !utf8.ValidString(q.Service) {
		return &Error{ClassIO, fmt.Sprintf("a service of %d bytes cannot be put into a delegation token: it must be UTF-8 of at most %d bytes", len(q.Service), labelMax)}
	}
	return nil
}
