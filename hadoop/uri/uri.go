// Package uri reads the nested URIs by which Hadoop names key providers.
//
// In jceks://file@/var/lib/kms/kms.keystore the scheme says what kind of
// provider it is; the authority before the '@' is the scheme of the file
// system that holds its file and the part after it that file system's own
// authority. Hadoop's ProviderUtils.unnestUri takes such a URI apart.
package uri

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// LocalPath returns the path of the local file that a nested provider URI
// names: /p for sqlite://file@/p, whatever the outer scheme is. As in Hadoop,
// percent escapes are decoded, '?' and '#' are ordinary characters of the
// path, and the path is made clean. A URI that names another file system, a
// host or no absolute path is refused with the remedy.
func LocalPath(uri string) (string, error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || scheme == "" {
		return "", fmt.Errorf("%q is not a provider URI: write it like sqlite://file@/var/lib/edekd/keys.db", uri)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, escaped := rest[:end], rest[end:]
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return "", fmt.Errorf("provider URI %q: %w: write a literal percent sign as %%25", uri, err)
	}
	switch fs, host, _ := strings.Cut(authority, "@"); {
	case fs == "":
		return "", fmt.Errorf("provider URI %q does not say which file system holds the file: write %s://file@%s", uri, scheme, escaped)
	case fs != "file":
		return "", fmt.Errorf("provider URI %q names the file system %q, but only local files can be used: copy the file here and write %s://file@/its/path", uri, fs, scheme)
	case host != "":
		return "", fmt.Errorf("provider URI %q names the host %q, but only local files can be used: write %s://file@/its/path", uri, host, scheme)
	case path == "" || path[0] != '/' || filepath.Clean(path) == "/":
		return "", fmt.Errorf("provider URI %q names no file: write %s://file@/absolute/path", uri, scheme)
	case strings.IndexByte(path, 0) >= 0:
		return "", fmt.Errorf("provider URI %q has a NUL byte in its path, which no file name can hold", uri)
	}
	return filepath.Clean(path), nil
}
