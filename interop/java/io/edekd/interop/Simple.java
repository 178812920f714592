package io.edekd.interop;

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
import org.apache.hadoop.security.authentication.client.PseudoAuthenticator;
import org.apache.hadoop.security.token.Token;
import org.apache.hadoop.security.token.delegation.AbstractDelegationTokenIdentifier;
import org.apache.hadoop.security.token.delegation.web.DelegationTokenAuthenticatedURL;
import org.apache.hadoop.security.token.delegation.web.PseudoDelegationTokenAuthenticator;

/**
 * Clients without Kerberos, who are who they say: delegation tokens and users who act for others
 * exist for them as well. alice and joe may decrypt, bob may not, yarn renews, hive may act for joe.
 */
public final class Simple {
  private static final String KEY = "simple";

  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final String provider;
  private final String rest;
  private final UserGroupInformation alice = user("alice");
  private final UserGroupInformation bob = user("bob");
  private final UserGroupInformation yarn = user("yarn");
  private final UserGroupInformation hive = user("hive");
  private EncryptedKeyVersion edek;
  private byte[] dek;

  private Simple(String addr) {
    provider = "kms://http@" + addr + "/kms";
    rest = "http://" + addr + "/kms";
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    conf.setInt("hadoop.security.kms.client.failover.sleep.base.millis", 5);
    conf.setInt("hadoop.security.kms.client.failover.sleep.max.millis", 20);
    conf.set("hadoop.security.key.provider.path", provider);
    UserGroupInformation.setConfiguration(conf);
  }

  private static UserGroupInformation user(String name) {
    return UserGroupInformation.createRemoteUser(name);
  }

  public static void main(String[] args) throws Exception {
    Simple s = new Simple(args[0]);
    s.users();
    s.tokens();
    s.proxyUsers();
    System.exit(0);
  }

  private interface Use<T> {
    T of(KeyProviderCryptoExtension kms) throws Exception;
  }

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

  private Token<?> tokenAs(UserGroupInformation user) throws Exception {
    return user.doAs((PrivilegedExceptionAction<Token<?>>) () -> {
      KeyProvider kms = KeyProviderFactory.get(new URI(provider), conf);
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

  /** Somebody who says nothing of himself but has a token. */
  private UserGroupInformation holder(Token<?> token) {
    UserGroupInformation task = UserGroupInformation.createRemoteUser("task", AuthMethod.TOKEN);
    task.addToken(token);
    return task;
  }

  private static String describe(Token<?> token) throws Exception {
    AbstractDelegationTokenIdentifier id =
        (AbstractDelegationTokenIdentifier) token.decodeIdentifier();
    return token.getKind() + " owner=" + id.getOwner() + " renewer=" + id.getRenewer()
        + " realUser=" + id.getRealUser();
  }

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

  private void users() {
    checks.passes("a-user-creates-generates-and-decrypts", () -> {
      as(alice, kms -> kms.createKey(KEY,
          new Options(conf).setCipher("AES/CTR/NoPadding").setBitLength(128)));
      edek = as(alice, kms -> kms.generateEncryptedKey(KEY));
      dek = decryptAs(alice);
    });
    refused("rules-hold", "User:bob not allowed to do 'DECRYPT_EEK' on '" + KEY + "'",
        () -> decryptAs(bob));
    checks.passes("the-cookie-names-the-user", () -> {
      AuthenticatedURL.Token token = new AuthenticatedURL.Token();
      alice.doAs((PrivilegedExceptionAction<Integer>) () -> new AuthenticatedURL(
          new PseudoAuthenticator() {
            @Override
            protected String getUserName() {
              return "alice";
            }
          }).openConnection(new URL(rest + "/v1/keys/names"), token).getResponseCode());
      Checks.isTrue(token.toString().startsWith("u=alice&p=alice&t=simple-dt&e="),
          token.toString());
    });
  }

  private void tokens() throws Exception {
    Token<?> token = tokenAs(alice);
    checks.equal("a-token-says-whose-it-is", "kms-dt owner=alice renewer=yarn realUser=",
        () -> describe(token));
    checks.passes("a-token-decrypts",
        () -> Checks.isTrue(Arrays.equals(dek, decryptAs(holder(token))), "another key"));
    checks.passes("a-token-generates",
        () -> as(holder(token), kms -> kms.generateEncryptedKey(KEY)));
    Token<?> ofBob = tokenAs(bob);
    refused("a-token-opens-what-its-owner-may-open", "User:bob not allowed to do 'DECRYPT_EEK'",
        () -> decryptAs(holder(ofBob)));
    refused("only-the-renewer-renews", "bob tries to renew a token", () -> renewAs(bob, token));
    checks.passes("the-renewer-renews", () -> Checks.isTrue(
        renewAs(yarn, token) > System.currentTimeMillis() + 3600_000, "renewed for too short"));
    checks.passes("the-owner-cancels", () -> cancelAs(alice, token));
    refused("a-cancelled-token-opens-nothing", "can't be found in cache",
        () -> decryptAs(holder(token)));
    refused("a-cancelled-token-is-not-renewed", "Renewal request for unknown token",
        () -> renewAs(yarn, token));
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

  private void proxyUsers() {
    UserGroupInformation joe = UserGroupInformation.createProxyUser("joe", hive);
    checks.passes("a-service-acts-for-a-user",
        () -> Checks.isTrue(Arrays.equals(dek, decryptAs(joe)), "another key"));
    refused("a-service-does-not-act-for-everybody", "Forbidden",
        () -> decryptAs(UserGroupInformation.createProxyUser("mallory", hive)));
    refused("a-user-acts-for-nobody", "Forbidden",
        () -> decryptAs(UserGroupInformation.createProxyUser("joe", bob)));
    checks.passes("a-service-gets-a-token-for-a-user", () -> {
      Token<?> token = tokenAs(joe);
      Checks.same("kms-dt owner=joe renewer=yarn realUser=hive", describe(token));
      Checks.isTrue(Arrays.equals(dek, decryptAs(holder(token))), "another key");
    });
    checks.equal("a-do-as-in-the-query", 200,
        () -> hive.doAs((PrivilegedExceptionAction<Integer>) () -> new DelegationTokenAuthenticatedURL(
            new PseudoDelegationTokenAuthenticator())
            .openConnection(new URL(rest + "/v1/keys/names?doAs=joe"),
                new DelegationTokenAuthenticatedURL.Token())
            .getResponseCode()));
  }
}
