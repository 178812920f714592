package io.edekd.interop;

import java.io.File;
import java.io.OutputStream;
import java.net.URI;
import java.security.PrivilegedExceptionAction;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProvider.Options;
import org.apache.hadoop.crypto.key.KeyProviderFactory;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.client.CreateEncryptionZoneFlag;
import org.apache.hadoop.hdfs.client.HdfsAdmin;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.ReencryptAction;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.SaslRpcServer.AuthMethod;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.token.Token;

/**
 * A Kerberized NameNode and DataNode with an encryption zone, users with tickets, and a task with
 * the tokens of a job; its key is rolled and its files follow. Cookies of the KMS live for two seconds here.
 */
public final class KerberizedZone {
  private static final long BEYOND_A_COOKIE = 2500;
  private static final Path ZONE = new Path("/zone");

  private final Checks checks = new Checks();
  private final Configuration conf = new Configuration();
  private final UserGroupInformation hdfs;
  private final UserGroupInformation alice;
  private final UserGroupInformation bob;
  private final String kmsUri;
  private final String key;
  private final MiniDFSCluster cluster;
  private int contexts;

  private KerberizedZone(String uri, String dir, String realm, String keytab, String key)
      throws Exception {
    kmsUri = uri;
    this.key = key;
    String service = "hdfs/localhost@" + realm;
    String web = "HTTP/localhost@" + realm;
    conf.set("hadoop.security.authentication", "kerberos");
    conf.set("hadoop.security.authorization", "false");
    conf.set("hadoop.security.key.provider.path", uri);
    conf.setInt("hadoop.security.kms.client.encrypted.key.cache.size", 4);
    conf.set("dfs.namenode.reencrypt.sleep.interval", "100ms");
    conf.setInt("dfs.namenode.reencrypt.batch.size", 5);
    for (String daemon : new String[] {"namenode", "datanode"}) {
      conf.set("dfs." + daemon + ".kerberos.principal", service);
      conf.set("dfs." + daemon + ".keytab.file", keytab);
    }
    conf.set("dfs.web.authentication.kerberos.principal", web);
    conf.set("dfs.web.authentication.kerberos.keytab", keytab);
    conf.set("dfs.namenode.kerberos.internal.spnego.principal", web);
    conf.setBoolean("dfs.block.access.token.enable", true);
    conf.set("dfs.data.transfer.protection", "authentication");
    conf.setBoolean("ignore.secure.ports.for.testing", true);
    UserGroupInformation.setConfiguration(conf);
    hdfs = UserGroupInformation.loginUserFromKeytabAndReturnUGI(service, keytab);
    alice = UserGroupInformation.loginUserFromKeytabAndReturnUGI("alice@" + realm, keytab);
    bob = UserGroupInformation.loginUserFromKeytabAndReturnUGI("bob@" + realm, keytab);
    cluster = new MiniDFSCluster.Builder(conf, new File(dir)).numDataNodes(1).build();
    cluster.waitActive();
  }

  public static void main(String[] args) throws Exception {
    KerberizedZone k = new KerberizedZone(args[0], args[1], args[2], args[3], args[4]);
    k.zone();
    k.expiry();
    k.job();
    k.reencrypt(args.length > 5);
    k.cluster.shutdown();
    System.exit(0);
  }

  private interface Use<T> {
    T of(FileSystem fs) throws Exception;
  }

  /**
   * Uses the file system as if in a process of its own: file systems of one client context share
   * their KMS client, and with it the cookie of whoever came first.
   */
  private <T> T as(UserGroupInformation user, Use<T> use) throws Exception {
    Configuration own = new Configuration(conf);
    own.set("dfs.client.context", "context " + ++contexts);
    return user.doAs((PrivilegedExceptionAction<T>) () -> {
      try (FileSystem fs = FileSystem.newInstance(own)) {
        return use.of(fs);
      }
    });
  }

  private interface Ask<T> {
    T of(KeyProvider kms) throws Exception;
  }

  private <T> T asHdfs(Ask<T> ask) throws Exception {
    return hdfs.doAs((PrivilegedExceptionAction<T>) () -> {
      KeyProvider kms = KeyProviderFactory.get(new URI(kmsUri), conf);
      T answer = ask.of(kms);
      kms.close();
      return answer;
    });
  }

  private static byte[] text(String name) {
    byte[] b = new byte[70_000];
    new Random(name.hashCode()).nextBytes(b);
    return b;
  }

  private static Void write(FileSystem fs, String name) throws Exception {
    try (OutputStream out = fs.create(new Path(ZONE, name))) {
      out.write(text(name));
    }
    return null;
  }

  private static Void read(FileSystem fs, String name) throws Exception {
    byte[] want = text(name);
    byte[] got = new byte[want.length];
    try (FSDataInputStream in = fs.open(new Path(ZONE, name))) {
      in.readFully(0, got);
    }
    Checks.isTrue(Arrays.equals(want, got), name + " holds something else");
    return null;
  }

  private static Void readRaw(FileSystem fs, String name) throws Exception {
    byte[] want = text(name);
    byte[] got = new byte[want.length];
    try (FSDataInputStream in = fs.open(new Path("/.reserved/raw" + ZONE, name))) {
      in.readFully(0, got);
    }
    Checks.isTrue(!Arrays.equals(want, got), name + " is stored in the clear");
    return null;
  }

  private void zone() throws Exception {
    checks.passes("the-superuser-makes-a-zone", () -> {
      asHdfs(kms -> kms.createKey(key, new Options(conf).setBitLength(128)));
      as(hdfs, fs -> {
        fs.mkdirs(ZONE);
        fs.setOwner(ZONE, "alice", "alice");
        fs.setPermission(ZONE, new FsPermission((short) 0755));
        new HdfsAdmin(FileSystem.getDefaultUri(conf), conf).createEncryptionZone(ZONE, key,
            EnumSet.of(CreateEncryptionZoneFlag.NO_TRASH));
        return null;
      });
    });
    checks.passes("a-user-writes-and-reads", () -> as(alice, fs -> {
      write(fs, "first");
      return read(fs, "first");
    }));
    checks.passes("the-superuser-sees-ciphertext", () -> as(hdfs, fs -> readRaw(fs, "first")));
    for (UserGroupInformation user : new UserGroupInformation[] {bob, hdfs}) {
      checks.passes(user.getShortUserName() + "-may-not-read", () -> mayNotRead(user));
    }
  }

  private void mayNotRead(UserGroupInformation user) {
    try {
      as(user, fs -> read(fs, "first"));
    } catch (Exception e) {
      Checks.isTrue(e.toString().contains("not allowed to do 'DECRYPT_EEK' on '" + key + "'"),
          e.toString());
      return;
    }
    throw new AssertionError("the file was read");
  }

  /** The same clients and the same NameNode, again and again after their cookies have expired. */
  private void expiry() {
    checks.passes("expired-cookies-are-not-noticed", () -> as(alice, fs -> {
      for (int round = 0; round < 2; round++) {
        Thread.sleep(BEYOND_A_COOKIE);
        for (int i = 0; i < 12; i++) {
          write(fs, "round" + round + "-" + i);
        }
        read(fs, "first");
        read(fs, "round" + round + "-0");
      }
      return null;
    }));
  }

  private void job() {
    checks.passes("a-task-reads-and-writes-with-tokens", () -> {
      Credentials tokens = new Credentials();
      as(alice, fs -> fs.addDelegationTokens("yarn", tokens));
      UserGroupInformation task =
          UserGroupInformation.createRemoteUser("alice", AuthMethod.TOKEN);
      task.addCredentials(tokens);
      boolean kms = false;
      for (Token<?> t : tokens.getAllTokens()) {
        kms |= t.getKind().toString().equals("kms-dt");
      }
      Checks.isTrue(kms, "no kms-dt among " + tokens.getAllTokens());
      as(task, fs -> {
        read(fs, "first");
        write(fs, "by-a-task");
        Thread.sleep(BEYOND_A_COOKIE);
        return read(fs, "by-a-task");
      });
      as(alice, fs -> read(fs, "by-a-task"));
    });
  }

  /** Files by version of the zone key, as the NameNode has them. */
  private static Map<String, Integer> versions(FileSystem fs) throws Exception {
    Map<String, Integer> versions = new HashMap<>();
    for (FileStatus file : fs.listStatus(ZONE)) {
      String version = ((DistributedFileSystem) fs).getClient().getFileInfo(
          file.getPath().toUri().getPath()).getFileEncryptionInfo().getEzKeyVersionName();
      versions.merge(version, 1, Integer::sum);
    }
    return versions;
  }

  /** The key is rolled, here or elsewhere, and the superuser has all files follow. */
  private void reencrypt(boolean rolledElsewhere) throws Exception {
    if (rolledElsewhere) {
      checks.step("roll the key elsewhere");
    }
    checks.equal(rolledElsewhere ? "rolled-elsewhere" : "roll", key + "@1", () ->
        asHdfs(kms -> rolledElsewhere ? kms.getCurrentKey(key) : kms.rollNewVersion(key))
            .getVersionName());
    checks.passes("old-files-open-after-the-roll", () -> as(alice, fs -> read(fs, "first")));
    checks.passes("reencrypt-zone-completes", () -> as(hdfs, fs -> {
      Map<String, Integer> before = versions(fs);
      Checks.same(Set.of(key + "@0"), before.keySet());
      HdfsAdmin admin = new HdfsAdmin(FileSystem.getDefaultUri(conf), conf);
      admin.reencryptEncryptionZone(ZONE, ReencryptAction.START);
      EncryptionZone.completed(admin, key + "@1", before.get(key + "@0"));
      Checks.same(Map.of(key + "@1", before.get(key + "@0")), versions(fs));
      return null;
    }));
    checks.passes("new-files-carry-the-new-version", () -> as(alice, fs -> {
      write(fs, "last");
      Checks.same(Set.of(key + "@1"), versions(fs).keySet());
      return null;
    }));
    checks.passes("read-files-after-reencryption", () -> as(alice, fs -> {
      for (String name : new String[] {"first", "round0-0", "round1-11", "by-a-task", "last"}) {
        read(fs, name);
      }
      return null;
    }));
    checks.passes("bob-may-not-read-what-was-reencrypted", () -> mayNotRead(bob));
  }
}
