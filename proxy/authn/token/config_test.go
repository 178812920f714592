package token

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

func configuration(t *testing.T, properties map[string]string) *conf.Configuration {
	t.Helper()
	c := conf.New(func(string) (string, bool) { return "", false }, nil)
	for name, value := range properties {
		c.Override(name, value, "test")
	}
	return c
}

func TestReadConfig(t *testing.T) {
	f := func(properties map[string]string, want Config) {
		t.Helper()
		got, err := ReadConfig(configuration(t, properties))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %+v, %v, want %+v", properties, got, err, want)
		}
	}
	f(nil, Config{
		UpdateInterval: 24 * time.Hour, MaxLifetime: 7 * 24 * time.Hour, RenewInterval: 24 * time.Hour, RemovalScanInterval: time.Hour,
		Algorithm: "HmacSHA1", KeyBits: 64, MaxTokens: 1000000, MaxPerOwner: 10000,
	})
	f(map[string]string{
		"hadoop.kms.authentication.delegation-token.update-interval.sec":       "1",
		"hadoop.kms.authentication.delegation-token.max-lifetime.sec":          "2",
		"hadoop.kms.authentication.delegation-token.renew-interval.sec":        "3",
		"hadoop.kms.authentication.delegation-token.removal-scan-interval.sec": "4",
		"hadoop.security.secret-manager.key-generator.algorithm":               "HmacSHA256",
		"hadoop.security.secret-manager.key-length":                            "256",
		"edekd.tokens.max":           "5",
		"edekd.tokens.max-per-owner": "0",
	}, Config{
		UpdateInterval: time.Second, MaxLifetime: 2 * time.Second, RenewInterval: 3 * time.Second, RemovalScanInterval: 4 * time.Second,
		Algorithm: "HmacSHA256", KeyBits: 256, MaxTokens: 5,
	})
}

func TestReadConfigRefuses(t *testing.T) {
	f := func(property, value, says string) {
		t.Helper()
		_, err := ReadConfig(configuration(t, map[string]string{property: value}))
		at := (*conf.ValueError)(nil)
		if !errors.As(err, &at) || at.Property.Name != property || !strings.Contains(err.Error(), says) {
			t.Errorf("%s=%s: %v", property, value, err)
		}
	}
	for _, d := range durations {
		f(d.property, "0", "seconds from 1")
		f(d.property, "-1", "seconds from 1")
		f(d.property, "9223372036854775807", "seconds from 1")
		f(d.property, "soon", "not a whole number")
	}
	f(AlgorithmProperty, "HmacMD5", "use one of HmacSHA1, HmacSHA224, HmacSHA256, HmacSHA384, HmacSHA512")
	f(KeyBitsProperty, "39", "bits from 40 to 4096")
	f(KeyBitsProperty, "4097", "bits from 40 to 4096")
	f(MaxTokensProperty, "0", "above 0")
	f(MaxPerOwnerProperty, "-1", "0 for no bound")
}

func TestNewRefuses(t *testing.T) {
	f := func(cfg Config, says string) {
		t.Helper()
		if m, err := New(t.Context(), cfg); m != nil || err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v", err)
		}
	}
	f(Config{}, "store")
	f(Config{Store: NewMemory(), MaxLifetime: -1}, MaxLifetimeProperty)
	f(Config{Store: NewMemory(), Algorithm: "none"}, AlgorithmProperty)
	f(Config{Store: NewMemory(), KeyBits: 8}, KeyBitsProperty)
	f(Config{Store: NewMemory(), MaxTokens: -1}, MaxTokensProperty)
}
