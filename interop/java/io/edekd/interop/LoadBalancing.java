package io.edekd.interop;

import java.io.IOException;
import java.net.ConnectException;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.EncryptedKeyVersion;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.util.VersionInfo;

/**
 * The load-balancing client with two hosts that the test breaks at the named steps. Both lead to
 * one server, and a second provider looks at that server directly.
 */
public final class LoadBalancing {
  private final Configuration conf = new Configuration();
  private final Checks checks = new Checks();
  private final KeyProviderCryptoExtension hosts;
  private final KeyProviderCryptoExtension direct;

  private LoadBalancing(String hostsUri, String directUri) throws Exception {
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    conf.setInt("hadoop.security.kms.client.timeout", 2);
    conf.setInt("hadoop.security.kms.client.failover.sleep.base.millis", 5);
    conf.setInt("hadoop.security.kms.client.failover.sleep.max.millis", 20);
    hosts = provider(hostsUri);
    direct = provider(directUri);
  }

  private KeyProviderCryptoExtension provider(String uri) throws Exception {
    return KeyProviderCryptoExtension.createKeyProviderCryptoExtension(
        KeyProviderFactory.get(new URI(uri), conf));
  }

  public static void main(String[] args) throws Exception {
    LoadBalancing l = new LoadBalancing(args[0], args[1]);
    l.bothUp();
    l.oneFailsUnderLoad();
    l.changesWithOneDown();
    l.bothDown();
    l.lostAnswers();
    System.exit(0);
  }

  private Options aes128() {
    return new Options(conf).setCipher("AES/CTR/NoPadding").setBitLength(128);
  }

  private int versions(String key) throws IOException {
    return direct.getMetadata(key).getVersions();
  }

  /**
   * Everything that only reads, and the EDEK operations: an odd number of calls, so that taking
   * turns brings each of them to each host.
   */
  private void use(KeyProviderCryptoExtension kms) throws Exception {
    Checks.isTrue(kms.getKeys().contains("busy"), "busy is not listed");
    Checks.same(128, kms.getMetadata("busy").getBitLength());
    Checks.same("busy@0", kms.getCurrentKey("busy").getVersionName());
    Checks.same("busy", kms.getKeyVersion("busy@0").getName());
    Checks.same(1, kms.getKeyVersions("busy").size());
    EncryptedKeyVersion e = kms.generateEncryptedKey("busy");
    Checks.same(16, kms.decryptEncryptedKey(e).getMaterial().length);
    Checks.same("busy@0", kms.reencryptEncryptedKey(e).getEncryptionKeyVersionName());
    kms.reencryptEncryptedKeys(new ArrayList<>(List.of(e, e)));
  }

  private void bothUp() throws Exception {
    checks.passes("both-hosts-up", () -> {
      hosts.createKey("busy", aes128());
      for (int i = 0; i < 4; i++) {
        use(hosts);
      }
    });
    checks.step("both hosts were asked");
  }

  private void oneFailsUnderLoad() throws Exception {
    AtomicReference<Throwable> failure = new AtomicReference<>();
    AtomicInteger rounds = new AtomicInteger();
    AtomicInteger goal = new AtomicInteger(Integer.MAX_VALUE);
    List<Thread> workers = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      Thread worker = new Thread(() -> {
        while (failure.get() == null && rounds.get() < goal.get()) {
          try {
            use(hosts);
          } catch (Throwable t) {
            failure.set(t);
          }
          rounds.incrementAndGet();
        }
      });
      worker.start();
      workers.add(worker);
    }
    List<String> steps =
        List.of("second refuses", "second cuts", "second is back", "first refuses");
    for (String step : steps) {
      waitFor(rounds, rounds.get() + 15, failure);
      checks.step(step);
    }
    goal.set(rounds.get() + 15);
    for (Thread worker : workers) {
      worker.join();
    }
    checks.passes("reads-and-edeks-go-on-while-a-host-fails", () -> {
      if (failure.get() != null) {
        throw new AssertionError("after " + rounds.get() + " rounds", failure.get());
      }
    });
    checks.step("first is back, second hangs");
    checks.passes("a-hanging-host-costs-a-timeout-only", () -> {
      for (int i = 0; i < 2; i++) {
        Checks.same("busy@0", hosts.getCurrentKey("busy").getVersionName());
      }
    });
  }

  private static void waitFor(AtomicInteger rounds, int goal, AtomicReference<Throwable> failure)
      throws InterruptedException {
    while (rounds.get() < goal && failure.get() == null) {
      Thread.sleep(5);
    }
  }

  private void changesWithOneDown() throws Exception {
    checks.step("second refuses changes");
    checks.equal("create-with-one-host-down", "half@0",
        () -> hosts.createKey("half", aes128()).getVersionName());
    // The roll is done; then the broadcast of _invalidatecache meets the dead host.
    for (int i = 1; i <= 2; i++) {
      int made = i;
      checks.fails("roll-with-one-host-down-" + i, ConnectException.class, "Connection refused",
          () -> hosts.rollNewVersion("half"));
      checks.passes("the-roll-took-effect-once-" + i, () -> {
        Checks.same("half@" + made, direct.getCurrentKey("half").getVersionName());
        Checks.same(made + 1, versions("half"));
        hosts.drain("half");
        Checks.same("half@" + made,
            hosts.generateEncryptedKey("half").getEncryptionKeyVersionName());
      });
    }
    checks.fails("invalidate-with-one-host-down", ConnectException.class, "Connection refused",
        () -> hosts.invalidateCache("half"));
    // Only newer clients broadcast _invalidatecache after a deletion, and meet the dead host so.
    if (VersionInfo.getVersion().startsWith("3.3.")) {
      checks.passes("delete-with-one-host-down", () -> hosts.deleteKey("half"));
    } else {
      checks.fails("delete-with-one-host-down", ConnectException.class, "Connection refused",
          () -> hosts.deleteKey("half"));
    }
    checks.equal("the-deletion-took-effect", null, () -> direct.getMetadata("half"));
  }

  private void bothDown() throws Exception {
    checks.step("first refuses too");
    checks.fails("read-with-no-host", ConnectException.class, "Connection refused",
        () -> hosts.getMetadata("busy"));
    checks.step("both are back");
    checks.passes("use-after-both-came-back", () -> use(hosts));
  }

  /** The server did what was asked and its answer was lost: the JDK asks again on its own. */
  private void lostAnswers() throws Exception {
    direct.createKey("rolled", aes128());
    checks.step("lose one answer to roll");
    checks.passes("a-lost-roll-is-sent-again-and-makes-two-versions", () -> {
      Checks.same("rolled@2", hosts.rollNewVersion("rolled").getVersionName());
      Checks.same(3, versions("rolled"));
    });
    checks.step("reset one answer to roll");
    checks.passes("a-reset-roll-is-sent-again-too", () -> {
      Checks.same("rolled@4", hosts.rollNewVersion("rolled").getVersionName());
      Checks.same(5, versions("rolled"));
    });
    checks.step("lose two answers to roll");
    checks.passes("a-roll-lost-twice-goes-to-the-other-host", () -> {
      Checks.same("rolled@7", hosts.rollNewVersion("rolled").getVersionName());
      Checks.same(8, versions("rolled"));
    });
    checks.step("lose one answer to create");
    checks.fails("a-lost-create-says-that-the-key-exists", IOException.class,
        "Key created already exists in ", () -> hosts.createKey("created", aes128()));
    checks.equal("the-created-key-is-whole", 1, () -> versions("created"));
    checks.step("lose one answer to delete");
    checks.fails("a-lost-delete-says-that-the-key-is-missing", IOException.class,
        "Key created does not exist in ", () -> hosts.deleteKey("created"));
    checks.equal("the-deleted-key-is-gone", null, () -> direct.getMetadata("created"));
    checks.step("lose one answer to decrypt");
    checks.passes("a-lost-decrypt-is-not-noticed", () -> {
      EncryptedKeyVersion e = hosts.generateEncryptedKey("busy");
      Checks.same(direct.decryptEncryptedKey(e).getMaterial(),
          hosts.decryptEncryptedKey(e).getMaterial());
    });
  }
}
