package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// report collects what is to be said about a configuration.
type report struct {
	problems Problems
	warnings []Problem
}

// section is the properties of one file, or of files laid over each other.
// Its readers report what they cannot use, and return in its place a value that
// causes no further problem.
type section struct {
	*report
	conf  *conf.Configuration
	path  string // the file in which a missing property is to be set
	sound bool   // whether all that exists could be read
}

// load lays a file over the section. A file may be missing.
func (s *section) load(path string) {
	err := s.conf.LoadFile(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.sound = false
	problem := Problem{File: path, What: err.Error(), Remedy: "let the user that edekd runs as read the file"}
	if syntax := (*conf.SyntaxError)(nil); errors.As(err, &syntax) {
		problem = Problem{File: syntax.Source.String(), What: syntax.What, Remedy: syntax.Remedy}
	}
	s.problems = append(s.problems, problem)
}

// place is where a property is set, or where it is to be set.
func (s *section) place(name string) string {
	if p, ok := s.conf.Lookup(name); ok && p.Source.File != conf.Default {
		return p.Source.String()
	}
	return s.path
}

func (s *section) refuse(name, what, remedy string) {
	s.problems = append(s.problems, Problem{s.place(name), name, what, remedy})
}

func (s *section) warn(name, what, remedy string) {
	s.warnings = append(s.warnings, Problem{s.place(name), name, what, remedy})
}

// refuseValue reports an error of a getter.
func (s *section) refuseValue(name string, err error, remedy string) {
	what := err.Error()
	if value := (*conf.ValueError)(nil); errors.As(err, &value) {
		what = value.What()
	}
	s.refuse(name, what, remedy)
}

// isSet tells whether a file or the environment sets a property.
func (s *section) isSet(name string) bool {
	p, ok := s.conf.Lookup(name)
	return ok && p.Source.File != conf.Default
}

func (s *section) text(name string) string {
	value, err := s.conf.String(name, "")
	if err != nil {
		s.refuseValue(name, err, "write the value out")
		return hadoopDefaults[name]
	}
	return value
}

func (s *section) boolean(name string) bool {
	value, err := s.conf.Bool(name, hadoopDefaults[name] == "true")
	if err != nil {
		s.refuseValue(name, err, "true or false")
	}
	return value
}

func (s *section) number(name string, least, most int) int {
	value, err := s.conf.Int64(name, 0)
	remedy := fmt.Sprintf("a number from %d to %d", least, most)
	if err != nil {
		s.refuseValue(name, err, remedy)
		return 0
	}
	if value < int64(least) || value > int64(most) {
		s.refuse(name, fmt.Sprintf("%d is out of range", value), remedy)
		return 0
	}
	return int(value)
}

// milliseconds reads a time that Hadoop counts in milliseconds.
func (s *section) milliseconds(name string, least, most time.Duration) time.Duration {
	return time.Duration(s.number(name, int(least.Milliseconds()), int(most.Milliseconds()))) * time.Millisecond
}

// filePath reads the path of a file or folder, "" when it is not set.
func (s *section) filePath(name string) string {
	value, err := s.conf.String(name, "")
	switch {
	case err != nil:
		s.refuseValue(name, err, "write the path out")
	case filepath.IsAbs(value):
		return filepath.Clean(value)
	case s.isSet(name) || value != "":
		s.refuse(name, conf.Quote(name, value)+" is not an absolute path", "a path that begins with / or with ${kms.config.dir}, which is this folder")
	}
	return ""
}

// readable checks that a property's file can be read and is not empty, and
// remarks on a secret that others may read. It returns path, or "" when there
// is none or it was refused.
func (s *section) readable(name, path string, secret bool) string {
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() {
		var f *os.File
		if f, err = os.Open(path); err == nil {
			err = f.Close()
		}
	}
	switch {
	case err != nil:
		s.refuse(name, err.Error(), "create the file, or let the user that edekd runs as read it")
	case !info.Mode().IsRegular():
		s.refuse(name, path+" is not a file", "name a file")
	case info.Size() == 0:
		s.refuse(name, path+" is empty", "put the secret into the file, or name another")
	default:
		if secret && info.Mode().Perm()&0o077 != 0 {
			s.warn(name, fmt.Sprintf("%s holds a secret, but its mode %#o lets other users at it", path, info.Mode().Perm()), "chmod 600 "+path)
		}
		return path
	}
	return ""
}
