package interop

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The matrix asks every operation of the KMS in every way in which rules can
// allow or deny it, and compares status, answer and audit lines with the Java
// KMS's. It is generated: matrixCases says who asks for which key, matrixOps
// how an operation is asked for.

// matrixSite and matrixRules are the configuration of both servers. Nobody's
// rights come from the open rules that WriteKMSConfig writes.
var (
	matrixSite = []string{
		"hadoop.user.group.static.mapping.overrides",
		"ann=;bea=;dan=;wes=;al=;dot=;adm=;rol=;del=;nom=;nog=;fence=;gus=staff;gil=staff,banned;warm=;hive=;ext=",
		"hadoop.kms.proxyuser.hive.users", "*",
		"hadoop.kms.proxyuser.hive.hosts", "*",
		// Longer than the run: what is counted is logged once, the first time.
		"hadoop.kms.audit.aggregation.window.ms", "3600000",
	}
	matrixRules = func() (rules []string) {
		for _, op := range []string{"CREATE", "GET_KEYS", "GET_METADATA", "GENERATE_EEK", "DECRYPT_EEK"} {
			rules = append(rules, "hadoop.kms.acl."+op, "ann,bea,wes,al,dot,adm,nom,nog,~hive staff")
		}
		rules = append(rules,
			"hadoop.kms.acl.ROLLOVER", "ann,bea,wes,al,dot,adm,nom,nog,rol,fence staff",
			"hadoop.kms.acl.DELETE", "ann,bea,wes,al,dot,adm,del staff",
			"hadoop.kms.acl.GET", "ann,bea,wes,al,dot,adm,nom staff",
			"hadoop.kms.acl.SET_KEY_MATERIAL", "ann,bea,wes,al,dot,adm,nog staff")
		for _, op := range []string{"CREATE", "DELETE", "ROLLOVER", "GET", "GET_KEYS", "GET_METADATA", "SET_KEY_MATERIAL", "GENERATE_EEK", "DECRYPT_EEK"} {
			rules = append(rules, "hadoop.kms.blacklist."+op, "bea banned")
		}
		for _, right := range []string{"MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ"} {
			rules = append(rules,
				"key.acl.k-own."+right, "ann,dan,bea,nom,nog,rol,del",
				"key.acl.k-other."+right, "dan,bea,gil",
				"key.acl.k-group."+right, " staff",
				"key.acl.shared."+right, "ann",
				"key.acl.k-real."+right, "~hive",
				"default.key.acl."+right, "dot,fence",
				"whitelist.key.acl."+right, "wes,adm")
		}
		return append(rules, "key.acl.k-all.ALL", "al", "key.acl.k-half.ALL", "al")
	}()
)

// matrixKeys are the keys there are, with the attribute key.acl.name of those
// that are given one.
var matrixKeys = []struct{ name, aclName string }{
	{"k-own", ""}, {"k-other", ""}, {"k-group", ""}, {"k-all", ""}, {"k-half", ""}, {"k-plain", ""}, {"k-alias", "shared"}, {"k-real", ""}, {"fence", ""},
}

// matrixCases are who asks for which key; of those who ask for the same key, he
// who may delete it comes last.
var matrixCases = []struct{ name, user, key string }{
	{"allowed", "ann", "k-own"},
	{"acl", "dan", "k-own"},               // in the key's rules, not in those of the KMS
	{"blacklist", "bea", "k-own"},         // in all rules, and in the blacklist
	{"blacklist-group", "gil", "k-group"}, // the same by groups
	{"key", "ann", "k-other"},             // the key is another's
	{"whitelist", "wes", "k-other"},
	{"group", "gus", "k-group"},
	{"all", "al", "k-all"},
	{"default-denied", "ann", "k-plain"},
	{"default", "dot", "k-plain"},
	{"default-shut-off", "dot", "k-half"}, // the key has rules of its own
	{"alias-denied", "dot", "k-alias"},
	{"alias", "ann", "k-alias"},
	{"missing", "ann", "k-none"},
	{"missing-acl", "dan", "k-none"},
}

// matrixOps are the operations. NEW stands for a key that does not exist,
// under the ACL name that is the case's key; ALIAS for an attribute that names
// it. Deletion comes last.
var matrixOps = []struct{ name, request string }{
	{"names", "GET /kms/v1/keys/names?user.name=USER"},
	{"metadata", "GET /kms/v1/key/KEY/_metadata?user.name=USER"},
	{"keys-metadata", "GET /kms/v1/keys/metadata?key=KEY&key=k-own&user.name=USER"},
	{"currentversion", "GET /kms/v1/key/KEY/_currentversion?user.name=USER"},
	{"version", "GET /kms/v1/keyversion/KEY%400?user.name=USER"},
	{"versions", "GET /kms/v1/key/KEY/_versions?user.name=USER"},
	{"generate", "GET /kms/v1/key/KEY/_eek?eek_op=generate&num_keys=1&user.name=USER"},
	{"decrypt", "POST /kms/v1/keyversion/KEY%400/_eek?eek_op=decrypt&user.name=USER\nContent-Type: application/json\n\n" + matrixEEK},
	{"reencrypt", "POST /kms/v1/keyversion/KEY%400/_eek?eek_op=reencrypt&user.name=USER\nContent-Type: application/json\n\n" + matrixEEK},
	{"batch", "POST /kms/v1/key/KEY/_reencryptbatch?user.name=USER\nContent-Type: application/json\n\n[" + matrixBatchEntry + "]"},
	{"create", "POST /kms/v1/keys?user.name=USER\nContent-Type: application/json\n\n{\"name\":\"new-KEY-CASE\",\"length\":128,\"attributes\":{\"key.acl.name\":\"ALIAS\"}}"},
	{"create-material", "POST /kms/v1/keys?user.name=USER\nContent-Type: application/json\n\n{\"name\":\"given-KEY-CASE\",\"length\":128,\"material\":\"AAECAwQFBgcICQoLDA0ODw\",\"attributes\":{\"key.acl.name\":\"ALIAS\"}}"},
	{"roll", "POST /kms/v1/key/KEY?user.name=USER\nContent-Type: application/json\n\n{}"},
	{"roll-material", "POST /kms/v1/key/KEY?user.name=USER\nContent-Type: application/json\n\n{\"material\":\"AAECAwQFBgcICQoLDA0ODw\"}"},
	{"invalidate", "POST /kms/v1/key/KEY/_invalidatecache?user.name=USER"},
	{"delete", "DELETE /kms/v1/key/KEY?user.name=USER"},
}

const (
	matrixEEK        = `{"name":"KEY","iv":"AAECAwQFBgcICQoLDA0ODw","material":"EBESExQVFhcYGRobHB0eHw"}`
	matrixBatchEntry = `{"versionName":"KEY@0","iv":"AAECAwQFBgcICQoLDA0ODw","encryptedKeyVersion":{"versionName":"EEK","material":"EBESExQVFhcYGRobHB0eHw"}}`
)

// matrixExtras are questions apart from the grid, asked before anything is
// deleted: the order of checks, and ways round the rules.
var matrixExtras = []struct{ name, request string }{
	{"invalidate-only-rollover", "POST /kms/v1/key/k-own/_invalidatecache?user.name=rol"},
	{"invalidate-only-delete", "POST /kms/v1/key/k-own/_invalidatecache?user.name=del"},
	{"create-no-material-right", "POST /kms/v1/keys?user.name=nom\nContent-Type: application/json\n\n{\"name\":\"nom\",\"length\":128,\"material\":\"AAECAwQFBgcICQoLDA0ODw\",\"attributes\":{\"key.acl.name\":\"k-own\"}}"},
	{"create-no-get-right", "POST /kms/v1/keys?user.name=nog\nContent-Type: application/json\n\n{\"name\":\"nog\",\"length\":128,\"attributes\":{\"key.acl.name\":\"k-own\"}}"},
	{"roll-no-material-right", "POST /kms/v1/key/k-own?user.name=nom\nContent-Type: application/json\n\n{\"material\":\"AAECAwQFBgcICQoLDA0ODw\"}"},
	{"roll-no-get-right", "POST /kms/v1/key/k-own?user.name=nog\nContent-Type: application/json\n\n{\"material\":\"AAECAwQFBgcICQoLDA0ODw\"}"},
	{"create-plain-default", "POST /kms/v1/keys?user.name=dot\nContent-Type: application/json\n\n{\"name\":\"plain-dot\",\"length\":128}"},
	{"create-plain-denied", "POST /kms/v1/keys?user.name=ann\nContent-Type: application/json\n\n{\"name\":\"plain-ann\",\"length\":128}"},
	{"create-exists-denied", "POST /kms/v1/keys?user.name=ann\nContent-Type: application/json\n\n{\"name\":\"k-other\",\"length\":128}"},
	{"create-acl-then-length", "POST /kms/v1/keys?user.name=dan\nContent-Type: application/json\n\n{\"name\":\"x\",\"length\":7}"},
	{"create-name-then-acl", "POST /kms/v1/keys?user.name=dan\nContent-Type: application/json\n\n{\"name\":\"\"}"},
	{"create-key-then-length", "POST /kms/v1/keys?user.name=ann\nContent-Type: application/json\n\n{\"name\":\"x\",\"length\":7}"},
	{"roll-acl-then-name", "POST /kms/v1/key/?user.name=dan\nContent-Type: application/json\n\n{}"},
	{"delete-acl-then-name", "DELETE /kms/v1/key/?user.name=dan"},
	{"invalidate-name-then-acl", "POST /kms/v1/key//_invalidatecache?user.name=dan"},
	{"metadata-name-then-acl", "GET /kms/v1/key//_metadata?user.name=dan"},
	{"generate-op-then-acl", "GET /kms/v1/key/k-own/_eek?eek_op=x&user.name=dan"},
	{"generate-acl-zero", "GET /kms/v1/key/k-own/_eek?eek_op=generate&num_keys=0&user.name=dan"},
	{"generate-key-zero", "GET /kms/v1/key/k-other/_eek?eek_op=generate&num_keys=0&user.name=ann"},
	{"decrypt-iv-then-acl", "POST /kms/v1/keyversion/k-own%400/_eek?eek_op=decrypt&user.name=dan\nContent-Type: application/json\n\n{\"name\":\"k-own\"}"},
	{"decrypt-acl-no-name", "POST /kms/v1/keyversion/k-own%400/_eek?eek_op=decrypt&user.name=dan\nContent-Type: application/json\n\n{\"iv\":\"AAECAwQFBgcICQoLDA0ODw\",\"material\":\"EBES\"}"},
	{"decrypt-acl-empty-name", "POST /kms/v1/keyversion/k-own%400/_eek?eek_op=decrypt&user.name=dan\nContent-Type: application/json\n\n{\"name\":\"\",\"iv\":\"AAECAwQFBgcICQoLDA0ODw\",\"material\":\"EBES\"}"},
	{"batch-acl-then-entries", "POST /kms/v1/key/k-own/_reencryptbatch?user.name=dan\nContent-Type: application/json\n\n[{}]"},
	{"batch-key-empty", "POST /kms/v1/key/k-other/_reencryptbatch?user.name=ann\nContent-Type: application/json\n\n[]"},
	{"keys-metadata-none", "GET /kms/v1/keys/metadata?user.name=ann"},
	{"keys-metadata-one-denied", "GET /kms/v1/keys/metadata?key=k-own&key=k-none&key=k-other&user.name=ann"},

	{"proxy-real", "GET /kms/v1/key/k-real/_metadata?user.name=hive&doAs=ext"},
	{"proxy-real-decrypt", "POST /kms/v1/keyversion/k-real%400/_eek?eek_op=decrypt&user.name=hive&doAs=ext\nContent-Type: application/json\n\n" + strings.ReplaceAll(matrixEEK, "KEY", "k-real")},
	{"proxy-real-acl", "DELETE /kms/v1/key/k-real?user.name=hive&doAs=ext"},
	{"proxy-real-key", "GET /kms/v1/key/k-own/_metadata?user.name=hive&doAs=ext"},
	{"proxy-effective", "GET /kms/v1/key/k-own/_metadata?user.name=hive&doAs=ann"},
	{"proxy-blacklist", "GET /kms/v1/key/k-real/_metadata?user.name=hive&doAs=bea"},
	{"proxy-without-doas", "GET /kms/v1/key/k-real/_metadata?user.name=hive"},
	{"proxy-itself", "GET /kms/v1/key/k-real/_metadata?user.name=ext"},
	{"proxy-of-another", "GET /kms/v1/key/k-real/_metadata?user.name=ann&doAs=ext"},

	{"trick-foreign-version-decrypt", "POST /kms/v1/keyversion/k-other%400/_eek?eek_op=decrypt&user.name=ann\nContent-Type: application/json\n\n" + strings.ReplaceAll(matrixEEK, "KEY", "k-own")},
	{"trick-foreign-version-reencrypt", "POST /kms/v1/keyversion/k-other%400/_eek?eek_op=reencrypt&user.name=ann\nContent-Type: application/json\n\n" + strings.ReplaceAll(matrixEEK, "KEY", "k-own")},
	{"trick-foreign-version-batch", "POST /kms/v1/key/k-own/_reencryptbatch?user.name=ann\nContent-Type: application/json\n\n[" + strings.ReplaceAll(matrixBatchEntry, "KEY", "k-other") + "]"},
	{"trick-foreign-version-named", "POST /kms/v1/keyversion/k-other%400/_eek?eek_op=decrypt&user.name=ann\nContent-Type: application/json\n\n" + strings.ReplaceAll(matrixEEK, "KEY", "k-other")},
	{"trick-two-names", "POST /kms/v1/keyversion/k-other%400/_eek?eek_op=decrypt&user.name=ann\nContent-Type: application/json\n\n" + `{"name":"k-own","name":"k-other","iv":"AAECAwQFBgcICQoLDA0ODw","material":"EBES"}`},
	{"trick-escaped-letter", "GET /kms/v1/key/k%2Dother/_metadata?user.name=ann"},
	{"trick-parameter", "GET /kms/v1/key/k-other;x=y/_metadata?user.name=ann"},
	{"trick-escaped-parameter", "GET /kms/v1/key/k-other%3Bx=y/_metadata?user.name=ann"},
	{"trick-dots", "GET /kms/v1/key/k-own/../k-other/_metadata?user.name=ann"},
	{"trick-escaped-dots", "GET /kms/v1/key/k-own%2F..%2Fk-other/_metadata?user.name=ann"},
	{"trick-dot", "GET /kms/v1/key/./k-other/_metadata?user.name=ann"},
	{"trick-double-slash", "GET /kms/v1/key//k-other/_metadata?user.name=ann"},
	{"trick-escaped-slash", "GET /kms/v1/key/%2Fk-other/_metadata?user.name=ann"},
	{"trick-trailing-slash", "GET /kms/v1/key/k-other/_metadata/?user.name=ann"},
	{"trick-bare-slash", "GET /kms/v1/key/k-other/?user.name=ann"},
	{"trick-twice-escaped", "GET /kms/v1/key/k%252Dother/_metadata?user.name=ann"},
	{"trick-upper", "GET /kms/v1/key/K-OTHER/_metadata?user.name=ann"},
	{"trick-version-parameter", "GET /kms/v1/keyversion/k-other%400;x=y?user.name=ann"},
	{"trick-version-trailing-slash", "GET /kms/v1/keyversion/k-other%400/?user.name=ann"},
	{"trick-generate-parameter", "GET /kms/v1/key/k-other;/_eek;?eek_op=generate&user.name=ann"},
	{"trick-two-ops", "POST /kms/v1/keyversion/k-other%400/_eek?eek_op=reencrypt&eek_op=decrypt&user.name=gus\nContent-Type: application/json\n\n" + strings.ReplaceAll(matrixEEK, "KEY", "k-other")},
}

// Matrix returns the exchanges in the order in which they are sent.
func Matrix() (list []*Exchange) {
	add := func(name, request string) *Exchange {
		e := &Exchange{Group: "matrix", Name: name, Responses: 1, Request: request, Recorded: map[string]string{}}
		list = append(list, e)
		return e
	}
	for _, k := range matrixKeys {
		attributes := ""
		if k.aclName != "" {
			attributes = fmt.Sprintf(`,"attributes":{"key.acl.name":%q}`, k.aclName)
		}
		add("setup-"+k.name, fmt.Sprintf("POST /kms/v1/keys?user.name=adm\nContent-Type: application/json\n\n"+
			`{"name":%q,"length":128,"material":"8PHy8_T19vf4-fr7_P3-_w"%s}`, k.name, attributes))
	}
	asked := map[string]bool{} // a list of names knows no keys
	for _, op := range matrixOps {
		if op.name == "delete" {
			for _, e := range matrixExtras {
				add("extra-"+e.name, e.request)
			}
		}
		for _, c := range matrixCases {
			aclName := c.key
			if c.key == "k-alias" {
				aclName = "shared"
			}
			request := strings.NewReplacer("USER", c.user, "KEY", c.key, "ALIAS", aclName, "CASE", c.name).Replace(op.request)
			if op.name == "names" && asked[request] {
				continue
			}
			asked[request] = true
			e := add(op.name+"-"+c.name, request)
			e.BodyVaries = op.name == "names" && c.user != "dan" && c.user != "bea" && c.user != "gil" // in any order
		}
	}
	return list
}

// fence makes the audit lines of an exchange findable: the line of a request
// that comes after it, and is never sent otherwise, ends them.
const (
	fenceRequest = "POST /kms/v1/key/fence/_invalidatecache?user.name=fence"
	fenceLine    = "OK[op=INVALIDATE_CACHE, key=fence, user=fence] "
)

// auditReader returns the audit lines of one exchange after the other.
type auditReader struct {
	tb   testing.TB
	path string
	// text returns what a line of the file says in the audit log's format;
	// false when it is no audit line.
	text func(line string) (string, bool)
	read int64
}

// next returns the lines since the last call, without that of the fence, which
// must have been answered.
func (r *auditReader) next(fence *Run) []string {
	r.tb.Helper()
	if a, err := fence.Do(&Exchange{Name: "fence", Responses: 1, Request: fenceRequest}); err != nil || a[0].Status != 200 {
		r.tb.Fatalf("fence: %v %+v", err, a)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := os.ReadFile(r.path)
		if err != nil {
			r.tb.Fatal(err)
		}
		var lines []string
		at := r.read
		for line := range strings.Lines(string(all[at:])) {
			at += int64(len(line))
			text, ok := r.text(strings.TrimSuffix(line, "\n"))
			if ok && text == fenceLine {
				r.read = at
				return lines
			}
			if ok {
				lines = append(lines, text)
			}
		}
		if time.Now().After(deadline) {
			r.tb.Fatalf("%s: no line of the fence after %q", r.path, lines)
		}
	}
}
