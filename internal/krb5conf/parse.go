package krb5conf

import (
	"errors"
	"fmt"
	"strings"
)

const blanks = " \t\r\v\f"

// parse adds the sections of one file to the tree.
func (r *reader) parse(path, text string, depth int) error {
	p := parser{root: &r.config.root}
	number := 0
	for line := range strings.SplitSeq(strings.TrimPrefix(text, "\ufeff"), "\n") {
		number++
		var err error
		if file, ok := directive(line, "include"); ok {
			err = r.file(file, depth+1)
		} else if folder, ok := directive(line, "includedir"); ok {
			err = r.folder(folder, depth+1)
		} else {
			err = p.line(line)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	if len(p.open) > 1 {
		return fmt.Errorf("%s:%d: the block %q is not closed with }", path, number, p.open[len(p.open)-1].name)
	}
	return nil
}

// directive takes the argument from a line that begins with the word, in its
// first column as everywhere in MIT's profiles.
func directive(line, word string) (argument string, ok bool) {
	rest, ok := strings.CutPrefix(line, word)
	if !ok || rest == "" || !strings.Contains(blanks, rest[:1]) {
		return "", false
	}
	return strings.Trim(rest, blanks), true
}

// parser is the state within one file.
type parser struct {
	root   *node
	open   []*node // the section, then the blocks in it, innermost last
	expect bool    // a block's { must come on this line
}

func (p *parser) line(line string) error {
	line = strings.Trim(line, blanks)
	if line == "" || isComment(line) {
		return nil
	}
	if strings.IndexByte(line, 0) >= 0 {
		return errors.New("there is a zero byte in the line")
	}
	if p.expect {
		if line[0] != '{' || !endOrComment(line[1:]) {
			return errors.New("a value or { is expected")
		}
		p.expect = false
		return nil
	}
	switch line[0] {
	case '[':
		return p.section(line)
	case '}':
		if len(p.open) < 2 {
			return errors.New("} without a {")
		}
		p.open = p.open[:len(p.open)-1]
		return nil
	}
	name, value, ok := strings.Cut(line, "=")
	name = strings.Trim(strings.TrimSuffix(strings.Trim(name, blanks), "*"), blanks)
	if !ok || name == "" || strings.ContainsAny(name, blanks) {
		return errors.New("name = value is expected")
	}
	if len(p.open) == 0 {
		return errors.New("a [section] must come first")
	}
	value = strings.Trim(value, blanks)
	within := p.open[len(p.open)-1]
	switch {
	case endOrComment(value):
		p.expect = true
		return p.block(within, name)
	case value[0] == '{' && endOrComment(value[1:]):
		return p.block(within, name)
	case value[0] == '"':
		value = unquote(value[1:])
	}
	within.children = append(within.children, &node{name: name, value: value})
	return nil
}

func (p *parser) section(line string) error {
	if len(p.open) > 1 {
		return fmt.Errorf("a section begins while the block %q is open", p.open[len(p.open)-1].name)
	}
	name, rest, ok := strings.Cut(line[1:], "]")
	if !ok || name == "" || !endOrComment(strings.TrimPrefix(rest, "*")) {
		return errors.New("[section] is expected")
	}
	p.open = p.open[:0]
	for _, section := range p.root.children {
		if section.name == name {
			p.open = append(p.open, section)
			return nil
		}
	}
	return p.block(p.root, name)
}

func (p *parser) block(within *node, name string) error {
	if len(p.open) >= maxDepth {
		return fmt.Errorf("blocks are nested deeper than %d", maxDepth)
	}
	block := &node{name: name, children: []*node{}}
	within.children = append(within.children, block)
	p.open = append(p.open, block)
	return nil
}

func isComment(s string) bool { return s[0] == '#' || s[0] == ';' }

func endOrComment(s string) bool {
	s = strings.Trim(s, blanks)
	return s == "" || isComment(s)
}

// unquote reads a value up to its closing quote; \n, \t and \b are what they are
// in C, and any other escaped character stands for itself.
func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch i++; s[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'b':
			b.WriteByte('\b')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
