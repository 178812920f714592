package io.edekd.interop;

import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.PrivilegedExceptionAction;
import java.util.Arrays;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.EncryptedKeyVersion;
import org.apache.hadoop.crypto.key.KeyProviderDelegationTokenExtension;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.SaslRpcServer.AuthMethod;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.authentication.client.AuthenticatedURL;
import org.apache.hadoop.security.authentication.client.KerberosAuthenticator;
import org.apache.hadoop.security.token.Token;

/**
 * The load-balancing client of a Kerberized cluster and its two nodes, each under a name and with a
 * service principal of its own. The test stops one node or the other at the named steps, so that
 * what one has issued comes to the other.
 */
public final class KerberizedPair {
  private static final String KEY = "kerberized";

  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final String hosts;
  private final String port;
  private final UserGroupInformation alice;
  private final UserGroupInformation yarn;
  private final UserGroupInformation hive;

  private KerberizedPair(String port, String realm, String keytab) throws Exception {
    this.port = port;
    hosts = "kms://http@127.0.0.1;127.0.0.2:" + port + "/kms";
    conf.set("hadoop.security.authentication", "kerberos");
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    conf.setInt("hadoop.security.kms.client.failover.sleep.base.millis", 5);
    conf.setInt("hadoop.security.kms.client.failover.sleep.max.millis", 20);
    conf.set("hadoop.security.key.provider.path", hosts);
    UserGroupInformation.setConfiguration(conf);
    alice = UserGroupInformation.loginUserFromKeytabAndReturnUGI("alice@" + realm, keytab);
    yarn = UserGroupInformation.loginUserFromKeytabAndReturnUGI("yarn/rm.example.com@" + realm,
        keytab);
    hive = UserGroupInformation.loginUserFromKeytabAndReturnUGI("hive/localhost@" + realm, keytab);
  }

  public static void main(String[] args) throws Exception {
    new KerberizedPair(args[0], args[1], args[2]).run();
    System.exit(0);
  }

  private interface Use<T> {
    T of(KeyProviderCryptoExtension kms) throws Exception;
  }

  private <T> T as(UserGroupInformation user, Use<T> use) throws Exception {
    return user.doAs((PrivilegedExceptionAction<T>) () -> {
      KeyProviderCryptoExtension kms = KeyProviderCryptoExtension
          .createKeyProviderCryptoExtension(KeyProviderFactory.get(new URI(hosts), conf));
      try {
        return use.of(kms);
      } finally {
        kms.close();
      }
    });
  }

  private Token<?> tokenAs(UserGroupInformation user) throws Exception {
    return user.doAs((PrivilegedExceptionAction<Token<?>>) () -> {
      KeyProvider kms = KeyProviderFactory.get(new URI(hosts), conf);
      try {
        Token<?>[] tokens = KeyProviderDelegationTokenExtension
            .createKeyProviderDelegationTokenExtension(kms)
            .addDelegationTokens("yarn", new Credentials());
        Checks.same(1, tokens.length);
        return tokens[0];
      } finally {
        kms.close();
      }
    });
  }

  /** Uses the key four times, so that each node that is up has its turn. */
  private Void use(KeyProviderCryptoExtension kms) throws Exception {
    EncryptedKeyVersion edek = kms.generateEncryptedKey(KEY);
    byte[] dek = kms.decryptEncryptedKey(edek).getMaterial();
    for (int i = 0; i < 3; i++) {
      Checks.isTrue(Arrays.equals(dek, kms.decryptEncryptedKey(edek).getMaterial()),
          "the nodes disagree");
    }
    return null;
  }

  private static UserGroupInformation holder(String name, Token<?> token) {
    UserGroupInformation task = UserGroupInformation.createRemoteUser(name, AuthMethod.TOKEN);
    task.addToken(token);
    return task;
  }

  /** What a host answers who comes with a token, and with nothing else. */
  private void refused(String name, String host, Token<?> token) {
    checks.passes(name, () -> {
      HttpURLConnection c = (HttpURLConnection) new URL(names(host)).openConnection();
      c.setRequestProperty("X-Hadoop-Delegation-Token", token.encodeToUrlString());
      Checks.same(403, c.getResponseCode());
      String text = new String(c.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
      Checks.isTrue(text.contains("can't be found in cache"), text);
    });
  }

  private String names(String host) {
    return "http://" + host + ":" + port + "/kms/v1/keys/names";
  }

  private void run() throws Exception {
    checks.passes("tickets-for-both-hosts", () -> as(alice, this::use));
    checks.step("both were asked with tickets");
    checks.passes("a-cookie-of-one-host-opens-the-other", () -> {
      for (String[] way : new String[][] {{"127.0.0.1", "127.0.0.2"}, {"127.0.0.2", "127.0.0.1"}}) {
        AuthenticatedURL.Token token = new AuthenticatedURL.Token();
        alice.doAs((PrivilegedExceptionAction<HttpURLConnection>) () -> new AuthenticatedURL(
            new KerberosAuthenticator()).openConnection(new URL(names(way[0])), token));
        Checks.isTrue(token.isSet(), "no cookie");
        HttpURLConnection c = (HttpURLConnection) new URL(names(way[1])).openConnection();
        c.setRequestProperty("Cookie", AuthenticatedURL.AUTH_COOKIE + "=" + token);
        Checks.same(200, c.getResponseCode());
      }
    });

    checks.step("the second stops");
    Token<?> token = tokenAs(alice);
    Token<?> forJoe = tokenAs(UserGroupInformation.createProxyUser("joe", hive));
    checks.passes("one-host-is-enough", () -> as(alice, this::use));

    checks.step("the second is back, the first stops");
    UserGroupInformation task = holder("alice", token);
    UserGroupInformation joe = holder("joe", forJoe);
    checks.passes("a-token-is-used-at-the-other-host", () -> as(task, this::use));
    checks.passes("a-token-for-somebody-is-used-at-the-other-host", () -> as(joe, this::use));
    checks.passes("a-token-is-renewed-at-the-other-host", () -> Checks.isTrue(
        yarn.doAs((PrivilegedExceptionAction<Long>) () -> token.renew(conf))
            > System.currentTimeMillis() + 3600_000, "renewed for too short"));
    checks.passes("a-service-acts-for-a-user-at-the-other-host",
        () -> as(UserGroupInformation.createProxyUser("joe", hive), this::use));
    checks.passes("a-token-is-cancelled-at-the-other-host",
        () -> yarn.doAs((PrivilegedExceptionAction<Void>) () -> {
          token.cancel(conf);
          return null;
        }));
    refused("a-cancelled-token-is-refused-there", "127.0.0.2", token);

    checks.step("the first is back, the second stops");
    refused("a-cancelled-token-is-refused-where-it-was-issued", "127.0.0.1", token);
    checks.passes("another-token-still-counts", () -> as(joe, this::use));

    checks.step("the second is back");
    checks.passes("a-token-at-both-hosts", () -> as(joe, this::use));
    checks.step("both were asked with tokens");
    checks.passes("a-token-is-renewed-at-both-hosts",
        () -> yarn.doAs((PrivilegedExceptionAction<Void>) () -> {
          long first = forJoe.renew(conf);
          Checks.isTrue(forJoe.renew(conf) >= first, "renewed for shorter");
          return null;
        }));
    checks.passes("a-cancelled-token-opens-nothing", () -> {
      try {
        as(task, this::use);
      } catch (IOException e) {
        Checks.isTrue(e.toString().contains("can't be found in cache"), e.toString());
        return;
      }
      throw new AssertionError("nothing was thrown");
    });
  }
}
