package conf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxFile     = 4 << 20 // bytes of one file
	maxDepth    = 16      // files within files
	maxIncludes = 256     // inclusions in one LoadFile, nested ones counted
	maxItems    = 1 << 16 // properties in one LoadFile
	maxNesting  = 64      // elements within elements
)

// item is one <property> element.
type item struct {
	Property
	hasValue bool // an empty <value/> gives none, and the property is not touched
	final    bool
}

// LoadFile lays the properties of a file over those already there. A file that
// does not exist gives an error that errors.Is fs.ErrNotExist; every other
// error is a *SyntaxError or an error of the file system naming the path. On
// error nothing of the file is taken.
//
// XInclude elements take in local files, given as a path or a file: URL. As in
// Hadoop a relative path starts from the folder of the file given to LoadFile,
// also for inclusions inside an included file. <fallback> stands in for a file
// that does not exist. Inclusions by network, in circles or beyond the bounds
// of number and depth are errors.
func (c *Configuration) LoadFile(path string) error {
	p := &parser{folder: filepath.Dir(path)}
	err := p.file(path)
	c.files = append(c.files, p.files...)
	if err != nil {
		return err
	}
	c.add(p.items)
	return nil
}

// Files returns the paths that LoadFile looked at, inclusions and missing
// files too: a change of any of them may change the configuration.
func (c *Configuration) Files() []string { return c.files }

// SyntaxError is a file that cannot be understood.
type SyntaxError struct {
	Source Source
	What   string
	Remedy string
}

func (e *SyntaxError) Error() string { return e.Source.String() + ": " + e.What }

// parser collects the properties of a file and of what it includes.
type parser struct {
	folder   string   // where relative inclusions start
	open     []string // the files being read, the innermost last
	files    []string // all that were looked at
	includes int
	items    []item
}

func (p *parser) file(path string) error {
	p.files = append(p.files, path)
	// Asked before opening, because opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &SyntaxError{Source{File: path}, "not a regular file", "put a file there"}
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return &SyntaxError{Source{File: path}, fmt.Sprintf("the file is larger than %d bytes", maxFile), "split it, or remove what is not a property"}
	}
	p.open = append(p.open, path)
	defer func() { p.open = p.open[:len(p.open)-1] }()
	return p.document(path, text)
}

// document reads one XML document. As Hadoop's parser it looks at element names
// wherever they stand: the root may have any name, and unknown elements are
// passed over, but not what is in them.
func (p *parser) document(path string, text []byte) error {
	s := scan{parser: p, path: path, dec: xml.NewDecoder(bytes.NewReader(text))}
	roots := 0
	for {
		token, err := s.dec.Token()
		if errors.Is(err, io.EOF) && roots > 0 {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return s.fail("holds no XML element", "write <configuration></configuration> for a file without properties")
		}
		if err != nil {
			return s.broken(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if roots++; roots > 1 {
				return s.fail("a second document follows the first", "keep one <configuration> element in the file")
			}
			if err := s.element(t); err != nil {
				return err
			}
		case xml.CharData:
			if strings.Trim(string(t), "\ufeff \t\r\n") != "" {
				return s.fail("text stands outside the document", "keep one <configuration> element in the file")
			}
		}
	}
}

// scan is the state while one document is read.
type scan struct {
	*parser
	path  string
	dec   *xml.Decoder
	depth int
	text  strings.Builder // since the last element that holds text began
	cur   item
}

func (s *scan) here() Source {
	line, _ := s.dec.InputPos()
	return Source{File: s.path, Line: line}
}

func (s *scan) fail(what, remedy string) error {
	return &SyntaxError{s.here(), what, remedy}
}

// broken words an error of the XML decoder.
func (s *scan) broken(err error) error {
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		return &SyntaxError{Source{s.path, syntax.Line}, "not well-formed XML: " + syntax.Msg, "correct the XML at or before this line"}
	}
	return s.fail("not readable as XML: "+err.Error(), "save the file as XML in UTF-8")
}

// element reads an element whose start tag has just been read, with all that
// is in it.
func (s *scan) element(e xml.StartElement) error {
	if s.depth++; s.depth > maxNesting {
		return s.fail(fmt.Sprintf("elements are nested deeper than %d", maxNesting), "close each element where it ends")
	}
	defer func() { s.depth-- }()
	switch e.Name.Local {
	case "include":
		return s.include(e)
	case "property":
		s.begin(e)
	case "name", "value", "final", "source", "tag":
		s.text.Reset()
	}
	for {
		token, err := s.dec.Token()
		if err != nil {
			return s.broken(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := s.element(t); err != nil {
				return err
			}
		case xml.CharData:
			s.text.Write(t)
		case xml.EndElement:
			return s.end(t.Name.Local)
		}
	}
}

// begin starts a property, of which the short form already says everything:
// <property name="…" value="…" final="true"/>.
func (s *scan) begin(e xml.StartElement) {
	s.cur = item{Property: Property{Source: s.here()}}
	for _, a := range e.Attr {
		switch a.Name.Local {
		case "name":
			s.cur.Name = a.Value
		case "value":
			s.cur.Raw, s.cur.hasValue = a.Value, true
		case "final":
			s.cur.final = a.Value == "true"
		}
	}
}

func (s *scan) end(name string) error {
	text := s.text.String()
	switch name {
	case "name":
		if text != "" {
			s.cur.Name = trim(text)
		}
	case "value":
		if text != "" {
			s.cur.Raw, s.cur.hasValue = text, true
		}
	case "final":
		s.cur.final = text == "true"
	case "property":
		if len(s.items) >= maxItems {
			return s.fail(fmt.Sprintf("more than %d properties", maxItems), "remove properties that nobody reads")
		}
		s.items = append(s.items, s.cur)
	}
	return nil
}

// include takes in the file an <include> names, or the properties in its
// <fallback> when that file does not exist.
func (s *scan) include(e xml.StartElement) error {
	path, err := s.target(e)
	if err != nil {
		return err
	}
	err = s.file(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	for fallback := false; ; {
		token, err := s.dec.Token()
		if err != nil {
			return s.broken(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if t.Name.Local == "fallback" && missing {
				fallback = true
				if err := s.element(t); err != nil {
					return err
				}
			} else if err := s.dec.Skip(); err != nil {
				return s.broken(err)
			}
		case xml.EndElement:
			if missing && !fallback {
				return s.fail(fmt.Sprintf("the included file %s does not exist", path), "create the file, or give the inclusion a <fallback/>")
			}
			return nil
		}
	}
}

// target finds the path of an inclusion and checks that it may be read.
func (s *scan) target(e xml.StartElement) (string, error) {
	path := ""
	for _, a := range e.Attr {
		if a.Name.Local == "href" {
			path = a.Value
		}
	}
	if colon := strings.IndexByte(path, ':'); colon > 0 && !strings.Contains(path[:colon], "/") {
		u, err := url.Parse(path)
		if err != nil || u.Scheme != "file" || u.Host != "" || u.Path == "" {
			return "", s.fail(fmt.Sprintf("cannot include %q: only local files are read", path), "copy the file beside this one and include it by its name")
		}
		path = u.Path
	}
	if path == "" {
		return "", s.fail("an inclusion names no file", "give it an href attribute with a path")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.folder, path)
	}
	if s.includes++; s.includes > maxIncludes {
		return "", s.fail(fmt.Sprintf("more than %d files are included", maxIncludes), "join the files")
	}
	if len(s.open) >= maxDepth {
		return "", s.fail(fmt.Sprintf("files include each other more than %d deep", maxDepth), "join the files")
	}
	if s.isOpen(path) {
		return "", s.fail(fmt.Sprintf("%s includes itself", path), "remove one of the inclusions of the circle")
	}
	return path, nil
}

// isOpen tells whether path is, by any name, one of the files being read.
func (p *parser) isOpen(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(p.open, func(open string) bool {
		other, err := os.Stat(open)
		return err == nil && os.SameFile(info, other)
	})
}
