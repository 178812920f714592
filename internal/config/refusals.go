package config

import "fmt"

// tls says whether TLS is served; the stores are for whoever serves it.
func (l *loader) tls() {
	s := &l.site
	l.cfg.TLS = s.boolean(sslEnabled)
	for _, name := range []string{"edekd.tls.certificate-file", "edekd.tls.key-file"} {
		if !l.cfg.TLS && s.isSet(name) {
			s.warn(name, "not used, because "+sslEnabled+" is false", "set "+sslEnabled+" to true for TLS")
		}
	}
}

// authorizationManager refuses what gives a KMS of Ranger its rules. Hadoop's
// own KMS does not know the property, but a site that sets it relies on it.
func (l *loader) authorizationManager() {
	if l.site.isSet(authManager) {
		l.site.refuse(authManager, "edekd cannot take access rules from "+l.site.text(authManager),
			"remove the property, once nobody relies on those rules: everybody may then do everything")
	}
}

// closedKeys warns of what surprises in Hadoop: a missing default rule of the
// key layer lets nobody in.
func (l *loader) closedKeys() {
	if !l.cfg.Keys.Authorization {
		return
	}
	for _, operation := range []string{"MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ"} {
		if name := "default.key.acl." + operation; !l.acls.isSet(name) {
			l.acls.warn(name, "not set, which in Hadoop closes all keys that have no rule of their own for it",
				fmt.Sprintf("<property><name>%s</name><value>*</value></property> to leave it to the other rules, or in kms-site.xml %s false", name, keyAuthorization))
		}
	}
}
