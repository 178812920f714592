package io.edekd.interop;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.PrivilegedExceptionAction;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import javax.net.ssl.SSLSocket;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.EncryptedKeyVersion;
import org.apache.hadoop.crypto.key.KeyProviderDelegationTokenExtension;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.crypto.key.KeyShell;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.SaslRpcServer.AuthMethod;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.ssl.SSLFactory;
import org.apache.hadoop.security.token.Token;
import org.apache.hadoop.util.ToolRunner;

/**
 * Clients whose ssl-client.xml names the stores. Arguments are the provider, the same as a URL, the
 * realm or "simple", the keytab of alice and yarn, and whether the server asks for certificates.
 * stranger-client.xml names a truststore without the server's authority.
 */
public final class OverTLS {
  private static final String KEY = "over-tls";

  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final String provider;
  private final URL rest;
  private final boolean kerberos;
  private final boolean certificate;
  private final UserGroupInformation alice;
  private final UserGroupInformation yarn;
  private EncryptedKeyVersion edek;
  private byte[] dek;

  private OverTLS(String provider, String rest, String realm, String keytab, boolean certificate)
      throws Exception {
    this.provider = provider;
    this.rest = new URL(rest);
    this.certificate = certificate;
    kerberos = !realm.equals("simple");
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    conf.setBoolean("hadoop.ssl.require.client.cert", certificate);
    if (kerberos) {
      conf.set("hadoop.security.authentication", "kerberos");
    }
    UserGroupInformation.setConfiguration(conf);
    alice = kerberos ? UserGroupInformation.loginUserFromKeytabAndReturnUGI("alice@" + realm, keytab)
        : UserGroupInformation.createRemoteUser("alice");
    yarn = kerberos
        ? UserGroupInformation.loginUserFromKeytabAndReturnUGI("yarn/rm.example.com@" + realm, keytab)
        : UserGroupInformation.createRemoteUser("yarn");
  }

  public static void main(String[] args) throws Exception {
    OverTLS o = new OverTLS(args[0], args[1], args[2], args[3], Boolean.parseBoolean(args[4]));
    o.keys();
    o.cookies();
    o.tokens();
    o.shell();
    o.strangers();
    o.renewal();
    System.exit(0);
  }

  private interface Use<T> {
    T of(KeyProviderCryptoExtension kms) throws Exception;
  }

  /** Uses the KMS as somebody who has not spoken to it before. */
  private <T> T as(UserGroupInformation user, Configuration conf, Use<T> use) throws Exception {
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

  private <T> T as(UserGroupInformation user, Use<T> use) throws Exception {
    return as(user, conf, use);
  }

  private void decryptAs(UserGroupInformation user) throws Exception {
    byte[] got = as(user, kms -> kms.decryptEncryptedKey(edek).getMaterial());
    Checks.same(true, Arrays.equals(dek, got));
  }

  private void keys() {
    checks.passes("creates-a-key", () -> as(alice, kms -> kms.createKey(KEY,
        new Options(conf).setCipher("AES/CTR/NoPadding").setBitLength(256))));
    checks.passes("generates-and-decrypts", () -> {
      edek = as(alice, kms -> kms.generateEncryptedKey(KEY));
      dek = as(alice, kms -> kms.decryptEncryptedKey(edek).getMaterial());
      decryptAs(alice);
    });
    checks.passes("reencrypts-a-batch-of-many-records", () -> as(alice, kms -> {
      String version = kms.rollNewVersion(KEY).getVersionName();
      List<EncryptedKeyVersion> batch = new ArrayList<>();
      for (int i = 0; i < 2000; i++) { // some 200 bytes each
        batch.add(edek);
      }
      kms.reencryptEncryptedKeys(batch);
      for (EncryptedKeyVersion e : batch) {
        Checks.same(version, e.getEncryptionKeyVersionName());
      }
      byte[] last = kms.decryptEncryptedKey(batch.get(batch.size() - 1)).getMaterial();
      Checks.same(true, Arrays.equals(dek, last));
      return null;
    }));
  }

  private void cookies() {
    checks.passes("cookies-are-for-tls-only", () -> {
      SSLFactory tls = new SSLFactory(SSLFactory.Mode.CLIENT, conf);
      tls.init();
      URL names = new URL(rest, "kms/v1/keys/names" + (kerberos ? "" : "?user.name=alice"));
      // The JDK answers Negotiate by itself, and shows what Hadoop's cookie handler would keep.
      String cookie = alice.doAs((PrivilegedExceptionAction<String>) () -> {
        HttpURLConnection c = tls.configure((HttpURLConnection) names.openConnection());
        Checks.same(200, c.getResponseCode());
        return c.getHeaderField("Set-Cookie");
      });
      tls.destroy();
      Checks.isTrue(String.valueOf(cookie).matches("hadoop[.]auth=\"u=alice&.*; Secure; HttpOnly"), cookie);
    });
  }

  private void tokens() throws Exception {
    Token<?> token = alice.doAs((PrivilegedExceptionAction<Token<?>>) () -> {
      KeyProvider kms = KeyProviderFactory.get(new URI(provider), conf);
      try {
        return KeyProviderDelegationTokenExtension.createKeyProviderDelegationTokenExtension(kms)
            .addDelegationTokens(yarn.getUserName(), new Credentials())[0];
      } finally {
        kms.close();
      }
    });
    checks.equal("a-token-names-the-address-of-tls", provider,
        () -> token.getService().toString());
    // Nobody by this name may decrypt: the token is whose it is.
    UserGroupInformation task =
        UserGroupInformation.createRemoteUser("container", AuthMethod.TOKEN);
    task.addToken(token);
    checks.passes("a-token-decrypts", () -> decryptAs(task));
    checks.passes("the-renewer-renews", () -> Checks.isTrue(
        yarn.doAs((PrivilegedExceptionAction<Long>) () -> token.renew(conf))
            > System.currentTimeMillis() + 3600_000, "renewed for too short"));
    checks.passes("the-owner-cancels", () -> alice.doAs((PrivilegedExceptionAction<Void>) () -> {
      token.cancel(conf);
      return null;
    }));
    checks.passes("a-cancelled-token-opens-nothing", () -> {
      String why = refusal(() -> decryptAs(task));
      Checks.isTrue(why.contains("can't be found in cache"), why);
    });
  }

  private void shell() {
    checks.passes("the-key-shell", () -> {
      shell("create shell -size 128", "shell has been successfully created");
      shell("roll shell", "shell has been successfully rolled");
      shell("list", "\nshell\n");
    });
  }

  private void shell(String line, String said) throws Exception {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    KeyShell shell = new KeyShell();
    shell.setOut(new PrintStream(out, true));
    int status = alice.doAs((PrivilegedExceptionAction<Integer>) () -> ToolRunner.run(
        new Configuration(conf), shell, (line + " -provider " + provider).split(" ")));
    Checks.isTrue(status == 0 && out.toString().contains(said), status + ": " + out);
  }

  private void strangers() {
    checks.passes("a-server-of-an-unknown-authority-is-not-used", () -> {
      Configuration stranger = new Configuration(conf);
      stranger.set("hadoop.ssl.client.conf", "stranger-client.xml");
      String why = refusal(() -> as(alice, stranger, kms -> kms.getKeys()));
      Checks.isTrue(why.contains("PKIX path building failed") // Hadoop 3.4
          || why.contains("SSLHandshakeException: No trusted certificate found"), why);
    });
    if (certificate) {
      // By TLS 1.3 a client begins to send before it is refused. Where it is not done when the server
      // ends the connection, it sees that end and not the reason.
      checks.passes("without-a-certificate-there-is-no-way-in", () -> {
        Configuration without = new Configuration(conf);
        without.setBoolean("hadoop.ssl.require.client.cert", false);
        String why = "";
        for (int i = 0; i < 20 && !why.contains("SSLHandshakeException: Received fatal alert: "); i++) {
          why = refusal(() -> as(alice, without, kms -> kms.getKeys()));
        }
        Checks.isTrue(why.contains("certificate"), why);
      });
    }
  }

  /** The certificate is exchanged while a provider is in use and a connection is open. */
  private void renewal() throws Exception {
    try (Kept old = new Kept()) {
      String before = old.subject();
      int status = old.get();
      as(alice, kms -> {
        checks.passes("a-provider-is-in-use", () -> kms.getMetadata(KEY));
        checks.step("renew the certificate");
        checks.passes("a-provider-goes-on", () -> kms.getMetadata(KEY));
        return null;
      });
      checks.equal("an-open-connection-goes-on", status, old::get);
      checks.passes("new-connections-see-the-new-certificate", () -> {
        try (Kept young = new Kept()) {
          Checks.same(status, young.get());
          Checks.same("CN=first -> CN=second", before + " -> " + young.subject());
        }
      });
    }
    checks.passes("the-key-is-served-as-before", () -> decryptAs(alice));
  }

  /** One connection that is never replaced unseen, as those of the JDK's HTTP client are. */
  private final class Kept implements AutoCloseable {
    private final SSLFactory tls = new SSLFactory(SSLFactory.Mode.CLIENT, conf);
    private final SSLSocket socket;

    Kept() throws Exception {
      tls.init();
      socket = (SSLSocket) tls.createSSLSocketFactory().createSocket(rest.getHost(), rest.getPort());
    }

    String subject() throws IOException {
      X509Certificate own = (X509Certificate) socket.getSession().getPeerCertificates()[0];
      return own.getSubjectX500Principal().getName();
    }

    /** Asks as nobody and returns the status. */
    int get() throws IOException {
      socket.getOutputStream().write(("GET /kms/v1/keys/names HTTP/1.1\r\nHost: "
          + rest.getAuthority() + "\r\n\r\n").getBytes(StandardCharsets.US_ASCII));
      InputStream in = socket.getInputStream();
      StringBuilder head = new StringBuilder();
      while (head.indexOf("\r\n\r\n") < 0) {
        int b = in.read();
        Checks.isTrue(b >= 0, "the connection ended after: " + head);
        head.append((char) b);
      }
      int length = -1;
      for (String line : head.toString().split("\r\n")) {
        if (line.toLowerCase().startsWith("content-length:")) {
          length = Integer.parseInt(line.substring(15).trim());
        }
      }
      Checks.isTrue(length >= 0, "no length: " + head);
      Checks.same(length, in.readNBytes(length).length);
      return Integer.parseInt(head.substring(9, 12));
    }

    @Override
    public void close() throws IOException {
      socket.close();
      tls.destroy();
    }
  }

  /** What led to the failure, which there must be. */
  private static String refusal(Checks.Action action) {
    try {
      action.run();
    } catch (Exception e) {
      StringBuilder all = new StringBuilder();
      for (Throwable t = e; t != null; t = t.getCause()) {
        all.append(t).append('\n');
      }
      return all.toString();
    }
    throw new AssertionError("nothing was thrown");
  }
}
