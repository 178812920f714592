package interop

import "testing"

var simpleSite = []string{"hadoop.kms.proxyuser.hive.users", "joe", "hadoop.kms.proxyuser.hive.hosts", "127.0.0.0/8"}

// runSimple runs Simple.java against the KMS at addr.
func runSimple(t *testing.T, hadoop, addr string) {
	t.Helper()
	RunChecks(t, Java(t, hadoop, checksPackage+"Simple", addr), nil,
		"a-user-creates-generates-and-decrypts", "rules-hold", "the-cookie-names-the-user",
		"a-token-says-whose-it-is", "a-token-decrypts", "a-token-generates",
		"a-token-opens-what-its-owner-may-open", "only-the-renewer-renews", "the-renewer-renews",
		"the-owner-cancels", "a-cancelled-token-opens-nothing", "a-cancelled-token-is-not-renewed",
		"a-service-acts-for-a-user", "a-service-does-not-act-for-everybody", "a-user-acts-for-nobody",
		"a-service-gets-a-token-for-a-user", "a-do-as-in-the-query",
	)
}

func TestSimpleJavaKMS(t *testing.T) {
	runSimple(t, "3.4.3", StartJavaKMS(t, "3.4.3", JavaKMSOptions{Site: simpleSite, Rules: kerberizedRules}).Addr)
}

func TestSimpleClients(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		runSimple(t, hadoop, startEdekd(t, edekdOptions{site: simpleSite, rules: kerberizedRules}).Addr)
	})
}
