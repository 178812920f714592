// Package groups finds the groups of a user the way Hadoop's servers do.
//
// New reads the same properties as org.apache.hadoop.security.Groups and
// returns a Cache over the mapping they name: the operating system's (through
// NSS, so that users of SSSD and winbind are seen in every build), none,
// an LDAP directory's, or several joined. A static table stands before it. The rules are those of
// Hadoop 3.4, except where a Java server overlooks a failure: there a look-up
// that fails looks like a user without groups, which quietly denies what is
// allowed and, where groups are blacklisted, allows what is denied. Here it is
// an error, always, and a mapping that cannot be served is refused by New.
//
// # How long a lost membership is believed
//
// Let T be hadoop.security.groups.cache.secs (300 s unless set). While look-ups
// succeed, no answer rests on one that began more than T ago. While they fail,
// the groups last known are served until the look-up they come from is 10 T
// old; from then on, and for users not known, the answer is the error. Once
// look-ups succeed again the bound is T after at most 21 s: twice the time that
// one may take (10 s, or hadoop.security.groups.shell.command.timeout) and the
// pause of 1 s before a failed one is repeated. After Cache.Refresh only look-ups
// begun later count, with the same exception while they fail. Who remembers
// conclusions drawn from groups keeps these bounds by forgetting them at
// Membership.Until and when Cache.Generation changes.
//
// That a directory is down can be told from a user being unknown only as far
// as NSS tells: SSSD, for one, may be built to answer "unknown" when its daemon
// does not run.
package groups

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// Mapping finds the groups of users. Implementations are safe for concurrent
// use and may block for as long as they take.
type Mapping interface {
	// Of returns the groups of a user, the primary one first where there is
	// such a thing, none twice. A user who does not exist has no groups; an
	// error means that it could not be found out. The caller must not change
	// the slice.
	Of(user string) ([]string, error)
}

const (
	classProperty     = "hadoop.security.group.mapping"
	providersProperty = "hadoop.security.group.mapping.providers"
	combinedProperty  = "hadoop.security.group.mapping.providers.combined"
	providerPrefix    = "hadoop.security.group.mapping.provider."
	staticProperty    = "hadoop.user.group.static.mapping.overrides"
	ttlProperty       = "hadoop.security.groups.cache.secs"
	negativeProperty  = "hadoop.security.groups.negative-cache.secs"
	timeoutProperty   = "hadoop.security.groups.shell.command.timeout"
)

// Names of Hadoop's classes.
const (
	classPackage   = "org.apache.hadoop.security."
	classFallback  = classPackage + "JniBasedUnixGroupsMappingWithFallback"
	classJNI       = classPackage + "JniBasedUnixGroupsMapping"
	classShell     = classPackage + "ShellBasedUnixGroupsMapping"
	classNull      = classPackage + "NullGroupsMapping"
	classComposite = classPackage + "CompositeGroupsMapping"
	classLDAP      = classPackage + "LdapGroupsMapping"
	classRuleLDAP  = classPackage + "RuleBasedLdapGroupsMapping"
)

// defaultTimeout is how long a look-up may take unless the configuration says
// otherwise. Hadoop waits for ever; its clients do so for 60 s.
const defaultTimeout = 10 * time.Second

// maxSeconds bounds the times that are configured in seconds: three years.
const maxSeconds = 100_000_000

// New returns the cached group mapping that c describes. It reads
//
//   - hadoop.security.group.mapping: one of Hadoop's class names. Both JNI
//     classes mean the operating system's users and groups; so does the shell
//     class, by the command id;
//   - hadoop.security.group.mapping.providers, …provider.NAME and
//     …providers.combined, for the composite class;
//   - hadoop.security.group.mapping.ldap.*, for the LDAP classes, or for an LDAP
//     part of the composite …provider.NAME.ldap.*, which comes first;
//   - hadoop.user.group.static.mapping.overrides, USER=GROUP,GROUP;USER=;…, for
//     users who are never looked up;
//   - hadoop.security.groups.cache.secs and hadoop.security.groups.negative-cache.secs,
//     how long groups and the absence of groups are believed;
//   - hadoop.security.groups.shell.command.timeout, how long a look-up of any
//     kind may take, in milliseconds unless a unit is given. The times in
//     hadoop.security.group.mapping.ldap.* count within it.
//
// Entries are always refreshed in the background, whatever
// hadoop.security.groups.cache.background.reload says. Errors are of type
// *conf.ValueError and name the remedy.
func New(c *conf.Configuration) (*Cache, error) {
	ttl, err := seconds(c, ttlProperty, 300)
	if err != nil {
		return nil, err
	}
	if ttl <= 0 {
		return nil, c.Wrong(ttlProperty, errors.New("is not positive: Hadoop refuses it too; 300 is the usual value"))
	}
	negative, err := seconds(c, negativeProperty, 30)
	if err != nil {
		return nil, err
	}
	timeout, err := c.Duration(timeoutProperty, 0, time.Millisecond)
	if err != nil {
		return nil, err
	}
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	static, warnings, err := loadStatic(c)
	if err != nil {
		return nil, err
	}
	class, err := c.String(classProperty, classFallback)
	if err != nil {
		return nil, err
	}
	b := builder{c: c, timeout: timeout, warnings: warnings}
	var mapping Mapping
	if class == classComposite {
		mapping, err = b.composite()
	} else {
		mapping, err = b.mapping(class, "")
	}
	if err != nil {
		return nil, err
	}
	cache := newCache(mapping, ttl, negative, timeout)
	cache.static, cache.warnings = static, b.warnings
	cache.files = slices.Compact(slices.Sorted(slices.Values(b.files)))
	return cache, nil
}

// builder makes mappings from properties.
type builder struct {
	c        *conf.Configuration
	timeout  time.Duration
	warnings []conf.Warning
	files    []string
}

// mapping returns the mapping of a class, as the composite's part of that name
// or without one as the only mapping.
func (b *builder) mapping(class, part string) (Mapping, error) {
	property := classProperty
	if part != "" {
		property = providerPrefix + part
	}
	var mapping Mapping
	var err error
	switch class {
	case classFallback, classJNI:
		mapping, err = newSystem(b.timeout)
	case classShell:
		mapping, err = newCommand(b.timeout)
	case classNull:
		mapping = none{}
	case classLDAP, classRuleLDAP:
		m, warnings, err := newDirectory(ldapSettings{b.c, part, &b.files}, class == classRuleLDAP, b.timeout)
		b.warnings = append(b.warnings, warnings...)
		return m, err // which names its property
	case classComposite:
		err = errors.New("cannot be a part of itself: name a mapping of another kind")
	default:
		err = fmt.Errorf("is not a group mapping that can be served: use %s, %s, %s, %s or %s", classFallback, classShell, classLDAP, classNull, classComposite)
	}
	if err != nil {
		return nil, b.c.Wrong(property, err)
	}
	return mapping, nil
}

// none is the mapping under which nobody has groups.
type none struct{}

func (none) Of(string) ([]string, error) { return nil, nil }

// composite asks several mappings.
type composite struct {
	parts    []Mapping
	combined bool // join what all say, else take the first that knows groups
}

// composite reads the properties of CompositeGroupsMapping. A provider without
// a class, which Hadoop logs and leaves out, is an error.
func (b *builder) composite() (Mapping, error) {
	c := b.c
	combined, err := c.Bool(combinedProperty, true)
	if err != nil {
		return nil, err
	}
	names, err := c.Strings(providersProperty)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, c.Wrong(classProperty, fmt.Errorf("needs %s to name its parts", providersProperty))
	}
	m := composite{combined: combined}
	for _, name := range names {
		property := providerPrefix + name
		class, err := c.String(property, "")
		if err != nil {
			return nil, err
		}
		if class == "" {
			return nil, c.Wrong(providersProperty, fmt.Errorf("names %q, but %s does not say which class that is: set it or take the name out", name, property))
		}
		part, err := b.mapping(class, name)
		if err != nil {
			return nil, err
		}
		m.parts = append(m.parts, part)
	}
	return m, nil
}

// Of fails if a part fails whose groups would count: Hadoop leaves that part
// out of the answer.
func (m composite) Of(user string) ([]string, error) {
	var all []string
	for _, part := range m.parts {
		groups, err := part.Of(user)
		if err != nil {
			return nil, err
		}
		all = append(all, groups...)
		if len(all) > 0 && !m.combined {
			break
		}
	}
	return distinct(all), nil
}

// distinct returns the names in their order, each once.
func distinct(names []string) []string {
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		repeated := seen[name]
		seen[name] = true
		return repeated
	})
}

// seconds reads a property that counts seconds.
func seconds(c *conf.Configuration, name string, def int64) (time.Duration, error) {
	n, err := c.Int64(name, def)
	if err != nil {
		return 0, err
	}
	if n > maxSeconds || n < -maxSeconds {
		return 0, c.Wrong(name, fmt.Errorf("is beyond %d seconds", maxSeconds))
	}
	return time.Duration(n) * time.Second, nil
}
