package proxyusers

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/groups"
)

// directory is Groups that can fail.
type directory struct {
	members map[string][]string
	err     error
	asked   int
}

func (d *directory) Lookup(user string) (groups.Membership, error) {
	d.asked++
	return groups.Membership{Groups: d.members[user]}, d.err
}

// network is a lookup that knows some names.
func network(names map[string][]netip.Addr) lookup {
	return func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if addrs, ok := names[host]; ok {
			return slices.Clone(addrs), nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
}

// configuration has the given settings, "USER.setting" before each value.
func configuration(settings ...string) *conf.Configuration {
	c := conf.New(func(string) (string, bool) { return "", false }, nil)
	for i := 0; i < len(settings); i += 2 {
		c.Override(prefix+settings[i], settings[i+1], "test")
	}
	return c
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestAuthorize(t *testing.T) {
	c := configuration(
		"hive.users", " alice ,\n bob", "hive.groups", "etl", "hive.hosts", "10.0.0.1, 10.1.2.3/16,gateway ,[2001:db8::1],fd00::/8,::ffff:10.9.0.0/112",
		"any.users", "*", "any.hosts", "*",
		"anygroup.groups", " * ", "anygroup.hosts", "*",
		"nobody.users", ",", "nobody.hosts", "*",
		"listed.users", "a,*", "listed.hosts", "*,10.0.0.1",
		"real.users", "~real", "real.groups", "etl", "real.hosts", "*",
		"first.last.users", "alice", "first.last.hosts", "*",
		"nohosts.users", "*", "hostsonly.hosts", "*",
	)
	d := &directory{members: map[string][]string{"carol": {"staff", "etl"}, "dave": {"staff"}}}
	p, _, err := newPolicy(c, d, network(map[string][]netip.Addr{"gateway": addrs("10.5.0.1", "::ffff:10.5.0.2", "2001:db8::5")}))
	if err != nil {
		t.Fatal(err)
	}
	// f wants no error, or a denial that begins with want.
	f := func(real, as, from, want string) {
		t.Helper()
		var addr netip.Addr
		if from != "" {
			addr = netip.MustParseAddr(from)
		}
		err := p.Authorize(real, real+"/h@R", as, addr)
		if err == nil && want == "" {
			return
		}
		var denied *DeniedError
		if !errors.As(err, &denied) || denied.Text != want {
			t.Errorf("%s for %s from %s: got %v, want %q", real, as, from, err, want)
		}
	}
	user := func(real, as string) string { return "User: " + real + "/h@R is not allowed to impersonate " + as }
	from := func(real, addr string) string {
		return "Unauthorized connection for super-user: " + real + "/h@R from IP /" + addr
	}
	f("hive", "alice", "10.0.0.1", "")
	f("hive", "bob", "::ffff:10.0.0.1", "")
	f("hive", "Alice", "10.0.0.1", user("hive", "Alice"))
	f("Hive", "alice", "10.0.0.1", user("Hive", "alice"))
	f("hive", "carol", "10.0.0.1", "")
	f("hive", "dave", "10.0.0.1", user("hive", "dave"))
	f("hive", "dave", "1.1.1.1", user("hive", "dave")) // the user counts before the address
	f("hive", "alice", "10.0.0.2", from("hive", "10.0.0.2"))
	f("hive", "alice", "10.1.255.255", "")
	f("hive", "alice", "10.1.0.0", "")
	f("hive", "alice", "10.2.0.0", from("hive", "10.2.0.0"))
	f("hive", "alice", "10.9.0.7", "")
	f("hive", "alice", "10.5.0.1", "")
	f("hive", "alice", "10.5.0.2", "")
	f("hive", "alice", "2001:db8::5", "")
	f("hive", "alice", "2001:db8::1", "")
	f("hive", "alice", "2001:db8::1%eth0", "")
	f("hive", "alice", "fd00::7", "")
	f("hive", "alice", "fe80::7%eth0", from("hive", "fe80:0:0:0:0:0:0:7%eth0"))
	f("hive", "alice", "::1", from("hive", "0:0:0:0:0:0:0:1"))
	f("hive", "alice", "", from("hive", "invalid IP"))
	f("any", "mallory", "::1", "")
	f("any", "mallory", "", "")
	f("anygroup", "mallory", "1.1.1.1", "")
	f("nobody", "alice", "1.1.1.1", user("nobody", "alice"))
	f("listed", "a", "10.0.0.1", "")
	f("listed", "b", "10.0.0.1", user("listed", "b"))
	f("listed", "a", "10.0.0.2", from("listed", "10.0.0.2"))
	f("real", "anybody", "1.1.1.1", "")
	f("first.last", "alice", "1.1.1.1", "")
	f("last", "alice", "1.1.1.1", user("last", "alice"))
	f("nohosts", "alice", "1.1.1.1", from("nohosts", "1.1.1.1"))
	f("hostsonly", "alice", "1.1.1.1", user("hostsonly", "alice"))
	f("", "alice", "1.1.1.1", user("", "alice"))
}

func TestGroupsThatCannotBeFoundOutAreNoDenial(t *testing.T) {
	d := &directory{err: errors.New("the directory is down")}
	p, _, err := newPolicy(configuration("hive.users", "alice,~self", "hive.groups", "etl", "hive.hosts", "*"), d, network(nil))
	if err != nil {
		t.Fatal(err)
	}
	err = p.Authorize("hive", "hive@R", "carol", netip.MustParseAddr("10.0.0.1"))
	var denied *DeniedError
	if !errors.Is(err, d.err) || errors.As(err, &denied) {
		t.Errorf("got %v", err)
	}
	asked := d.asked
	if err := p.Authorize("hive", "hive@R", "alice", netip.MustParseAddr("10.0.0.1")); err != nil || d.asked != asked {
		t.Errorf("a user who is named is looked up all the same: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	c := configuration("hive.user", "a", "*.users", "b", ".hosts", "c", "users", "d", "a b.users", "*",
		"half.users", "*", "other.hosts", "*", "third.groups", "x",
		"list.users", "a,*", "list.hosts", "gone.example.com,gone2.example.com,*")
	_, warnings, err := newPolicy(c, &directory{}, network(nil))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range warnings {
		if w.Source.String() != "test" {
			t.Errorf("%+v", w)
		}
		text, _, _ := strings.Cut(w.Text, ":")
		got = append(got, strings.TrimPrefix(w.Name, prefix)+" "+text)
	}
	want := []string{
		"*.users is no setting of a proxy user", ".hosts is no setting of a proxy user", "a b.users is no setting of a proxy user",
		"half.users does nothing without hadoop.kms.proxyuser.half.hosts", "hive.user is no setting of a proxy user",
		"list.hosts holds a * among other names, where it means nothing",
		`list.hosts names the host "gone.example.com", which is not found (lookup gone.example.com`,
		`list.hosts names the host "gone2.example.com", which is not found (lookup gone2.example.com`,
		"list.users holds a * among other names, where it means nothing",
		"other.hosts does nothing without hadoop.kms.proxyuser.other.users or .groups",
		"third.groups does nothing without hadoop.kms.proxyuser.third.hosts", "users is no setting of a proxy user",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRefusedHosts(t *testing.T) {
	for _, host := range []string{"10.0.0.0/33", "10.0.0.0/", "/8", "10.0.0/8", "host/8", "010.0.0.1", "10.1", "10", "10.0.0.256", "1.2.3.4:80", "[::1]:80", "::g", "fe80::1%eth0/64", "::ffff:0.0.0.0/95", "10.0.0.1/8/8"} {
		_, _, err := newPolicy(configuration("hive.users", "*", "hive.hosts", "10.0.0.1,"+host), &directory{}, network(nil))
		var value *conf.ValueError
		if !errors.As(err, &value) || value.Property.Name != prefix+"hive.hosts" || !strings.Contains(err.Error(), "write it like") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestHostNamesAreRenewedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer []netip.Addr
		var failure error
		lookups := 0
		p, _, err := newPolicy(configuration("hive.users", "*", "hive.hosts", "gateway"), &directory{},
			func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
				lookups++
				addrs, err := slices.Clone(answer), failure
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				return addrs, err
			})
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.MustParseAddr("10.0.0.1")
		// f asks after a time and wants an answer at once.
		f := func(after time.Duration, allowed bool, looked int) {
			t.Helper()
			time.Sleep(after)
			start := time.Now()
			if err := p.Authorize("hive", "hive", "alice", addr); (err == nil) != allowed {
				t.Errorf("%v", err)
			}
			if waited := time.Since(start); waited != 0 {
				t.Errorf("the question waited for %v", waited)
			}
			time.Sleep(2 * time.Second) // whatever runs in the background
			synctest.Wait()
			if lookups != looked {
				t.Errorf("%d look-ups, want %d", lookups, looked)
			}
		}
		f(0, false, 1)
		answer = []netip.Addr{addr}
		f(0, false, 1)
		f(lookupInterval, false, 2) // this one starts it
		f(0, true, 2)
		failure = errors.New("the name server is down")
		f(lookupInterval, true, 3)
		f(0, true, 3) // what was known stays
		answer, failure = nil, &net.DNSError{IsNotFound: true}
		f(lookupInterval, true, 4)
		f(0, false, 4)
	})
}

// A name server that does not answer holds nobody back who changes something
// else, and what was known of a name goes on to count.
func TestRenewDoesNotWaitForHostNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := false
		p, _, err := newPolicy(configuration("hive.users", "*", "hive.hosts", "old,gone"), &directory{},
			func(ctx context.Context, _, host string) ([]netip.Addr, error) {
				if silent && host != "new" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return addrs(map[string]string{"old": "10.0.0.1", "gone": "10.0.0.2", "new": "10.0.0.3"}[host]), nil
			})
		if err != nil {
			t.Fatal(err)
		}
		silent = true
		start := time.Now()
		var unfound []conf.Warning
		next, warnings, err := p.Renew(configuration("hive.users", "alice", "hive.hosts", "old,new,other", "half.users", "*"), &directory{},
			func(w []conf.Warning) { unfound = w })
		if err != nil || len(warnings) != 1 || warnings[0].Name != prefix+"half.users" || time.Since(start) != 0 {
			t.Fatalf("%v, %v after %v", warnings, err, time.Since(start))
		}
		f := func(user, addr string, allowed bool) {
			t.Helper()
			if err := next.Authorize("hive", "hive", user, netip.MustParseAddr(addr)); (err == nil) != allowed {
				t.Errorf("%s from %s: %v", user, addr, err)
			}
		}
		f("alice", "10.0.0.1", true)
		f("bob", "10.0.0.1", false)
		f("alice", "10.0.0.2", false)
		synctest.Wait() // what answers has answered
		f("alice", "10.0.0.3", true)
		time.Sleep(lookupTime)
		synctest.Wait()
		f("alice", "10.0.0.1", true)
		if len(unfound) != 2 || !strings.Contains(unfound[0].Text, `"old", which is not found`) || !strings.Contains(unfound[1].Text, `"other", which is not found`) {
			t.Errorf("%v", unfound)
		}
		if _, _, err := next.Renew(configuration("hive.hosts", "10.0.0"), &directory{}, nil); err == nil {
			t.Error("what is no address is taken")
		}
	})
}

func TestManyHostNamesAreLookedUpWithinTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 100 {
			names = append(names, "h"+string(rune('a'+i%26))+strings.Repeat("x", i/26))
		}
		start := time.Now()
		_, warnings, err := newPolicy(configuration("hive.users", "*", "hive.hosts", strings.Join(names, ",")), &directory{},
			func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		if took := time.Since(start); err != nil || took != lookupTime || len(warnings) != len(names) {
			t.Errorf("%v, %d warnings, %v", took, len(warnings), err)
		}
	})
}

// FuzzHosts reads arbitrary lists of hosts.
func FuzzHosts(f *testing.F) {
	f.Add("10.0.0.1,10.1.0.0/16,[::1],fd00::/8,name,*", "10.1.2.3")
	f.Add("::ffff:10.0.0.0/104", "::ffff:10.1.1.1")
	f.Fuzz(func(t *testing.T, list, from string) {
		addr, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		c := configuration("hive.users", "*", "hive.hosts", strings.ReplaceAll(list, "$", ""))
		p, _, err := newPolicy(c, &directory{}, network(nil))
		if err != nil {
			return
		}
		mapped := addr
		if addr.Is4() {
			mapped = netip.AddrFrom16(addr.As16())
		}
		if (p.Authorize("hive", "hive", "a", addr) == nil) != (p.Authorize("hive", "hive", "a", mapped) == nil) {
			t.Errorf("%q: %s and %s are not the same", list, addr, mapped)
		}
	})
}
