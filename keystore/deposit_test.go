package keystore

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckPut(t *testing.T) {
	f := func(handle string, size int, ok bool) {
		t.Helper()
		err := CheckPut(handle, make([]byte, size))
		if ok != (err == nil) || (err != nil && !errors.Is(err, ErrInvalid)) {
			t.Errorf("handle of %d bytes, content of %d: %v", len(handle), size, err)
		}
	}
	f("key/Az09._~-%2F/1", 0, true)
	f(strings.Repeat("h", MaxHandle), 1, true)
	f("h", MaxContent, true)
	f("", 1, false)
	f(strings.Repeat("h", MaxHandle+1), 1, false)
	f("h", MaxContent+1, false)
	for c := range 256 {
		allowed := strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~%/-", rune(c))
		f("a"+string([]byte{byte(c)}), 1, allowed && c < 128)
	}
}
