import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.authorize.AccessControlList;

/**
 * Asks the Java KMS's own classes the questions of cases.txt and prints the file with the answers they gave.
 * Run it in this folder with hadoop-kms on the class path, and com.codahale.metrics with it:
 *
 * java -cp ... Observe.java > cases.new
 */
public class Observe {
  static final String SERVER = "org.apache.hadoop.crypto.key.kms.server.";
  static final List<UserGroupInformation> callers = new ArrayList<>();
  static final Map<String, Configuration> policies = new HashMap<>();
  static final Map<String, Object> acls = new HashMap<>();

  public static void main(String[] args) throws Exception {
    auditNowhere();
    for (String line : Files.readAllLines(Paths.get("cases.txt"))) {
      String[] field = line.split("\t", -1);
      switch (field[0]) {
        case "caller":
          callers.add(caller(field[1], field[2], field[3]));
          break;
        case "set":
          policies.computeIfAbsent(field[1], name -> new Configuration(false)).set(field[2], field[3].translateEscapes());
          break;
        case "acl":
          line = "acl\t" + field[1] + "\t" + allows(new AccessControlList(field[1].translateEscapes()));
          break;
        case "kms":
        case "key":
        case "create":
          line = field[0] + "\t" + field[1] + "\t" + field[2] + "\t" + field[3] + "\t" + answers(field);
          break;
        case "text":
          line = String.join("\t", List.of(field).subList(0, 6)) + "\t" + text(field);
          break;
        default:
      }
      System.out.println(line);
    }
    System.exit(0);
  }

  static UserGroupInformation caller(String user, String real, String groups) {
    String[] of = groups.isEmpty() ? new String[0] : groups.split(",");
    if (real.isEmpty()) {
      return UserGroupInformation.createUserForTesting(user, of);
    }
    return UserGroupInformation.createProxyUserForTesting(user, UserGroupInformation.createRemoteUser(real), of);
  }

  static String allows(AccessControlList acl) {
    StringBuilder b = new StringBuilder();
    for (UserGroupInformation caller : callers) {
      b.append(acl.isUserAllowed(caller) ? 'y' : 'n');
    }
    return b.toString();
  }

  static String answers(String[] field) throws Exception {
    StringBuilder b = new StringBuilder();
    for (UserGroupInformation caller : callers) {
      b.append(refusal(field[0], field[1], field[2], "", field[3], caller) == null ? 'y' : 'n');
    }
    return b.toString();
  }

  static String text(String[] field) throws Exception {
    return refusal(field[1], field[2], field[3], field[4], field[5].isEmpty() ? null : field[5], callers.get(0)).getMessage();
  }

  /** What a layer throws: kms for a type (and operation), key for a right, create for the attribute key.acl.name. */
  static Throwable refusal(String layer, String policy, String right, String operation, String key, UserGroupInformation caller) throws Exception {
    Object kmsAcls = aclsOf(policy);
    try {
      if (layer.equals("kms")) {
        Class<?> type = Class.forName(SERVER + "KMSACLs$Type");
        if (operation.isEmpty()) {
          Method m = kmsAcls.getClass().getMethod("hasAccess", type, UserGroupInformation.class);
          return (Boolean) m.invoke(kmsAcls, value(type, right), caller) ? null : new Exception("denied");
        }
        Class<?> op = Class.forName(SERVER + "KMS$KMSOp");
        field("KMSWebApp", "kmsAcls").set(null, kmsAcls);
        Method m = kmsAcls.getClass().getMethod("assertAccess", type, UserGroupInformation.class, op, String.class);
        m.invoke(kmsAcls, value(type, right), caller, value(op, operation), key);
        return null;
      }
      Class<?> guard = Class.forName(SERVER + "KeyAuthorizationKeyProvider");
      KeyProvider user = new org.apache.hadoop.crypto.key.UserProvider.Factory().createProvider(new java.net.URI("user:///"), new Configuration());
      Object provider = guard.getConstructors()[0].newInstance(
          org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.createKeyProviderCryptoExtension(user), kmsAcls);
      if (layer.equals("key")) {
        Class<?> op = Class.forName(SERVER + "KeyAuthorizationKeyProvider$KeyOpType");
        Method m = guard.getDeclaredMethod("checkAccess", String.class, UserGroupInformation.class, op);
        m.setAccessible(true);
        m.invoke(provider, key, caller, value(op, right));
        return null;
      }
      // right is the attribute that the request gives, - for none
      Method m = guard.getDeclaredMethod("authorizeCreateKey", String.class, KeyProvider.Options.class, UserGroupInformation.class);
      m.setAccessible(true);
      KeyProvider.Options options = new KeyProvider.Options(new Configuration());
      Map<String, String> attributes = new HashMap<>();
      if (!right.equals("-")) {
        attributes.put("key.acl.name", right);
      }
      options.setAttributes(attributes);
      m.invoke(provider, key, options, caller);
      String stored = options.getAttributes().get("key.acl.name");
      if (!stored.equals(right.equals("-") ? key : right)) {
        throw new IllegalStateException(stored);
      }
      return null;
    } catch (InvocationTargetException e) {
      if (e.getCause() instanceof org.apache.hadoop.security.authorize.AuthorizationException) {
        return e.getCause();
      }
      throw e;
    }
  }

  @SuppressWarnings({"unchecked", "rawtypes"})
  static Object value(Class<?> type, String name) {
    return Enum.valueOf((Class) type, name);
  }

  static Object aclsOf(String policy) throws Exception {
    if (!acls.containsKey(policy)) {
      Constructor<?> c = Class.forName(SERVER + "KMSACLs").getDeclaredConstructor(Configuration.class);
      c.setAccessible(true);
      acls.put(policy, c.newInstance(policies.getOrDefault(policy, new Configuration(false))));
    }
    return acls.get(policy);
  }

  static Field field(String type, String name) throws Exception {
    Field f = Class.forName(SERVER + type).getDeclaredField(name);
    f.setAccessible(true);
    return f;
  }

  /** A denial is audited and metered, so there must be an audit log and a meter. */
  static void auditNowhere() throws Exception {
    Constructor<?> c = Class.forName(SERVER + "KMSAudit").getDeclaredConstructor(Configuration.class);
    c.setAccessible(true);
    field("KMSWebApp", "kmsAudit").set(null, c.newInstance(new Configuration(false)));
    field("KMSWebApp", "unauthorizedCallsMeter").set(null, new com.codahale.metrics.Meter());
  }
}
