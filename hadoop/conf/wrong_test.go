package conf

import (
	"errors"
	"strings"
	"testing"
)

// Whatever is wrong with a value, errors do not tell passwords.
func TestErrorsDoNotTellPasswords(t *testing.T) {
	const secret = "HUNTER2"
	f := func(name, value, want string) {
		t.Helper()
		c := New(noEnv, nil)
		c.Override(name, value, "test")
		err := c.Wrong(name, errors.New("is wrong"))
		if got := err.Error(); got != "test: "+name+": "+want || strings.Contains(got, secret) {
			t.Errorf("%s", got)
		}
		if _, err := c.Int(name, 0); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	}
	const unseen = "the value, which is not shown, is wrong"
	for _, name := range []string{
		"hadoop.security.group.mapping.ldap.bind.password",
		"hadoop.security.group.mapping.ldap.bind.password.file",
		"hadoop.security.group.mapping.ldap.ssl.truststore.password",
		"ssl.server.keystore.keypassword",
		"ssl.server.truststore.password",
		"hadoop.security.credstore.java-keystore-provider.password-file",
		"edekd.identity.passphrase-file",
		"hadoop.kms.authentication.signature.secret",
		"hadoop.kms.authentication.signature.secret.file",
		"hadoop.http.authentication.Signature.Secret",
		"my.PASSWORD",
	} {
		f(name, secret, unseen)
		f(name, "${"+name+"}"+secret, unseen)
	}
	const url = "hadoop.security.group.mapping.ldap.url"
	f(url, "ldap://cn=x:"+secret+"@host", `"ldap://***@host" is wrong`)
	f(url, "ldap://"+secret+"@host", `"ldap://***@host" is wrong`)
	f(url, "ldap://u:"+secret+"/,@ "+secret+"@host", `"ldap://***@host" is wrong`)
	f(url, "ldap://one,ldap://u:"+secret+"@two,ldaps://u:"+secret+"@three/x", `"ldap://one,ldap://***@two,ldaps://***@three/x" is wrong`)

	f("hadoop.kms.authentication.signer.secret.provider", "zoo", `"zoo" is wrong`)
	f("hadoop.security.secret-manager.key-length", "many", `"many" is wrong`)
	f("hadoop.kms.key.provider.uri", "jceks://file@/a@b,kms://https@host/kms", `"jceks://file@/a@b,kms://https@host/kms" is wrong`)
	f("empty", " ", "the empty value is wrong")
}

func TestWrongNamesWhatIsNotSet(t *testing.T) {
	c := New(noEnv, nil)
	c.SetDefaults(map[string]string{"usual": "7", "none": ""})
	f := func(name, want string) {
		t.Helper()
		err := c.Wrong(name, errors.New("names nobody"))
		var value *ValueError
		if !errors.As(err, &value) || value.Property.Name != name || err.Error() != want {
			t.Errorf("%v", err)
		}
	}
	f("absent", "default: absent: not set: names nobody")
	f("none", "default: none: not set: names nobody")
	f("usual", `default: usual: "7" names nobody`)
}
