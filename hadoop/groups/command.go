package groups

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxUser is the longest name of a user, in bytes, that Linux allows.
	maxUser = 255
	// maxOutput bounds what is read of a command's output, in bytes.
	maxOutput = 1 << 20
)

// command asks NSS by the command id of GNU coreutils 8.22 or later, which
// alone divides names by NUL: groups from a directory may have spaces.
type command struct {
	path    string
	timeout time.Duration
}

// newCommand finds the command on the PATH.
func newCommand(timeout time.Duration) (Mapping, error) {
	path, err := exec.LookPath("id")
	if err != nil {
		return nil, fmt.Errorf("needs the command id: %w: install coreutils or extend PATH", err)
	}
	return command{path, timeout}, nil
}

func (c command) Of(user string) ([]string, error) {
	if !plausible(user) {
		return nil, nil
	}
	if strings.Trim(user, "0123456789") == "" {
		// For id this may be the number of another user, even root.
		names, err := c.run("-unz", user)
		if err != nil || len(names) != 1 || names[0] != user {
			return nil, err
		}
	}
	return c.run("-Gnz", user)
}

// plausible reports whether NSS can know a user of that name. Other names are
// not asked for: id takes some of them for options or, after a space or a plus
// sign, for numbers, and C ends a name at a NUL.
func plausible(user string) bool {
	return user != "" && len(user) <= maxUser && utf8.ValidString(user) &&
		!strings.ContainsFunc(user, unicode.IsControl) && !strings.Contains(user, ":") &&
		!strings.ContainsAny(user[:1], "-+ ") && user[len(user)-1] != ' '
}

// run runs id with one option and returns the names it prints.
func (c command) run(option, user string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	var stdout, stderr bounded
	cmd := exec.CommandContext(ctx, c.path, option, "--", user)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s did not answer within %v", c.path, c.timeout)
	case err == nil:
		return parseNames(stdout.String())
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		names, ok := parsePartial(stdout.String(), stderr.String())
		if ok {
			return names, nil
		}
		return nil, fmt.Errorf("%s: %s", c.path, strings.TrimSpace(stderr.String()))
	}
	return nil, fmt.Errorf("%s: %w", c.path, err)
}

// parseNames reads names that each end in NUL, and leaves repetitions out.
func parseNames(output string) ([]string, error) {
	var names []string
	for output != "" {
		name, rest, ok := strings.Cut(output, "\x00")
		if !ok || name == "" {
			return nil, errors.New("the command id printed something else than names that end in NUL: GNU coreutils 8.22 or later is needed")
		}
		names, output = append(names, name), rest
	}
	return distinct(names), nil
}

// parsePartial reads what id printed before it ended with status 1. It is an
// answer if id only says that there is no such user, or that some groups have
// no names: those are left out, as Hadoop does.
func parsePartial(stdout, stderr string) (names []string, ok bool) {
	complaints := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if len(complaints) == 1 && saysUnknown(complaints[0]) {
		return nil, stdout == ""
	}
	nameless := map[string]bool{}
	for _, complaint := range complaints {
		_, number, ok := strings.Cut(complaint, ": cannot find name for group ID ")
		if !ok {
			return nil, false
		}
		nameless[number] = true
	}
	names, err := parseNames(stdout)
	return slices.DeleteFunc(names, func(name string) bool { return nameless[name] }), err == nil
}

// saysUnknown reports whether id complains of a user who does not exist. With
// "not found" the C library may give one of two reasons; any other reason
// means that NSS could not say.
func saysUnknown(complaint string) bool {
	for _, reason := range []string{"", ": No such file or directory", ": No such process"} {
		if strings.HasSuffix(complaint, ": no such user"+reason) {
			return true
		}
	}
	return false
}

// bounded keeps at most maxOutput bytes.
type bounded struct{ buffer bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.buffer.Len()+len(p) > maxOutput {
		return 0, fmt.Errorf("printed more than %d bytes", maxOutput)
	}
	return b.buffer.Write(p)
}

func (b *bounded) String() string { return b.buffer.String() }
