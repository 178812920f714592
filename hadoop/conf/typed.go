package conf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// trim removes what Java's String.trim removes: control bytes and spaces of
// ASCII, no other space.
func trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
}

// typed reads the trimmed value of a property, or returns def when it is not
// set.
func typed[T any](c *Configuration, name string, def T, parse func(string) (T, error)) (T, error) {
	value, ok, err := c.Get(name)
	if err != nil || !ok {
		return def, err
	}
	value = trim(value)
	t, err := parse(value)
	if err != nil {
		p, _ := c.Lookup(name)
		return def, &ValueError{p, value, err}
	}
	return t, nil
}

// String returns the trimmed value of a property, def when it is not set.
func (c *Configuration) String(name, def string) (string, error) {
	return typed(c, name, def, func(s string) (string, error) { return s, nil })
}

// Int64 returns a whole number: decimal, or hexadecimal after 0x. A value that
// is set but empty is an error.
func (c *Configuration) Int64(name string, def int64) (int64, error) {
	return typed(c, name, def, func(s string) (int64, error) { return parseInt(s, 64) })
}

// Int is Int64 for numbers of 32 bits, Java's int.
func (c *Configuration) Int(name string, def int) (int, error) {
	return typed(c, name, def, func(s string) (int, error) {
		n, err := parseInt(s, 32)
		return int(n), err
	})
}

func parseInt(s string, bits int) (int64, error) {
	digits, base := s, 10
	unsigned, negative := strings.CutPrefix(s, "-")
	if hex, ok := strings.CutPrefix(strings.ToLower(unsigned), "0x"); ok {
		digits, base = hex, 16
		if negative {
			digits = "-" + hex
		}
	}
	n, err := strconv.ParseInt(digits, base, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("is beyond the numbers of %d bits", bits)
	case err != nil:
		return 0, errors.New("is not a whole number")
	}
	return n, nil
}

// Float returns a decimal fraction, as Java's Float.parseFloat reads it except
// that infinities and NaN are errors.
func (c *Configuration) Float(name string, def float64) (float64, error) {
	return typed(c, name, def, func(s string) (float64, error) {
		digits := s
		if n := len(s); n > 1 && strings.ContainsRune("fFdD", rune(s[n-1])) {
			digits = s[:n-1] // 0.3f, as Hadoop's own defaults write it
		}
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return 0, errors.New("is not a number")
		}
		return f, nil
	})
}

// Bool returns true or false, written in any case; def also when the value is
// empty. Anything else is an error, where Hadoop logs it and takes its
// default.
func (c *Configuration) Bool(name string, def bool) (bool, error) {
	return typed(c, name, def, func(s string) (bool, error) {
		switch strings.ToLower(s) {
		case "":
			return def, nil
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, errors.New("is neither true nor false")
	})
}

// Suffixes of durations in the order Hadoop tries them: "ms" ends in "s" too.
var suffixes = []struct {
	text string
	unit time.Duration
}{
	{"ns", time.Nanosecond},
	{"us", time.Microsecond},
	{"ms", time.Millisecond},
	{"s", time.Second},
	{"m", time.Minute},
	{"h", time.Hour},
	{"d", 24 * time.Hour},
}

// Duration returns a span of time: a whole number with one of the suffixes ns,
// us, ms, s, m, h, d in any case, or without suffix in the given unit.
func (c *Configuration) Duration(name string, def, unit time.Duration) (time.Duration, error) {
	return typed(c, name, def, func(s string) (time.Duration, error) {
		digits := strings.ToLower(s)
		for _, suffix := range suffixes {
			if rest, ok := strings.CutSuffix(digits, suffix.text); ok {
				digits, unit = rest, suffix.unit
				break
			}
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return 0, errors.New("is not a whole number, alone or followed by ns, us, ms, s, m, h or d")
		}
		if n > int64(math.MaxInt64/unit) || n < int64(math.MinInt64/unit) {
			return 0, errors.New("is too long a time")
		}
		return time.Duration(n) * unit, nil
	})
}

// Strings returns the elements of a list divided by commas or line ends:
// trimmed, without empty ones and repetitions.
func (c *Configuration) Strings(name string) ([]string, error) {
	return typed(c, name, nil, func(s string) ([]string, error) {
		var list []string
		for element := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == '\n' }) {
			if element = strings.Trim(element, " \t\n\v\f\r"); element != "" && !slices.Contains(list, element) {
				list = append(list, element)
			}
		}
		return list, nil
	})
}
