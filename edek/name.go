package edek

import (
	"strconv"
	"strings"
)

// EEK and EK are the version names Hadoop gives to wrapped and unwrapped key
// versions (KeyProviderCryptoExtension.EEK and .EK).
const (
	EEK = "EEK"
	EK  = "EK"
)

// VersionName returns "name@n", the name of version n of a key; the first
// version is 0.
func VersionName(name string, n int) string {
	b := make([]byte, 0, len(name)+4)
	b = append(b, name...)
	b = append(b, '@')
	return string(strconv.AppendInt(b, int64(n), 10))
}

// BaseName returns the key name in a version name: everything before the last
// '@', as Hadoop's KeyProvider.getBaseName cuts it. ok is false when there is
// no '@'.
func BaseName(versionName string) (name string, ok bool) {
	i := strings.LastIndexByte(versionName, '@')
	if i < 0 {
		return "", false
	}
	return versionName[:i], true
}

// SplitVersion cuts a version name into key name and version number. ok is
// false unless the number is written as VersionName writes it: decimal digits
// without sign or leading zeros, within int32. A looser reading would give one
// version several names, and the name is what is authorised and cached.
func SplitVersion(versionName string) (name string, n int, ok bool) {
	name, ok = BaseName(versionName)
	if !ok {
		return "", 0, false
	}
	digits := versionName[len(name)+1:]
	if digits == "" || digits[0] < '0' || digits[0] > '9' || (digits[0] == '0' && len(digits) > 1) {
		return "", 0, false
	}
	v, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return "", 0, false
	}
	return name, int(v), true
}
