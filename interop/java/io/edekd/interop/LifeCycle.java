package io.edekd.interop;

import java.io.IOException;
import java.net.URI;
import java.security.InvalidParameterException;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.crypto.Cipher;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProvider.KeyVersion;
import org.apache.hadoop.crypto.key.KeyProvider.Metadata;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.EncryptedKeyVersion;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.crypto.key.kms.KMSClientProvider;
import org.apache.hadoop.crypto.key.kms.LoadBalancingKMSClientProvider;

/** Every call of Hadoop's KMS client, through the load-balancing provider and one server. */
public final class LifeCycle {
  private static final String[] AWKWARD_NAMES = {
    "a/b", "/lead/trail/", "at@sign", "schl\u00fcssel-\u9375-\ud83d\udd11", "100%25", "+plus",
    "q?x=y&key=z", "#hash;semi:colon", "quote\"'`<>|\\^[]{}", "_metadata", "..", "tab\tend",
  };

  private static final Map<String, String> RICH_ATTRIBUTES =
      Map.of("owner", "alice", "key.acl.name", "shared", "empty", "");

  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final KeyProviderCryptoExtension kms;
  private final boolean listsAtSigns;

  /**
   * The second argument is whether names with an at sign are listed. Hadoop's keystore file tells
   * keys from their versions by that sign alone, so there they never are. The third is the client:
   * "single", or else the one Hadoop makes of a URI, which balances load. Further ones are awkward
   * names to leave out.
   */
  private LifeCycle(String uri, String listsAtSigns, String client) throws Exception {
    this.listsAtSigns = Boolean.parseBoolean(listsAtSigns);
    // A client-side queue of its own would hide a roll behind EDEKs fetched before it.
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    KeyProvider provider;
    if (client.equals("single")) {
      provider = new KMSClientProvider(new URI(uri), conf);
      checks.equal("provider", KMSClientProvider.class, provider::getClass);
    } else {
      provider = KeyProviderFactory.get(new URI(uri), conf);
      checks.equal("provider", LoadBalancingKMSClientProvider.class, provider::getClass);
    }
    kms = KeyProviderCryptoExtension.createKeyProviderCryptoExtension(provider);
  }

  public static void main(String[] args) throws Exception {
    LifeCycle l = new LifeCycle(args[0], args[1], args[2]);
    l.create();
    l.look();
    l.roll();
    l.edeks();
    l.reencrypt();
    l.delete();
    l.names(Set.of(Arrays.copyOfRange(args, 3, args.length)));
    l.kms.close();
    System.exit(0);
  }

  private Options options(int bits) {
    return new Options(conf).setCipher("AES/CTR/NoPadding").setBitLength(bits);
  }

  private static byte[] random(int length) {
    byte[] b = new byte[length];
    new SecureRandom().nextBytes(b);
    return b;
  }

  private void create() {
    checks.passes("create", () -> {
      KeyVersion v = kms.createKey("plain", new Options(conf));
      Checks.same("plain", v.getName());
      Checks.same("plain@0", v.getVersionName());
      Checks.same(16, v.getMaterial().length);
    });
    for (int bits : new int[] {128, 192, 256}) {
      checks.equal("create-" + bits, bits / 8, () -> {
        String name = "aes" + bits;
        return kms.createKey(name, options(bits)).getMaterial().length;
      });
    }
    checks.passes("create-with-attributes", () -> kms.createKey("rich", options(256)
        .setDescription("tells \"what\" it is for: \u00e9")
        .setAttributes(new HashMap<>(RICH_ATTRIBUTES))));
    checks.passes("create-with-material", () -> {
      byte[] material = random(32);
      KeyVersion v = kms.createKey("given", material, options(256));
      Checks.same(material, v.getMaterial());
      Checks.same(material, kms.getCurrentKey("given").getMaterial());
    });
    checks.fails("create-existing", IOException.class, "Key plain already exists in ",
        () -> kms.createKey("plain", new Options(conf)));
    checks.fails("create-existing-with-material", IOException.class, "Key plain already exists in ",
        () -> kms.createKey("plain", random(16), options(128)));
    checks.fails("create-material-of-wrong-length", IOException.class,
        "Wrong key length. Required 256, but got 128",
        () -> kms.createKey("short", random(16), options(256)));
    checks.fails("create-length-of-no-aes-key", InvalidParameterException.class,
        "Wrong keysize: must be equal to 128, 192 or 256",
        () -> kms.createKey("odd", options(100)));
    checks.equal("refused-keys-do-not-exist", Arrays.asList(null, null),
        () -> Arrays.asList(kms.getMetadata("short"), kms.getMetadata("odd")));
  }

  private void look() {
    checks.passes("metadata", () -> {
      Metadata m = kms.getMetadata("rich");
      Checks.same("AES/CTR/NoPadding", m.getCipher());
      Checks.same(256, m.getBitLength());
      Checks.same("tells \"what\" it is for: \u00e9", m.getDescription());
      Checks.same(RICH_ATTRIBUTES, m.getAttributes());
      Checks.same(1, m.getVersions());
      long age = System.currentTimeMillis() - m.getCreated().getTime();
      Checks.isTrue(age >= 0 && age < 600_000, "created " + age + " ms ago");
    });
    checks.passes("metadata-of-a-plain-key", () -> {
      Metadata m = kms.getMetadata("plain");
      Checks.same(128, m.getBitLength());
      Checks.same(null, m.getDescription());
      Checks.same(Map.of("key.acl.name", "plain"), m.getAttributes());
    });
    checks.equal("metadata-missing", null, () -> kms.getMetadata("nobody"));
    checks.passes("keys-metadata", () -> {
      Metadata[] all = kms.getKeysMetadata("rich", "nobody", "aes192", "rich");
      Checks.same(4, all.length);
      Checks.same(256, all[0].getBitLength());
      Checks.same(null, all[1]);
      Checks.same(192, all[2].getBitLength());
      Checks.same(all[0].toString(), all[3].toString());
    });
    checks.equal("keys-metadata-of-none", 0, () -> kms.getKeysMetadata().length);
    checks.equal("keys", List.of("aes128", "aes192", "aes256", "given", "plain", "rich"), () -> {
      List<String> names = new ArrayList<>(kms.getKeys());
      Collections.sort(names);
      return names;
    });
    checks.equal("current-key", "rich@0", () -> kms.getCurrentKey("rich").getVersionName());
    checks.equal("current-key-missing", null, () -> kms.getCurrentKey("nobody"));
    checks.passes("key-version", () -> {
      KeyVersion v = kms.getKeyVersion("rich@0");
      Checks.same("rich", v.getName());
      Checks.same("rich@0", v.getVersionName());
      Checks.same(kms.getCurrentKey("rich").getMaterial(), v.getMaterial());
    });
    checks.equal("key-version-missing", Arrays.asList(null, null),
        () -> Arrays.asList(kms.getKeyVersion("rich@7"), kms.getKeyVersion("nobody@0")));
    checks.equal("key-versions", 1, () -> kms.getKeyVersions("rich").size());
    checks.equal("key-versions-missing", null, () -> kms.getKeyVersions("nobody"));
  }

  private void roll() {
    checks.passes("roll", () -> {
      KeyVersion v = kms.rollNewVersion("rich");
      Checks.same("rich@1", v.getVersionName());
      Checks.same("rich", v.getName());
      Checks.same(32, v.getMaterial().length);
      Checks.isTrue(!Arrays.equals(v.getMaterial(), kms.getKeyVersion("rich@0").getMaterial()),
          "both versions have the same material");
    });
    checks.passes("roll-with-material", () -> {
      byte[] material = random(32);
      Checks.same("rich@2", kms.rollNewVersion("rich", material).getVersionName());
      Checks.same(material, kms.getCurrentKey("rich").getMaterial());
    });
    checks.fails("roll-missing", IOException.class, "Can't find Metadata for key nobody",
        () -> kms.rollNewVersion("nobody"));
    checks.fails("roll-missing-with-material", IOException.class, "Key nobody not found",
        () -> kms.rollNewVersion("nobody", random(16)));
    checks.fails("roll-material-of-wrong-length", IOException.class,
        "Wrong key length. Required 256, but got 128",
        () -> kms.rollNewVersion("rich", random(16)));
    checks.equal("versions-after-roll", List.of("rich@0", "rich@1", "rich@2"), () -> {
      List<String> names = new ArrayList<>();
      for (KeyVersion v : kms.getKeyVersions("rich")) {
        names.add(v.getVersionName());
      }
      return names;
    });
    checks.equal("metadata-after-roll", 3, () -> kms.getMetadata("rich").getVersions());
    checks.equal("current-key-after-roll", "rich@2",
        () -> kms.getCurrentKey("rich").getVersionName());
    checks.passes("invalidate-cache", () -> kms.invalidateCache("rich"));
    checks.passes("invalidate-cache-missing", () -> kms.invalidateCache("nobody"));
  }

  /** Unwraps an EDEK without the server: the wrap was made with the stored IV inverted. */
  private byte[] unwrapHere(EncryptedKeyVersion e) throws Exception {
    byte[] iv = e.getEncryptedKeyIv().clone();
    for (int i = 0; i < iv.length; i++) {
      iv[i] ^= 0xff;
    }
    byte[] zoneKey = kms.getKeyVersion(e.getEncryptionKeyVersionName()).getMaterial();
    Cipher cipher = Cipher.getInstance("AES/CTR/NoPadding");
    cipher.init(Cipher.DECRYPT_MODE, new SecretKeySpec(zoneKey, "AES"), new IvParameterSpec(iv));
    return cipher.doFinal(e.getEncryptedKeyVersion().getMaterial());
  }

  private static EncryptedKeyVersion edek(String key, String version, byte[] iv, byte[] material) {
    return EncryptedKeyVersion.createForDecryption(key, version, iv, material);
  }

  private void edeks() {
    for (int bits : new int[] {128, 192, 256}) {
      checks.passes("generate-and-decrypt-" + bits, () -> {
        EncryptedKeyVersion e = kms.generateEncryptedKey("aes" + bits);
        Checks.same("aes" + bits, e.getEncryptionKeyName());
        Checks.same("aes" + bits + "@0", e.getEncryptionKeyVersionName());
        Checks.same(16, e.getEncryptedKeyIv().length);
        Checks.same("EEK", e.getEncryptedKeyVersion().getVersionName());
        Checks.same(bits / 8, e.getEncryptedKeyVersion().getMaterial().length);
        KeyVersion dek = kms.decryptEncryptedKey(e);
        Checks.same("EK", dek.getVersionName());
        Checks.same("aes" + bits, dek.getName());
        Checks.same(unwrapHere(e), dek.getMaterial());
      });
    }
    checks.equal("generate-never-repeats", 50, () -> {
      Set<String> seen = new HashSet<>();
      for (int i = 0; i < 50; i++) {
        EncryptedKeyVersion e = kms.generateEncryptedKey("plain");
        seen.add(Arrays.toString(e.getEncryptedKeyVersion().getMaterial()));
      }
      return seen.size();
    });
    checks.fails("generate-missing", IOException.class, "No KeyVersion exists for key 'nobody'",
        () -> kms.generateEncryptedKey("nobody"));
    checks.fails("decrypt-missing-version", IllegalArgumentException.class, "'rich@9' not found",
        () -> kms.decryptEncryptedKey(edek("rich", "rich@9", random(16), random(32))));
    checks.fails("decrypt-version-of-another-key", IllegalArgumentException.class,
        "KeyVersion 'rich@0' does not belong to the key 'plain'",
        () -> kms.decryptEncryptedKey(edek("plain", "rich@0", random(16), random(32))));
    checks.fails("decrypt-short-iv", IOException.class, "",
        () -> kms.decryptEncryptedKey(edek("rich", "rich@0", random(5), random(32))));
    checks.equal("decrypt-any-length", 77, () -> {
      EncryptedKeyVersion e = edek("rich", "rich@0", random(16), random(77));
      return kms.decryptEncryptedKey(e).getMaterial().length;
    });
    checks.passes("warm-up", () -> kms.warmUpEncryptedKeys("rich", "plain"));
    checks.fails("warm-up-missing", IOException.class, "", () -> kms.warmUpEncryptedKeys("nobody"));
    checks.equal("drain-after-roll", "plain@1", () -> {
      kms.rollNewVersion("plain");
      kms.drain("plain");
      return kms.generateEncryptedKey("plain").getEncryptionKeyVersionName();
    });
  }

  private void reencrypt() {
    checks.passes("reencrypt", () -> {
      EncryptedKeyVersion old = kms.generateEncryptedKey("aes256");
      byte[] dek = kms.decryptEncryptedKey(old).getMaterial();
      kms.rollNewVersion("aes256");
      EncryptedKeyVersion now = kms.reencryptEncryptedKey(old);
      Checks.same("aes256@1", now.getEncryptionKeyVersionName());
      Checks.same("aes256", now.getEncryptionKeyName());
      Checks.same(dek, kms.decryptEncryptedKey(now).getMaterial());
      Checks.same(dek, unwrapHere(now));
      Checks.same(dek, kms.decryptEncryptedKey(old).getMaterial());
    });
    checks.passes("reencrypt-already-current", () -> {
      kms.drain("aes256");
      EncryptedKeyVersion e = kms.generateEncryptedKey("aes256");
      EncryptedKeyVersion again = kms.reencryptEncryptedKey(e);
      Checks.same("aes256@1", again.getEncryptionKeyVersionName());
      Checks.same(e.getEncryptedKeyIv(), again.getEncryptedKeyIv());
      Checks.same(e.getEncryptedKeyVersion().getMaterial(),
          again.getEncryptedKeyVersion().getMaterial());
    });
    checks.passes("reencrypt-batch", () -> {
      List<EncryptedKeyVersion> batch = new ArrayList<>();
      List<byte[]> deks = new ArrayList<>();
      kms.createKey("batch", options(256));
      for (int i = 0; i < 300; i++) {
        EncryptedKeyVersion e = edek("batch", "batch@0", random(16), random(32));
        batch.add(e);
        deks.add(unwrapHere(e));
      }
      kms.rollNewVersion("batch");
      EncryptedKeyVersion current = edek("batch", "batch@1", random(16), random(32));
      batch.add(current);
      deks.add(unwrapHere(current));
      kms.reencryptEncryptedKeys(batch);
      Checks.same(deks.size(), batch.size());
      for (int i = 0; i < batch.size(); i++) {
        Checks.same("batch@1", batch.get(i).getEncryptionKeyVersionName());
        Checks.same("batch", batch.get(i).getEncryptionKeyName());
        Checks.same(deks.get(i), unwrapHere(batch.get(i)));
      }
      Checks.same(current.getEncryptedKeyVersion().getMaterial(),
          batch.get(300).getEncryptedKeyVersion().getMaterial());
    });
    checks.fails("reencrypt-missing-version", IllegalArgumentException.class, "'rich@9' not found",
        () -> kms.reencryptEncryptedKey(edek("rich", "rich@9", random(16), random(32))));
    checks.fails("reencrypt-batch-missing-version", IllegalArgumentException.class,
        "'rich@9' not found", () -> kms.reencryptEncryptedKeys(new ArrayList<>(
            List.of(edek("rich", "rich@9", random(16), random(32))))));
  }

  private void delete() {
    checks.passes("delete", () -> {
      kms.deleteKey("rich");
      Checks.same(null, kms.getMetadata("rich"));
      Checks.same(null, kms.getCurrentKey("rich"));
      Checks.same(null, kms.getKeyVersion("rich@0"));
      Checks.same(null, kms.getKeyVersions("rich"));
      Checks.isTrue(!kms.getKeys().contains("rich"), "a deleted key is still listed");
    });
    checks.fails("delete-missing", IOException.class, "Key rich does not exist in ",
        () -> kms.deleteKey("rich"));
    checks.fails("decrypt-after-delete", IllegalArgumentException.class, "'rich@0' not found",
        () -> kms.decryptEncryptedKey(edek("rich", "rich@0", random(16), random(32))));
    checks.equal("create-after-delete", "rich@0",
        () -> kms.createKey("rich", options(128)).getVersionName());
    checks.equal("metadata-after-create", 128, () -> kms.getMetadata("rich").getBitLength());
  }

  private void names(Set<String> but) {
    for (String name : AWKWARD_NAMES) {
      if (but.contains(name)) {
        continue;
      }
      checks.passes("name " + name, () -> {
        Checks.same(name + "@0", kms.createKey(name, options(128)).getVersionName());
        Checks.same(Map.of("key.acl.name", name), kms.getMetadata(name).getAttributes());
        Checks.same(128, kms.getKeysMetadata(name)[0].getBitLength());
        Checks.same(listsAtSigns || !name.contains("@"), kms.getKeys().contains(name));
        Checks.same(name + "@1", kms.rollNewVersion(name).getVersionName());
        Checks.same(2, kms.getKeyVersions(name).size());
        Checks.same(name, kms.getKeyVersion(name + "@0").getName());
        EncryptedKeyVersion e = kms.generateEncryptedKey(name);
        Checks.same(name + "@1", e.getEncryptionKeyVersionName());
        byte[] dek = kms.decryptEncryptedKey(e).getMaterial();
        Checks.same(unwrapHere(e), dek);
        Checks.same(dek, kms.decryptEncryptedKey(kms.reencryptEncryptedKey(e)).getMaterial());
        kms.deleteKey(name);
        Checks.same(null, kms.getMetadata(name));
      });
    }
    // The client writes a space into a path as a plus, which a path does not turn back.
    checks.passes("name with a space", () -> {
      String name = "key %^[\n{]}|\"<>\\";
      Checks.same(name + "@0", kms.createKey(name, options(128)).getVersionName());
      Checks.isTrue(kms.getKeys().contains(name), "not listed");
      Checks.same(128, kms.getKeysMetadata(name)[0].getBitLength());
      Checks.same(null, kms.getMetadata(name));
      Checks.same(null, kms.getCurrentKey(name));
    });
  }
}
