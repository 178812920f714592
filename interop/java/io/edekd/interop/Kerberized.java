package io.edekd.interop;

import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.security.PrivilegedExceptionAction;
import java.util.Arrays;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
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
import org.apache.hadoop.security.token.delegation.AbstractDelegationTokenIdentifier;
import org.apache.hadoop.security.token.delegation.web.DelegationTokenAuthenticatedURL;

/**
 * The clients of a Kerberized cluster: users with keytabs, jobs that have a delegation token and no
 * ticket, services that act for others. alice creates and uses the key, bob may not decrypt, yarn
 * renews, hive may act for joe.
 */
public final class Kerberized {
  private static final String KEY = "kerberized";

  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final String provider;
  private final String rest;
  private final String renewer;
  private final UserGroupInformation alice;
  private final UserGroupInformation bob;
  private final UserGroupInformation yarn;
  private final UserGroupInformation hive;
  private EncryptedKeyVersion edek;
  private byte[] dek;

  private Kerberized(String provider, String rest, String realm, String keytab) throws Exception {
    this.provider = provider;
    this.rest = rest;
    conf.set("hadoop.security.authentication", "kerberos");
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    conf.setInt("hadoop.security.kms.client.failover.sleep.base.millis", 5);
    conf.setInt("hadoop.security.kms.client.failover.sleep.max.millis", 20);
    conf.set("hadoop.security.key.provider.path", provider);
    UserGroupInformation.setConfiguration(conf);
    alice = login("alice@" + realm, keytab);
    bob = login("bob@" + realm, keytab);
    renewer = "yarn/rm.example.com@" + realm;
    yarn = login(renewer, keytab);
    hive = login("hive/localhost@" + realm, keytab);
  }

  private static UserGroupInformation login(String principal, String keytab) throws IOException {
    return UserGroupInformation.loginUserFromKeytabAndReturnUGI(principal, keytab);
  }

  public static void main(String[] args) throws Exception {
    Kerberized k = new Kerberized(args[0], args[1], args[2], args[3]);
    if (args.length == 4) {
      k.create();
    } // else the key is there
    k.tickets();
    k.tokens();
    k.proxyUsers();
    k.lostAnswers();
    System.exit(0);
  }

  private interface Use<T> {
    T of(KeyProviderCryptoExtension kms) throws Exception;
  }

  /** Uses the KMS as somebody who has not spoken to it before. */
  private <T> T as(UserGroupInformation user, Use<T> use) throws Exception {
    return user.doAs((PrivilegedExceptionAction<T>) () -> {
      KeyProviderCryptoExtension kms = KeyProviderCryptoExtension
          .createKeyProviderCryptoExtension(KeyProviderFactory.get(new URI(provider), conf));
      try {
        return use.of(kms);
      } finally {
        kms.close();
      }
    });
  }

  private byte[] decryptAs(UserGroupInformation user) throws Exception {
    return as(user, kms -> kms.decryptEncryptedKey(edek).getMaterial());
  }

  /** Fails with the text somewhere among what led to the failure. */
  private void refused(String name, String text, Checks.Action action) {
    checks.passes(name, () -> {
      try {
        action.run();
      } catch (Exception e) {
        for (Throwable t = e; t != null; t = t.getCause()) {
          if (String.valueOf(t.getMessage()).contains(text)) {
            return;
          }
        }
        throw new AssertionError("want \"" + text + "\"", e);
      }
      throw new AssertionError("nothing was thrown");
    });
  }

  private void create() {
    checks.passes("a-ticket-creates-a-key", () -> as(alice, kms -> kms.createKey(KEY,
        new Options(conf).setCipher("AES/CTR/NoPadding").setBitLength(128))));
  }

  private void tickets() {
    checks.passes("a-ticket-generates-and-decrypts", () -> {
      edek = as(alice, kms -> kms.generateEncryptedKey(KEY));
      dek = decryptAs(alice);
    });
    checks.passes("a-provider-is-used-again", () -> as(alice, kms -> {
      for (int i = 0; i < 5; i++) {
        Checks.same(true, Arrays.equals(dek, kms.decryptEncryptedKey(edek).getMaterial()));
      }
      return null;
    }));
    refused("a-ticket-does-not-open-what-rules-close",
        "User:bob not allowed to do 'DECRYPT_EEK' on '" + KEY + "'", () -> decryptAs(bob));
    checks.passes("the-cookie-names-the-principal", () -> {
      AuthenticatedURL.Token token = new AuthenticatedURL.Token();
      alice.doAs((PrivilegedExceptionAction<Void>) () -> {
        HttpURLConnection c = new AuthenticatedURL(new KerberosAuthenticator())
            .openConnection(new URL(rest + "/v1/keys/names"), token);
        Checks.same(200, c.getResponseCode());
        return null;
      });
      String cookie = token.toString();
      Checks.isTrue(cookie.startsWith("u=alice&p=alice@") && cookie.contains("&t=kerberos-dt&e="),
          cookie);
    });
    refused("without-ticket-and-token-there-is-no-way-in", "Failed to find any Kerberos tgt",
        () -> decryptAs(UserGroupInformation.createRemoteUser("alice",
            AuthMethod.KERBEROS)));
  }

  private Token<?> tokenAs(UserGroupInformation user, String renewer) throws Exception {
    return user.doAs((PrivilegedExceptionAction<Token<?>>) () -> {
      KeyProvider kms = KeyProviderFactory.get(new URI(provider), conf);
      try {
        Token<?>[] tokens = KeyProviderDelegationTokenExtension
            .createKeyProviderDelegationTokenExtension(kms)
            .addDelegationTokens(renewer, new Credentials());
        Checks.same(1, tokens.length);
        return tokens[0];
      } finally {
        kms.close();
      }
    });
  }

  /** Somebody with a token and without a ticket, like the task of a job. */
  private UserGroupInformation holder(String name, Token<?> token) {
    UserGroupInformation task =
        UserGroupInformation.createRemoteUser(name, AuthMethod.TOKEN);
    task.addToken(token);
    return task;
  }

  private static String describe(Token<?> token) throws IOException {
    AbstractDelegationTokenIdentifier id =
        (AbstractDelegationTokenIdentifier) token.decodeIdentifier();
    return token.getKind() + " owner=" + id.getOwner() + " renewer=" + id.getRenewer()
        + " realUser=" + id.getRealUser();
  }

  private long renewAs(UserGroupInformation user, Token<?> token) throws Exception {
    return user.doAs((PrivilegedExceptionAction<Long>) () -> token.renew(conf));
  }

  private void cancelAs(UserGroupInformation user, Token<?> token) throws Exception {
    user.doAs((PrivilegedExceptionAction<Void>) () -> {
      token.cancel(conf);
      return null;
    });
  }

  private void tokens() throws Exception {
    Token<?> token = tokenAs(alice, renewer);
    checks.equal("a-token-says-whose-it-is", "kms-dt owner=alice renewer=yarn realUser=",
        () -> describe(token));
    UserGroupInformation task = holder("alice", token);
    checks.passes("a-token-decrypts-without-a-ticket", () -> {
      Checks.same(true, Arrays.equals(dek, decryptAs(task)));
      Checks.same(true, Arrays.equals(dek, decryptAs(task)));
    });
    checks.passes("a-token-generates-without-a-ticket",
        () -> as(task, kms -> kms.generateEncryptedKey(KEY)));
    refused("only-the-renewer-renews", "bob tries to renew a token", () -> renewAs(bob, token));
    checks.passes("the-renewer-renews", () -> Checks.isTrue(
        renewAs(yarn, token) > System.currentTimeMillis() + 3600_000, "renewed for too short"));
    checks.passes("the-owner-cancels", () -> cancelAs(alice, token));
    refused("a-cancelled-token-opens-nothing", "can't be found in cache", () -> decryptAs(task));
    refused("a-cancelled-token-is-not-renewed", "Renewal request for unknown token",
        () -> renewAs(yarn, token));
    Token<?> second = tokenAs(alice, renewer);
    checks.passes("the-renewer-cancels", () -> cancelAs(yarn, second));
    Token<?> third = tokenAs(alice, renewer);
    checks.passes("whoever-holds-a-token-cancels-it", () -> cancelAs(bob, third));
    refused("a-token-cancelled-by-the-renewer-opens-nothing", "can't be found in cache",
        () -> decryptAs(holder("alice", second)));
  }

  private void proxyUsers() {
    UserGroupInformation joe = UserGroupInformation.createProxyUser("joe", hive);
    checks.passes("a-service-acts-for-a-user",
        () -> Checks.same(true, Arrays.equals(dek, decryptAs(joe))));
    refused("a-service-does-not-act-for-everybody", "Forbidden",
        () -> decryptAs(UserGroupInformation.createProxyUser("mallory", hive)));
    refused("a-user-acts-for-nobody", "Forbidden",
        () -> decryptAs(UserGroupInformation.createProxyUser("joe", bob)));
    checks.passes("a-service-gets-a-token-for-a-user", () -> {
      Token<?> token = tokenAs(joe, renewer);
      Checks.same("kms-dt owner=joe renewer=yarn realUser=hive", describe(token));
      Checks.same(true, Arrays.equals(dek, decryptAs(holder("joe", token))));
      Checks.isTrue(renewAs(yarn, token) > 0, "not renewed");
    });
    checks.equal("a-do-as-in-the-query", 200, () -> doAsInTheQuery("joe"));
    refused("a-do-as-in-the-query-of-somebody-else", "Forbidden", () -> doAsInTheQuery("mallory"));
  }

  /** As WebHDFS clients write it: into the URL, not as an argument of the client library. */
  private int doAsInTheQuery(String user) throws Exception {
    return hive.doAs((PrivilegedExceptionAction<Integer>) () -> new DelegationTokenAuthenticatedURL()
        .openConnection(new URL(rest + "/v1/keys/names?doAs=" + user),
            new DelegationTokenAuthenticatedURL.Token())
        .getResponseCode());
  }

  /** The JDK sends the same request with the same token again when the connection breaks. */
  private void lostAnswers() throws Exception {
    checks.step("lose the answer to a handshake");
    checks.passes("a-lost-handshake-is-recovered",
        () -> Checks.same(true, Arrays.equals(dek, decryptAs(alice))));
    checks.step("reset the answer to a handshake");
    checks.passes("a-reset-handshake-is-recovered",
        () -> Checks.same(true, Arrays.equals(dek, decryptAs(alice))));
  }
}
