package io.edekd.interop;

import java.io.File;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.client.CreateEncryptionZoneFlag;
import org.apache.hadoop.hdfs.client.HdfsAdmin;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.ReencryptAction;
import org.apache.hadoop.hdfs.protocol.ZoneReencryptionStatus;
import org.apache.hadoop.ipc.RemoteException;

/** A NameNode, a DataNode and clients that keep an encryption zone under a key of the KMS. */
public final class EncryptionZone {
  private static final int BLOCK = 1 << 20;
  private static final int[] SIZES = {0, 1, 15, 16, 4096, 100_003, BLOCK, 3 * BLOCK + 17};
  private static final EnumSet<CreateEncryptionZoneFlag> PLAIN =
      EnumSet.of(CreateEncryptionZoneFlag.NO_TRASH);

  private final Checks checks = new Checks();
  private final Configuration conf = new Configuration();
  private final Path zone = new Path("/zone");
  private final Map<Path, byte[]> files = new LinkedHashMap<>();
  private final KeyProvider kms;
  private final MiniDFSCluster cluster;
  private final HdfsAdmin admin;
  private final DistributedFileSystem fs;

  private EncryptionZone(String uri, String dir) throws Exception {
    conf.set("hadoop.security.key.provider.path", uri);
    conf.setInt("dfs.blocksize", BLOCK);
    conf.set("dfs.namenode.reencrypt.sleep.interval", "100ms");
    conf.setInt("dfs.namenode.reencrypt.batch.size", 3);
    kms = KeyProviderFactory.get(new URI(uri), conf);
    cluster = new MiniDFSCluster.Builder(conf, new File(dir)).numDataNodes(1).build();
    cluster.waitActive();
    fs = cluster.getFileSystem();
    admin = new HdfsAdmin(FileSystem.getDefaultUri(conf), conf);
  }

  public static void main(String[] args) throws Exception {
    EncryptionZone e = new EncryptionZone(args[0], args[1]);
    String mode = args.length > 2 ? args[2] : "";
    e.makeZone();
    e.useZone();
    if (mode.equals("outage")) {
      e.outage();
    } else {
      e.move();
      e.restart();
      e.reencrypt(mode.equals("elsewhere"));
    }
    e.cluster.shutdown();
    System.exit(0);
  }

  private void makeZone() {
    checks.passes("create-key-and-zone", () -> {
      kms.createKey("zonekey", new Options(conf).setBitLength(256));
      fs.mkdirs(zone);
      admin.createEncryptionZone(zone, "zonekey", PLAIN);
      Checks.same("zonekey", admin.getEncryptionZoneForPath(zone).getKeyName());
    });
    checks.fails("zone-with-a-missing-key", RemoteException.class, "doesn't exist", () -> {
      fs.mkdirs(new Path("/other"));
      admin.createEncryptionZone(new Path("/other"), "nobody", PLAIN);
    });
  }

  private void useZone() {
    checks.passes("write-files", () -> {
      for (int size : SIZES) {
        write(new Path(zone, "f" + size), size);
      }
    });
    checks.passes("read-files", () -> readAll(fs));
    checks.passes("files-carry-the-first-version", () -> version("zonekey@0"));
    checks.passes("blocks-hold-ciphertext", () -> {
      Path file = new Path(zone, "f" + 4096);
      byte[] stored = read(fs, new Path("/.reserved/raw" + file), 4096);
      Checks.isTrue(!Arrays.equals(files.get(file), stored), "the stored bytes are the plain ones");
    });
    checks.passes("append", () -> {
      Path file = new Path(zone, "f" + 4096);
      byte[] more = bytes(5000);
      try (OutputStream out = fs.append(file)) {
        out.write(more);
      }
      byte[] old = files.get(file);
      byte[] whole = Arrays.copyOf(old, old.length + more.length);
      System.arraycopy(more, 0, whole, old.length, more.length);
      files.put(file, whole);
      Checks.same(whole, read(fs, file, whole.length));
    });
  }

  private void move() {
    checks.passes("rename-inside-the-zone", () -> {
      Path from = new Path(zone, "f16");
      Path to = new Path(zone, "sub/moved");
      fs.mkdirs(to.getParent());
      Checks.isTrue(fs.rename(from, to), "rename said no");
      files.put(to, files.remove(from));
      readAll(fs);
    });
    checks.fails("rename-out-of-the-zone", RemoteException.class,
        "can't be moved from an encryption zone",
        () -> fs.rename(new Path(zone, "f1"), new Path("/outside")));
    checks.fails("rename-into-the-zone", RemoteException.class,
        "can't be moved into an encryption zone", () -> {
          fs.create(new Path("/clear")).close();
          fs.rename(new Path("/clear"), new Path(zone, "clear"));
        });
  }

  private void restart() throws IOException {
    checks.step("stop the KMS");
    checks.passes("no-file-opens-without-the-kms", () -> {
      try (FileSystem fresh = FileSystem.newInstance(conf)) {
        read(fresh, new Path(zone, "f1"), 1);
      } catch (IOException e) {
        return;
      }
      throw new AssertionError("the file was read although no KMS runs");
    });
    checks.step("start the KMS again");
    checks.passes("files-open-after-the-restart", () -> {
      readAll(fs);
      try (FileSystem fresh = FileSystem.newInstance(conf)) {
        readAll(fresh);
      }
    });
    checks.passes("write-after-the-restart", () -> {
      Path file = new Path(zone, "later");
      write(file, 70_000);
      Checks.same(files.get(file), read(fs, file, 70_000));
    });
  }

  /** The KMS stays, but loses the one that it has its keys from. */
  private void outage() throws IOException {
    checks.step("lose the KMS behind");
    checks.passes("new-files-without-the-kms-behind", () -> {
      for (int i = 0; i < 20; i++) {
        write(new Path(zone, "outage" + i), 1000 + i);
      }
    });
    checks.passes("all-files-open-without-the-kms-behind", () -> {
      try (FileSystem fresh = FileSystem.newInstance(conf)) {
        readAll(fresh);
      }
    });
    checks.step("find the KMS behind again");
    checks.passes("all-files-open-with-the-kms-behind", () -> readAll(fs));
  }

  private void reencrypt(boolean rolledElsewhere) throws IOException {
    if (rolledElsewhere) {
      checks.step("roll the key elsewhere");
      checks.equal("rolled-elsewhere", "zonekey@1",
          () -> kms.getCurrentKey("zonekey").getVersionName());
    } else {
      checks.equal("roll", "zonekey@1", () -> kms.rollNewVersion("zonekey").getVersionName());
    }
    checks.passes("old-files-open-after-the-roll", () -> readAll(fs));
    checks.passes("reencrypt-zone-completes", () -> {
      admin.reencryptEncryptionZone(zone, ReencryptAction.START);
      completed(admin, "zonekey@1", files.size());
    });
    checks.passes("files-carry-the-new-version", () -> version("zonekey@1"));
    checks.passes("new-files-carry-the-new-version", () -> {
      write(new Path(zone, "last"), 123);
      version("zonekey@1");
    });
    checks.passes("read-files-after-reencryption", () -> {
      try (FileSystem fresh = FileSystem.newInstance(conf)) {
        readAll(fresh);
      }
    });
  }

  /** Waits until all files of the only zone have EDEKs of this version of its key. */
  static void completed(HdfsAdmin admin, String version, int files) throws Exception {
    long deadline = System.nanoTime() + 60_000_000_000L;
    ZoneReencryptionStatus status;
    do {
      Thread.sleep(50);
      RemoteIterator<ZoneReencryptionStatus> all = admin.listReencryptionStatus();
      Checks.isTrue(all.hasNext(), "no zone is listed");
      status = all.next();
      Checks.isTrue(System.nanoTime() < deadline, "not completed in a minute: " + status);
    } while (status.getState() != ZoneReencryptionStatus.State.Completed);
    Checks.same(version, status.getEzKeyVersionName());
    Checks.same((long) files, status.getFilesReencrypted());
    Checks.same(0L, status.getNumReencryptionFailures());
  }

  private static byte[] bytes(int size) {
    byte[] b = new byte[size];
    new Random(size).nextBytes(b);
    return b;
  }

  private void write(Path file, int size) throws IOException {
    byte[] content = bytes(size);
    try (OutputStream out = fs.create(file)) {
      out.write(content);
    }
    files.put(file, content);
  }

  private static byte[] read(FileSystem from, Path file, int size) throws IOException {
    byte[] content = new byte[size];
    try (FSDataInputStream in = from.open(file)) {
      in.readFully(content);
      Checks.same(-1, in.read());
    }
    return content;
  }

  private void readAll(FileSystem from) throws IOException {
    for (Map.Entry<Path, byte[]> f : files.entrySet()) {
      byte[] want = f.getValue();
      Checks.isTrue(Arrays.equals(want, read(from, f.getKey(), want.length)),
          f.getKey() + " differs");
    }
  }

  /** Every file's EDEK is of this version of the zone key. */
  private void version(String want) throws IOException {
    for (Path file : files.keySet()) {
      FileStatus status = fs.getFileStatus(file);
      Checks.isTrue(status.isEncrypted(), file + " is not encrypted");
      Checks.same(want, fs.getClient().getFileInfo(file.toUri().getPath())
          .getFileEncryptionInfo().getEzKeyVersionName());
    }
  }
}
