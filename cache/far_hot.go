package cache

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"
)

const (
	hotNames    = 10_000          // of keys, remembered over a restart
	hotBytes    = 4 << 20         // of the file at most
	hotInterval = 5 * time.Minute // between two writings of the file
)

// warmUp has EDEKs fetched of the keys that were used most before a restart,
// by and by.
func (s *farSide) warmUp() {
	if s.c.HotFile == "" {
		return
	}
	names, err := readHot(s.c.HotFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.c.Log.Warn("the names of keys in use cannot be read; they become known again as they are used", "file", s.c.HotFile, "error", err)
	}
	s.rings.Warm(names)
}

// saveHot writes down which keys are used most, the most used first.
func (s *farSide) saveHot() {
	if s.c.HotFile == "" {
		return
	}
	names := s.rings.Hot(hotNames)
	if len(names) == 0 {
		return // what is there is better than nothing
	}
	if err := writeHot(s.c.HotFile, names); err != nil {
		s.c.Log.Warn("the names of keys in use cannot be written; a restart will find nothing ready", "file", s.c.HotFile, "error", err)
	}
}

// readHot reads a file of writeHot, as far as it is one.
func readHot(path string) (names []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, hotBytes))
	for lines.Scan() && len(names) < hotNames {
		name, err := strconv.Unquote(lines.Text())
		if err != nil {
			break // written in half, or by somebody else
		}
		names = append(names, name)
	}
	return names, lines.Err()
}

// writeHot puts names into a file, one a line in quotes: a name may hold anything.
func writeHot(path string, names []string) error {
	var text bytes.Buffer
	for _, name := range names {
		if text.Len()+len(name) > hotBytes/2 {
			break
		}
		text.WriteString(strconv.Quote(name) + "\n")
	}
	if err := os.WriteFile(path+".new", text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
