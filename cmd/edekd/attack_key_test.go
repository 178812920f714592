package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// waysToTreasure are paths that somebody might take for the key's.
func waysToTreasure(name string) []string {
	var ways []string
	for _, way := range []string{"NAME", "%NAME", "NAME%00", "NAME%20", "%20NAME", "NAME%0A", "NAME%09", "NAME;x=1", ";x=1/NAME", "x;/../NAME", "NAME%3B", "NAME.", "./NAME", "%2E/NAME", "//NAME", "%2FNAME", "NAME%2F", "NAME//",
		"trinket/../NAME", "trinket%2F..%2FNAME", "trinket/%2e%2e/NAME", "trinket/..;/NAME", "trinket%00NAME", "trinket,NAME", "NAME,trinket", "NAME%23", "NAME%3F", "NAME%252F", "%25NAME", "NAME%E2%80%8B", "NAME%c0%80", "\xef\xbb\xbfNAME", "NAME\xff"} {
		first := name
		if strings.HasPrefix(way, "%NAME") {
			way, first = way[1:], "%74"+name[1:]
		}
		ways = append(ways, strings.Replace(way, "NAME", first, 1))
	}
	return append(ways, strings.ToUpper(name), strings.ToUpper(name[:1])+name[1:], strings.ReplaceAll(name, "s", "\u017f"))
}

// pathTricks: mallory, to whom treasure is closed, tries every way to it.
func pathTricks(t *testing.T, a *arena) {
	f := func(method, target string, body ...string) {
		t.Helper()
		got := a.ask(t, method, target, a.as("mallory"), body...)
		shown := strings.Contains(got.body, `"treasure`) && got.StatusCode < 300
		for _, secret := range a.secret {
			shown = shown || strings.Contains(got.body, secret)
		}
		if shown {
			t.Errorf("%s %q %q: %s %s", method, target, body, got.Status, got.body)
		}
	}
	for _, way := range waysToTreasure("treasure") {
		for _, tail := range []string{"", "/", "/_metadata", "/_currentversion", "/_versions", "/_eek?eek_op=generate&num_keys=1", "/_metadata/../_currentversion", "/_currentversion/", "/_currentversion;x", "/%5Fcurrentversion", "/_eek;x?eek_op=generate"} {
			f("GET", "/kms/v1/key/"+way+tail)
			f("HEAD", "/kms/v1/key/"+way+tail)
		}
		f("DELETE", "/kms/v1/key/"+way)
		f("POST", "/kms/v1/key/"+way, "{}")
		f("POST", "/kms/v1/key/"+way+"/_invalidatecache", "{}")
		f("GET", "/kms/v1/keys/metadata?key="+way)
		f("GET", "/kms/v1/keys/metadata?key=trinket2&key="+way)
	}
	for _, base := range []string{"//kms/v1", "/kms//v1", "/kms/./v1", "/x/../kms/v1", "/KMS/v1", "/kms;x/v1", "/kms/v1;x", "/%6Bms/v1", "/kms%2Fv1", "http://h/kms/v1", "http://h@x:1/kms/v1", "HTTP://h/kms/v1", "ftp://h/kms/v1", "x:/kms/v1"} {
		f("GET", base+"/key/treasure/_currentversion")
		f("DELETE", base+"/key/treasure")
	}
	for _, way := range append(waysToTreasure("treasure@0"), "treasure%400", "treasure@00", "treasure@+0", "treasure@-0", "treasure@0x0", "treasure@0@0", "treasure@%30", "treasure@0%20", "trinket@0/../treasure@0", "treasure@0;trinket@0", "treasure%2540", "treasure\uff200", "treasure@\u0660") {
		f("GET", "/kms/v1/keyversion/"+way)
		for _, name := range []string{"trinket", "treasure", "", "TREASURE", "treasure@0", "treasure ", "treasure\\u0000"} {
			f("POST", "/kms/v1/keyversion/"+way+"/_eek?eek_op=decrypt", `{"name":"`+name+`",`+a.stolen+`}`)
		}
		f("POST", "/kms/v1/keyversion/"+way+"/_eek?eek_op=reencrypt", `{"name":"trinket",`+a.stolen+`}`)
	}
	for _, body := range []string{
		`{"name":"trinket","name":"treasure",` + a.stolen + `}`, `{"name":"treasure","name":"trinket",` + a.stolen + `}`, `{"Name":"trinket","name":"treasure",` + a.stolen + `}`, `{"name":"treasure","NAME":"trinket",` + a.stolen + `}`,
		`{"name":["trinket"],` + a.stolen + `}`, `{"name":null,` + a.stolen + `}`, `{` + a.stolen + `}`, `{"n\u0061me":"trinket",` + a.stolen + `}`, `{"name":"tr\u0065asure",` + a.stolen + `}`, `[{"name":"trinket",` + a.stolen + `}]`, `{"name":"trinket",` + a.stolen + `}{"name":"treasure"}`,
	} {
		for _, version := range []string{"treasure@0", "trinket@0"} {
			for _, op := range []string{"decrypt", "reencrypt", "decrypt&eek_op=reencrypt", "generate", "DECRYPT", "decrypt;x"} {
				f("POST", "/kms/v1/keyversion/"+version+"/_eek?eek_op="+op, body)
			}
		}
	}
	var parts struct{ IV, Material string }
	if err := json.Unmarshal([]byte("{"+a.stolen+"}"), &parts); err != nil {
		t.Fatal(err)
	}
	entry := func(version string) string {
		return `{"versionName":"` + version + `","iv":"` + parts.IV + `","encryptedKeyVersion":{"versionName":"EEK","material":"` + parts.Material + `"}}`
	}
	for _, key := range []string{"treasure", "trinket"} {
		for _, body := range []string{entry("treasure@0"), entry("treasure@0") + "," + entry("trinket@0")} {
			f("POST", "/kms/v1/key/"+key+"/_reencryptbatch", "["+body+"]")
		}
	}
}

// shadowKeys: mallory may make keys, but none that has to do with alice's.
func shadowKeys(t *testing.T, a *arena) {
	f := func(status int, body string) {
		t.Helper()
		if got := a.ask(t, "POST", "/kms/v1/keys", a.as("mallory"), body); got.StatusCode != status {
			t.Errorf("%s: %s %s", body, got.Status, got.body)
		}
	}
	f(403, `{"name":"treasure"}`)
	f(403, `{"name":"mine","name":"treasure"}`)
	f(403, `{"name":"mine","attributes":{"key.acl.name":"treasure"}}`)
	f(403, `{"name":"treasure","attributes":{"key.acl.name":"treasure"}}`)
	f(500, `{"name":"treasure","attributes":{"key.acl.name":"trinket"}}`) // his rules, but her key
	f(500, `{"name":"treasure","attributes":{"key.acl.name":"treasure","key.acl.name":"trinket"}}`)
	f(400, `{"name":"mine","attributes":{"key.acl.name":""}}`)
	f(400, `{"name":""}`)
	f(400, `{"name":"treasure\u0000"}`)

	// Keys whose names look like versions or paths are keys like others.
	for _, name := range []string{"treasure@0", "treasure@1", "treasure@0@0", "treasure/_currentversion", "../treasure", "treasure ", "Treasure"} {
		got := a.ask(t, "POST", "/kms/v1/keys", a.as("mallory"), `{"name":"`+name+`"}`)
		if got.StatusCode != 201 {
			continue
		}
		stolen := a.ask(t, "POST", "/kms/v1/keyversion/treasure@0/_eek?eek_op=decrypt", a.as("mallory"), `{"name":"`+name+`",`+a.stolen+`}`)
		if strings.Contains(stolen.body, a.dek) {
			t.Errorf("%s opens treasure", name)
		}
		for _, target := range []string{"/keyversion/treasure@0", "/key/treasure/_versions", "/key/treasure/_currentversion"} {
			refused(t, name+" "+target, a.ask(t, "GET", "/kms/v1"+target, a.as("mallory")), 403)
		}
		path := strings.NewReplacer("/", "%2F", " ", "%20").Replace(name)
		if got := a.ask(t, "DELETE", "/kms/v1/key/"+path, a.as("mallory")); got.StatusCode != 200 {
			t.Errorf("delete %s: %s %s", name, got.Status, got.body)
		}
	}
}
