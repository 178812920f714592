package authz

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryone(t *testing.T) {
	for _, c := range []struct {
		rules string // NAME=VALUE, divided by commas
		want  string
	}{
		{"", ""},
		{"default.key.acl.DECRYPT_EEK=*", "default.key.acl.DECRYPT_EEK"},
		{"default.key.acl.DECRYPT_EEK=alice *", "default.key.acl.DECRYPT_EEK"},
		{"default.key.acl.DECRYPT_EEK=alice", ""},
		{"default.key.acl.READ=*", ""},
		{"whitelist.key.acl.DECRYPT_EEK=*", "whitelist.key.acl.DECRYPT_EEK"},
		{"key.acl.a.b.DECRYPT_EEK=*,key.acl.c.ALL= *,key.acl.d.ALL=bob", "key.acl.a.b.DECRYPT_EEK key.acl.c.ALL"},
		{"default.key.acl.DECRYPT_EEK=*,hadoop.kms.acl.DECRYPT_EEK=*", "default.key.acl.DECRYPT_EEK"},
		{"default.key.acl.DECRYPT_EEK=*,hadoop.kms.acl.DECRYPT_EEK=alice", ""},
		{"default.key.acl.DECRYPT_EEK=*,hadoop.kms.blacklist.DECRYPT_EEK=hdfs", "default.key.acl.DECRYPT_EEK"},
		{"default.key.acl.DECRYPT_EEK=*,hadoop.kms.blacklist.DECRYPT_EEK=*", ""},
	} {
		text := "<configuration>"
		for rule := range strings.SplitSeq(c.rules, ",") {
			if name, value, ok := strings.Cut(rule, "="); ok {
				text += "<property><name>" + name + "</name><value>" + value + "</value></property>"
			}
		}
		conf, _ := load(t, text+"</configuration>")
		p, _, err := NewPolicy(conf)
		if err != nil {
			t.Fatal(err)
		}
		if open := p.Everyone(DecryptEEK, KeyDecryptEEK, true); !slices.Equal(open, strings.Fields(c.want)) {
			t.Errorf("%s: %q, want %q", c.rules, open, c.want)
		}
		closed := strings.Contains(c.rules, "kms.acl.DECRYPT_EEK=alice") || strings.Contains(c.rules, "blacklist.DECRYPT_EEK=*")
		if open := p.Everyone(DecryptEEK, KeyDecryptEEK, false); (len(open) == 0) != closed {
			t.Errorf("%s without rules of keys: %q", c.rules, open)
		}
	}
}
