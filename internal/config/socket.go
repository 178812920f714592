package config

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const (
	unixSocket      = "edekd.http.unix-socket"
	unixSocketMode  = "edekd.http.unix-socket.mode"
	unixSocketUsers = "edekd.http.unix-socket.users"

	// socketPathMax is what fits into sun_path of unix(7), of whose 108 bytes the
	// last is a zero.
	socketPathMax = 107
)

func (l *loader) unixSocket() {
	s, h := &l.site, &l.cfg.HTTP
	h.UnixSocket = s.filePath(unixSocket)
	if n := len(h.UnixSocket); n > socketPathMax {
		s.refuse(unixSocket, fmt.Sprintf("the path has %d bytes, and the system takes %d", n, socketPathMax), "a shorter one, such as /run/edekd/kms.sock")
		h.UnixSocket = ""
	}
	mode := s.text(unixSocketMode)
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || bits > 0o777 || bits&0o600 != 0o600 {
		s.refuse(unixSocketMode, fmt.Sprintf("%q is no file mode for a socket", mode), "0600 for this user alone, 0660 for its group as well, 0666 for all")
	}
	h.UnixSocketMode = fs.FileMode(bits & 0o777)
	h.UnixSocketUsers = l.socketUsers()
	for _, name := range []string{unixSocketMode, unixSocketUsers} {
		if s.isSet(name) && !s.isSet(unixSocket) {
			s.warn(name, "not used, because "+unixSocket+" is not set", "set "+unixSocket)
		}
	}
}

// socketUsers reads uid=name, uid=name, ….
func (l *loader) socketUsers() map[uint32]string {
	s := &l.site
	list, err := s.conf.Strings(unixSocketUsers)
	if err != nil {
		s.refuseValue(unixSocketUsers, err, "write the value out")
	}
	var users map[uint32]string
	for _, entry := range list {
		number, name, _ := strings.Cut(entry, "=")
		number, name = strings.TrimSpace(number), strings.TrimSpace(name)
		uid, err := strconv.ParseUint(number, 10, 32)
		switch {
		case err != nil || uid == 1<<32-1: // which stands for nobody, chown(2)
			s.refuse(unixSocketUsers, fmt.Sprintf("%q does not begin with the number of a user", entry), "uid=name, such as 1000=hive; id -u USER tells the uid")
		case !shortName(name):
			s.refuse(unixSocketUsers, fmt.Sprintf("%q does not name a user", entry), "the short name as in the rules: hive, not hive/host@REALM")
		case users[uint32(uid)] != "":
			s.refuse(unixSocketUsers, fmt.Sprintf("the uid %d is there twice", uid), "one name for each uid")
		default:
			if users == nil {
				users = map[uint32]string{}
			}
			users[uint32(uid)] = name
		}
	}
	return users
}

// shortName tells whether name can stand in rules, in a token and in a line of a
// log.
func shortName(name string) bool {
	return name != "" && !strings.ContainsAny(name, "/@=&;\" \t") && !strings.ContainsFunc(name, control)
}
