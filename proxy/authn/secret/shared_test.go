package secret

import "testing"

func TestSharedSecretsKeepTheirKeys(t *testing.T) {
	if _, err := NewShared(nil, []byte("old")); err == nil {
		t.Error("an empty secret was accepted")
	}
	given := []byte("one")
	r, err := NewShared(given, nil)
	if err != nil {
		t.Fatal(err)
	}
	clear(given)
	one, previous := r.Live(start)
	if string(one.bytes) != "one" || previous != nil {
		t.Error("not the secret that was given")
	}
	r.Replace([]byte("two"), []byte("one"))
	two, previous := r.Live(start)
	if two == one || previous != one || string(two.bytes) != "two" {
		t.Error("the first secret did not become the previous one")
	}
	r.Replace([]byte("two"), []byte("one"))
	if again, previous := r.Live(start); again != two || previous != one {
		t.Error("the same secrets ended all cookies")
	}
	r.Replace(nil, nil)
	if again, _ := r.Live(start); again != two {
		t.Error("nothing took the place of a secret")
	}
	r.Replace([]byte("two"), nil)
	if again, previous := r.Live(start); again != two || previous != nil {
		t.Error("the previous secret did not end alone")
	}
	if err := r.Reload(); err != nil {
		t.Error(err)
	}
}
