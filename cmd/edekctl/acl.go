package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/groups"
	"github.com/edekd/edekd/hadoop/proxyusers"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/daemon"
	"github.com/edekd/edekd/proxy/authz"
)

// keyAuthorization switches the key layer off where it is false.
const keyAuthorization = "hadoop.kms.key.authorization.enable"

type explainCmd struct {
	configFlag
	User     string  `required:"" placeholder:"NAME" help:"Short name of the user, as in the rules: hdfs, not hdfs/nn1@REALM."`
	Groups   *string `placeholder:"GROUP,..." help:"Groups of the user, instead of those that edekd would find on this host. Empty for none."`
	RealUser string  `placeholder:"NAME" help:"Short name of the user who acts for the other."`
	From     string  `placeholder:"ADDR" help:"Address that the request of the real user comes from, for hadoop.kms.proxyuser.NAME.hosts."`
	Op       string  `required:"" placeholder:"OPERATION" help:"Operation as in the audit log and in denials, such as DECRYPT_EEK or CREATE_KEY, or as in hadoop.kms.acl.OPERATION."`
	Key      string  `placeholder:"NAME" help:"Key. Every operation but GET_KEYS needs one."`
	ACLName  string  `placeholder:"NAME" name:"acl-name" help:"Attribute key.acl.name of the key, where it is not the key's own name."`
}

func (cmd *explainCmd) Run(out io.Writer) error {
	call, err := callOf(cmd.Op)
	if err != nil {
		return err
	}
	if cmd.User == "" {
		return &daemon.Refusal{What: "--user is empty", Remedy: "name a user"}
	}
	if call.OnKeys && cmd.Key == "" {
		return &daemon.Refusal{What: fmt.Sprintf("%s is done to a key", call.Op), Remedy: "name one with --key"}
	}
	var addr netip.Addr
	if cmd.From != "" {
		if addr, err = netip.ParseAddr(cmd.From); err != nil {
			return &daemon.Refusal{What: fmt.Sprintf("--from %q is no address", cmd.From), Remedy: "an address like 10.1.2.3"}
		}
	}
	rules, err := readRules(cmd.Config)
	if err != nil {
		return err
	}
	from, err := cmd.groups(rules)
	if err != nil {
		return err
	}
	x := explainer{cmd: cmd, call: call, rules: rules, groups: from, from: addr,
		caller: &edek.Caller{User: cmd.User, Full: cmd.User, Real: cmd.RealUser}}
	if err := x.explain(); err != nil {
		return err
	}
	_, err = io.WriteString(out, x.text.String())
	return err
}

// callOf finds a call by its name in the audit log, else the first that needs
// the KMS-layer type of that name.
func callOf(name string) (authz.Call, error) {
	var known []string
	for _, call := range slices.Concat(authz.Calls, authz.Additions) {
		if strings.EqualFold(name, call.Op.String()) {
			return call, nil
		}
		known = append(known, call.Op.String())
	}
	switch strings.ToUpper(name) {
	case authz.Create.String(), authz.Delete.String(), authz.Rollover.String(), authz.Get.String():
		for _, call := range authz.Calls {
			if strings.EqualFold(name, call.Types[0].String()) {
				return call, nil
			}
		}
	}
	return authz.Call{}, &daemon.Refusal{What: fmt.Sprintf("there is no operation %q", name), Remedy: "one of " + strings.Join(known, ", ")}
}

// rules are the files of a configuration folder that rights depend on.
type rules struct {
	site     *conf.Configuration
	keyLayer bool
	policy   *authz.Policy
	warnings []authz.Problem
}

func readRules(dir string) (*rules, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, &daemon.Refusal{What: dir + " is not a folder that can be read", Remedy: "name the folder that holds kms-acls.xml", Err: err}
	}
	r := &rules{}
	if r.site, err = readFiles(dir, "core-site.xml", "kms-site.xml"); err != nil {
		return nil, err
	}
	if r.keyLayer, err = r.site.Bool(keyAuthorization, true); err != nil {
		return nil, &daemon.Refusal{What: err.Error(), Remedy: "true or false"}
	}
	acls, err := readFiles(dir, "kms-acls.xml")
	if err != nil {
		return nil, err
	}
	r.policy, r.warnings, err = authz.NewPolicy(acls)
	if problems, ok := errors.AsType[authz.Problems](err); ok {
		var all config.Problems
		for _, problem := range problems {
			all = append(all, config.Problem(problem))
		}
		return nil, all
	}
	return r, err
}

// readFiles lays files of dir over each other. Those that do not exist are
// left out, as edekd does.
func readFiles(dir string, names ...string) (*conf.Configuration, error) {
	home, _ := os.UserHomeDir()
	c := conf.New(os.LookupEnv, map[string]string{"user.home": home, "user.name": os.Getenv("USER"), "java.io.tmpdir": "/tmp", "kms.config.dir": dir})
	for _, name := range names {
		path := filepath.Join(dir, name)
		err := c.LoadFile(path)
		if syntax, ok := errors.AsType[*conf.SyntaxError](err); ok {
			return nil, config.Problems{{File: syntax.Source.String(), What: syntax.What, Remedy: syntax.Remedy}}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, config.Problems{{File: path, What: err.Error(), Remedy: "run edekctl as the user that edekd runs as"}}
		}
	}
	return c, nil
}

// given are groups from the command line.
type given []string

func (g given) Of(string) ([]string, error) { return g, nil }

func (g given) Lookup(string) (groups.Membership, error) { return groups.Membership{Groups: g}, nil }

// source finds groups for the rules and for proxy users.
type source interface {
	authz.Groups
	proxyusers.Groups
}

func (cmd *explainCmd) groups(r *rules) (source, error) {
	if cmd.Groups != nil {
		var list given
		for group := range strings.SplitSeq(*cmd.Groups, ",") {
			if group = strings.TrimSpace(group); group != "" {
				list = append(list, group)
			}
		}
		return list, nil
	}
	cache, err := groups.New(r.site)
	if err != nil {
		return nil, &daemon.Refusal{What: "the group mapping of the configuration cannot be used", Err: err, Remedy: "name the groups with --groups"}
	}
	return cache, nil
}

// explainer writes an explanation.
type explainer struct {
	cmd    *explainCmd
	call   authz.Call
	rules  *rules
	groups source
	from   netip.Addr // not valid: unknown
	caller *edek.Caller
	text   strings.Builder
}

func (x *explainer) explain() error {
	var layers strings.Builder
	allowed := false
	for _, typ := range x.call.Types {
		e, err := x.rules.policy.ExplainKMS(typ, x.caller, x.groups)
		if err != nil {
			return x.unanswered(err)
		}
		allowed = allowed || e.Allowed
		write(&layers, "KMS layer, "+typ.String(), e)
	}
	if x.call.Material {
		if err := x.material(&layers); err != nil {
			return err
		}
	}
	switch {
	case !x.call.OnKeys:
		layers.WriteString("key layer: not asked, because the operation is not done to a key\n")
	case !x.rules.keyLayer:
		fmt.Fprintf(&layers, "key layer: not asked, because %s is false\n", keyAuthorization)
	default:
		aclName := x.cmd.ACLName
		if aclName == "" {
			aclName = x.cmd.Key
		}
		e, err := x.rules.policy.ExplainKey(x.call.Right, aclName, x.caller, x.groups)
		if err != nil {
			return x.unanswered(err)
		}
		allowed = allowed && e.Allowed
		write(&layers, fmt.Sprintf("key layer, %s on ACL name %q", x.call.Right, aclName), e)
	}
	proviso := ""
	if x.cmd.RealUser != "" {
		impersonates, hosts, err := x.impersonation(&layers)
		if err != nil {
			return err
		}
		allowed = allowed && impersonates
		if allowed && hosts != "" {
			proviso = ", if the request comes from one of " + hosts
		}
	}
	x.headline(allowed, proviso)
	x.text.WriteString(layers.String())
	for _, name := range []string{x.cmd.User, x.cmd.RealUser} {
		if strings.ContainsAny(name, "/@") {
			fmt.Fprintf(&x.text, "WARNING: %q is no short name, and rules know short names only. Try: the name that hadoop.kms.authentication.kerberos.name.rules makes of it\n", name)
		}
	}
	for _, w := range x.rules.warnings {
		fmt.Fprintf(&x.text, "WARNING: %s\n", w.Error())
	}
	return nil
}

// impersonation explains whether the real user may act for the user. Where that
// depends on an address that is not known, hosts is the property that decides.
func (x *explainer) impersonation(layers *strings.Builder) (allowed bool, hosts string, err error) {
	policy, warnings, err := proxyusers.New(x.rules.site, x.groups)
	if err != nil {
		return false, "", &daemon.Refusal{What: err.Error(), Remedy: "another value, see docs/proxy-users.md"}
	}
	for _, w := range warnings {
		x.rules.warnings = append(x.rules.warnings, authz.Problem{File: w.Source.String(), Property: w.Name, What: w.Text, Remedy: "see docs/proxy-users.md"})
	}
	err = policy.Authorize(x.cmd.RealUser, x.cmd.RealUser, x.cmd.User, x.from)
	denied, isDenied := errors.AsType[*proxyusers.DeniedError](err)
	switch {
	case err == nil:
		fmt.Fprintf(layers, "proxy user %q: allowed\n", x.cmd.RealUser)
		return true, "", nil
	case !isDenied:
		return false, "", x.unanswered(err)
	case !x.from.IsValid() && strings.HasPrefix(denied.Text, "Unauthorized connection"):
		hosts = "hadoop.kms.proxyuser." + x.cmd.RealUser + ".hosts"
		fmt.Fprintf(layers, "proxy user %q: it depends on the address of the request, which %s has to list; name it with --from\n", x.cmd.RealUser, hosts)
		return true, hosts, nil
	}
	fmt.Fprintf(layers, "proxy user %q: denied, with 403 and %q, unless a delegation token holds both users\n", x.cmd.RealUser, denied.Text)
	return false, "", nil
}

// material explains what else a new key version may need.
func (x *explainer) material(layers *strings.Builder) error {
	for _, extra := range []struct {
		when string
		typ  authz.Type
	}{
		{"if the request brings the material", authz.SetKeyMaterial},
		{"for the answer to show the material", authz.Get},
	} {
		e, err := x.rules.policy.ExplainKMS(extra.typ, x.caller, x.groups)
		if err != nil {
			return x.unanswered(err)
		}
		write(layers, fmt.Sprintf("KMS layer, %s %s", extra.typ, extra.when), e)
	}
	return nil
}

func (x *explainer) headline(allowed bool, proviso string) {
	fmt.Fprintf(&x.text, "%s", x.call.Op)
	if x.call.OnKeys {
		fmt.Fprintf(&x.text, " on key %q", x.cmd.Key)
	}
	fmt.Fprintf(&x.text, " by user %q", x.cmd.User)
	if x.cmd.RealUser != "" {
		fmt.Fprintf(&x.text, " through real user %q", x.cmd.RealUser)
	}
	fmt.Fprintf(&x.text, ": %s%s\n", word(allowed), proviso)
}

// unanswered is the error where groups decide and cannot be found out.
func (x *explainer) unanswered(err error) error {
	return fmt.Errorf("edekd would answer 500: %w. Try: name the groups with --groups", err)
}

func word(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// write puts an answer, its reason and its rules down.
func write(b *strings.Builder, question string, e authz.Explanation) {
	fmt.Fprintf(b, "%s: %s, because %s\n", question, word(e.Allowed), e.Why)
	for _, rule := range e.Rules {
		fmt.Fprintf(b, "  %s: %s = %q\n", rule.Source, rule.Name, rule.Value)
	}
}
