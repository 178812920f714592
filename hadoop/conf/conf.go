// Package conf is Hadoop's Configuration: properties from layered *-site.xml
// files.
//
// A Configuration is filled from the bottom up: defaults by SetDefaults, then
// files by LoadFile, then overrides by Override. A later layer replaces what
// an earlier one said, except for properties that an earlier one marked
// <final>. Values are expanded when they are read: ${name} stands for a system
// property or another property, ${env.NAME}, ${env.NAME-default} and
// ${env.NAME:-default} for environment variables. XInclude takes in other
// local files. Retired names of properties are mapped to today's.
//
// The rules are those of org.apache.hadoop.conf.Configuration of Hadoop 3.4,
// compared case by case with the Java class (testdata/observed). Where Java
// overlooks a mistake and goes on with a default (a boolean that is neither
// true nor false) the getters here return an error that names file and line.
// Files, inclusions and expanded values are bounded in size.
//
// A Configuration is not safe for concurrent use while it is being filled;
// after that, any number of goroutines may read it.
package conf

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	// maxSubstitutions is Hadoop's bound on the variables replaced in one value.
	maxSubstitutions = 20
	// maxExpanded bounds an expanded value, in bytes.
	maxExpanded = 1 << 20
)

// Default is the File of the Source of values that SetDefaults set.
const Default = "default"

// Source is the place a value comes from.
type Source struct {
	File string // path of the file, or a word for what set the value, such as "environment variable X"
	Line int    // line of the <property> element, 0 where File is not a file
}

// String formats the source as file:line.
func (s Source) String() string {
	if s.Line == 0 {
		return s.File
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

// Property is one property as it was written, before expansion.
type Property struct {
	Name   string // today's name, where the file used a retired one
	Raw    string // neither expanded nor trimmed
	Source Source
}

// Configuration holds the properties of all layers. Make one with New.
type Configuration struct {
	env      func(string) (string, bool)
	system   map[string]string
	props    map[string]Property
	final    map[string]Source // where a property was made final
	warnings []Warning
	unused   []Unused
	files    []string
}

// Warning tells of something in a file that Hadoop only logs.
type Warning struct {
	Source Source
	Name   string // the property concerned
	Text   string
}

// Unused is a property that stands in a file and does nothing.
type Unused struct {
	Property
	// By is where the same file sets the property again, which counts. It is zero
	// where the property has no value: it is then as if it were not there.
	By Source
}

// New returns an empty Configuration. env looks up environment variables for
// ${env.NAME}; system holds what Java has as system properties (user.home,
// user.name, java.io.tmpdir …), which in expansions win over properties.
// Neither is copied.
func New(env func(string) (string, bool), system map[string]string) *Configuration {
	return &Configuration{env: env, system: system, props: map[string]Property{}, final: map[string]Source{}}
}

// SetDefaults puts values below whatever has been or will be loaded: a
// property that is already set keeps its value. The source of the values is
// Default.
func (c *Configuration) SetDefaults(values map[string]string) {
	for name, value := range values {
		if _, ok := c.props[name]; !ok {
			c.props[name] = Property{Name: name, Raw: value, Source: Source{File: Default}}
		}
	}
}

// Override sets a property whatever the files say, <final> ones included.
// source words the place it comes from.
func (c *Configuration) Override(name, value, source string) {
	c.props[name] = Property{Name: name, Raw: value, Source: Source{File: source}}
}

// add lays parsed properties over those already there.
func (c *Configuration) add(items []item) {
	last := map[string]Property{}
	for _, it := range items {
		if it.Name == "" {
			c.warnings = append(c.warnings, Warning{it.Source, "", "a property without a name is ignored"})
			continue
		}
		names := []string{it.Name}
		if replacement, ok := deprecated[it.Name]; ok {
			names = replacement
			c.warnings = append(c.warnings, Warning{it.Source, it.Name, "is deprecated: use " + strings.Join(names, ", ")})
		}
		for _, name := range names {
			if _, final := c.final[name]; !final {
				c.notice(last, name, it)
			}
			c.addOne(name, it)
		}
	}
}

// notice finds what a property makes unused of those before it, which last has,
// or is unused itself.
func (c *Configuration) notice(last map[string]Property, name string, it item) {
	if !it.hasValue {
		c.unused = append(c.unused, Unused{Property: Property{Name: name, Source: it.Source}})
		return
	}
	if before, ok := last[name]; ok && before.Source.File == it.Source.File {
		c.unused = append(c.unused, Unused{before, it.Source})
	}
	last[name] = Property{Name: name, Raw: it.Raw, Source: it.Source}
}

// addOne sets one property. One made final without a value stays unset, as in
// Hadoop.
func (c *Configuration) addOne(name string, it item) {
	if source, ok := c.final[name]; ok {
		if it.hasValue && c.props[name].Raw != it.Raw {
			c.warnings = append(c.warnings, Warning{it.Source, name, fmt.Sprintf("ignored, because %s makes the property final", source)})
		}
		return
	}
	if it.hasValue {
		c.props[name] = Property{Name: name, Raw: it.Raw, Source: it.Source}
	}
	if it.final {
		c.final[name] = it.Source
	}
}

// Warnings returns what was noticed in the files, in the order of the files.
func (c *Configuration) Warnings() []Warning { return c.warnings }

// Unused returns the properties of files that do nothing, because they have no
// value or because their own file sets them again, in the order of the files.
func (c *Configuration) Unused() []Unused { return c.unused }

// Lookup returns a property as it was written. A retired name finds the
// property that replaces it. Names are case-sensitive.
func (c *Configuration) Lookup(name string) (Property, bool) {
	if names, ok := deprecated[name]; ok {
		name = names[len(names)-1]
	}
	p, ok := c.props[name]
	return p, ok
}

// WithPrefix returns the properties whose names begin with prefix, sorted by
// name.
func (c *Configuration) WithPrefix(prefix string) []Property {
	var found []Property
	for name, p := range c.props {
		if strings.HasPrefix(name, prefix) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Property) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// Get returns the expanded, untrimmed value of a property, and whether it is
// set.
func (c *Configuration) Get(name string) (value string, ok bool, err error) {
	p, ok := c.Lookup(name)
	if !ok {
		return "", false, nil
	}
	value, err = c.expand(p.Raw)
	if err != nil {
		return "", true, &ValueError{Property: p, Value: p.Raw, Err: err}
	}
	return value, true, nil
}

// variable matches what Hadoop takes for a variable; a variable cannot span
// another one, so the innermost of nested ones is replaced first.
var variable = regexp.MustCompile(`\$\{[^}$ ]+\}`)

// expand replaces the leftmost variable until none is left. As in Hadoop it
// stops at the first variable without a value, leaving the rest as it stands,
// and gives the raw value back when a variable's value holds that variable
// again.
func (c *Configuration) expand(raw string) (string, error) {
	value := raw
	for range maxSubstitutions {
		at := variable.FindStringIndex(value)
		if at == nil {
			return value, nil
		}
		reference := value[at[0]:at[1]]
		replacement, ok := c.resolve(reference[2 : len(reference)-1])
		if !ok {
			return value, nil
		}
		if strings.Contains(replacement, reference) {
			return raw, nil
		}
		if len(value)+len(replacement) > maxExpanded {
			return "", fmt.Errorf("expands to more than %d bytes", maxExpanded)
		}
		value = value[:at[0]] + replacement + value[at[1]:]
	}
	return "", fmt.Errorf("needs more than %d variable substitutions: do its variables refer to each other in a circle?", maxSubstitutions)
}

// resolve finds the value of a variable: the environment for env.…, else a
// system property, else a raw property of that very name.
func (c *Configuration) resolve(name string) (string, bool) {
	if expression, ok := strings.CutPrefix(name, "env."); ok && expression != "" {
		if value, ok := c.environment(expression); ok {
			return value, true
		}
	} else if value, ok := c.system[name]; ok {
		return value, true
	}
	p, ok := c.Lookup(name)
	return p.Raw, ok
}

// environment evaluates NAME, NAME-default and NAME:-default. The first of the
// two separators counts.
func (c *Configuration) environment(expression string) (string, bool) {
	dash := strings.IndexByte(expression, '-')
	if dash < 0 {
		return c.env(expression)
	}
	name, fallback := expression[:dash], expression[dash+1:]
	name, emptyToo := strings.CutSuffix(name, ":")
	value, ok := c.env(name)
	if !ok || emptyToo && value == "" {
		return fallback, true
	}
	return value, true
}
