package io.edekd.interop;

import java.io.IOException;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.PrivilegedExceptionAction;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProvider.KeyVersion;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.EncryptedKeyVersion;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.authorize.AuthorizationException;

/**
 * An engine that opens many files at once, in front of an edekd and of a Java KMS. alice may
 * decrypt, bob may not.
 */
public final class DecryptBatches {
  private static final String KEY = "a/batch";

  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final UserGroupInformation alice = UserGroupInformation.createRemoteUser("alice");
  private final UserGroupInformation bob = UserGroupInformation.createRemoteUser("bob");

  public static void main(String[] args) throws Exception {
    DecryptBatches d = new DecryptBatches();
    d.conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 500);
    d.conf.setInt("hadoop.security.kms.client.failover.max.retries", 0);
    UserGroupInformation.setConfiguration(d.conf);
    d.edekd(args[0]);
    d.java(args[1]);
    System.exit(0);
  }

  private interface Use {
    void of(KeyProviderCryptoExtension kms, BatchDecrypt engine) throws Exception;
  }

  private void as(UserGroupInformation user, String addr, Use use) throws Exception {
    user.doAs((PrivilegedExceptionAction<Void>) () -> {
      KeyProvider client = KeyProviderFactory.get(new URI("kms://http@" + addr + "/kms"), conf);
      KeyProviderCryptoExtension kms =
          KeyProviderCryptoExtension.createKeyProviderCryptoExtension(client);
      use.of(kms, new BatchDecrypt("http://" + addr + "/kms/v1", kms));
      kms.close();
      return null;
    });
  }

  /** EDEKs of the first and of the second version of the key. */
  private static List<EncryptedKeyVersion> edeks(KeyProviderCryptoExtension kms, int n)
      throws Exception {
    kms.createKey(KEY, new Options(new Configuration()).setCipher("AES/CTR/NoPadding").setBitLength(256));
    List<EncryptedKeyVersion> edeks = new ArrayList<>();
    for (int i = 0; i < n; i++) {
      if (i == n / 2) {
        kms.rollNewVersion(KEY);
        kms.drain(KEY);
      }
      edeks.add(kms.generateEncryptedKey(KEY));
    }
    Checks.same(KEY + "@0", edeks.get(0).getEncryptionKeyVersionName());
    Checks.same(KEY + "@1", edeks.get(n - 1).getEncryptionKeyVersionName());
    return edeks;
  }

  private static void compare(KeyProviderCryptoExtension kms, List<EncryptedKeyVersion> edeks,
      List<KeyVersion> deks) throws Exception {
    Checks.same(edeks.size(), deks.size());
    for (int i = 0; i < deks.size(); i++) {
      KeyVersion single = kms.decryptEncryptedKey(edeks.get(i));
      Checks.same(single.getMaterial(), deks.get(i).getMaterial());
      Checks.same(single.getVersionName(), deks.get(i).getVersionName());
      Checks.same(single.getName(), deks.get(i).getName());
    }
  }

  private void edekd(String addr) throws Exception {
    List<EncryptedKeyVersion> edeks = new ArrayList<>();
    checks.passes("a-batch-is-what-single-decrypts-are", () -> as(alice, addr, (kms, engine) -> {
      edeks.addAll(edeks(kms, 1500));
      List<EncryptedKeyVersion> some = new ArrayList<>(edeks.subList(700, 800));
      some.addAll(edeks.subList(0, 10));
      compare(kms, some, engine.decrypt(some));
      Checks.same(1, engine.batches());
    }));
    checks.passes("many-go-in-several-batches", () -> as(alice, addr, (kms, engine) -> {
      Checks.same(edeks.size(), engine.decrypt(edeks).size());
      Checks.same(2, engine.batches());
    }));
    checks.passes("a-user-without-the-right-hears-it-from-a-single-decrypt", () -> as(bob, addr, (kms, engine) -> {
      try {
        engine.decrypt(edeks);
      } catch (AuthorizationException e) {
        Checks.isTrue(e.getMessage().contains("User:bob not allowed to do 'DECRYPT_EEK' on"), e.getMessage());
        Checks.same(1, engine.batches());
        return;
      }
      throw new AssertionError("bob decrypts");
    }));
    checks.passes("an-entry-of-another-key-fails-its-batch", () -> as(alice, addr, (kms, engine) -> {
      kms.createKey("other", new Options(conf).setCipher("AES/CTR/NoPadding").setBitLength(128));
      List<EncryptedKeyVersion> mixed = new ArrayList<>(edeks.subList(0, 2));
      mixed.add(kms.generateEncryptedKey("other"));
      Checks.same(3, engine.decrypt(mixed).size()); // one by one
      Checks.same(1, engine.batches());
    }));
  }

  private void java(String addr) throws Exception {
    checks.passes("a-java-kms-is-never-sent-a-batch", () -> as(alice, addr, (kms, engine) -> {
      List<EncryptedKeyVersion> edeks = edeks(kms, 20);
      compare(kms, edeks, engine.decrypt(edeks));
      Checks.isTrue(!engine.ask(), "a Java KMS announces batches");
      Checks.same(0, engine.batches());
    }));
    // It may still get one: the server behind an address may be replaced between two requests.
    checks.passes("a-java-kms-that-gets-a-batch-changes-nothing", () -> as(alice, addr, (kms, engine) -> {
      int before = kms.getKeys().size();
      Checks.same(500, post(addr, "/key/a%2Fbatch/_decryptbatch", "[{}]"));
      Checks.same(before, kms.getKeys().size());
      Checks.same(2, kms.getKeyVersions(KEY).size());
    }));
  }

  private static int post(String addr, String path, String body) throws IOException {
    HttpURLConnection c = (HttpURLConnection)
        new URL("http://" + addr + "/kms/v1" + path + "?user.name=alice").openConnection();
    c.setRequestMethod("POST");
    c.setRequestProperty("Content-Type", "application/json");
    c.setDoOutput(true);
    try (OutputStream out = c.getOutputStream()) {
      out.write(body.getBytes(StandardCharsets.UTF_8));
    }
    return c.getResponseCode();
  }
}
