package io.edekd.interop;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import javax.servlet.ServletContext;
import org.apache.curator.framework.CuratorFramework;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.io.Text;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.authentication.util.Signer;
import org.apache.hadoop.security.authentication.util.ZKSignerSecretProvider;
import org.apache.hadoop.security.token.Token;
import org.apache.hadoop.security.token.delegation.AbstractDelegationTokenIdentifier;
import org.apache.hadoop.security.token.delegation.ZKDelegationTokenSecretManager;
import org.apache.hadoop.security.token.delegation.web.DelegationTokenManager;

/**
 * What a Java KMS keeps in ZooKeeper, without the KMS: Hadoop's provider of signing secrets and its
 * token manager on one connection, wired as the KMS wires them. Reads one command per line, words
 * apart by one space, and answers each with one line of JSON.
 *
 * <p>Arguments: connection string, validity of a secret in ms, then keytab and principal for SASL.
 */
public final class ZooKeeperPeer {
  private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
  private final Signer signer;
  private final DelegationTokenManager tokens;

  private ZooKeeperPeer(String[] args) throws Exception {
    System.setOut(System.err);
    String prefix = "signer.secret.provider.zookeeper.";
    Properties settings = new Properties();
    settings.setProperty(prefix + "connection.string", args[0]);
    settings.setProperty(prefix + "path", "/kms/secret");
    settings.setProperty(prefix + "auth.type", "none");
    if (args.length > 2) {
      settings.setProperty(prefix + "auth.type", "sasl");
      settings.setProperty(prefix + "kerberos.keytab", args[2]);
      settings.setProperty(prefix + "kerberos.principal", args[3]);
    }
    ServletContext context = context();
    ZKSignerSecretProvider secrets = new ZKSignerSecretProvider();
    secrets.init(settings, context, Long.parseLong(args[1]));
    signer = new Signer(secrets);

    Configuration conf = new Configuration(false);
    conf.setBoolean(DelegationTokenManager.ENABLE_ZK_KEY, true);
    ZKDelegationTokenSecretManager.setCurator((CuratorFramework) context.getAttribute(
        ZKSignerSecretProvider.ZOOKEEPER_SIGNER_SECRET_PROVIDER_CURATOR_CLIENT_ATTRIBUTE));
    tokens = new DelegationTokenManager(conf, new Text("kms-dt"));
    ZKDelegationTokenSecretManager.setCurator(null);
    tokens.init();
  }

  /** A servlet context that has attributes and nothing else. */
  private static ServletContext context() {
    Map<Object, Object> attributes = new HashMap<>();
    return (ServletContext) Proxy.newProxyInstance(ZooKeeperPeer.class.getClassLoader(),
        new Class<?>[] {ServletContext.class}, (proxy, method, args) -> {
          switch (method.getName()) {
            case "getAttribute":
              return attributes.get(args[0]);
            case "setAttribute":
              return attributes.put(args[0], args[1]);
            default:
              throw new UnsupportedOperationException(method.getName());
          }
        });
  }

  private String answer(String[] words) throws Exception {
    switch (words[0]) {
      case "ready":
        return "";
      case "sign":
        return signer.sign(words[1]);
      case "check":
        return signer.verifyAndExtract(words[1]);
      case "issue":
        return tokens.createToken(UserGroupInformation.createRemoteUser(words[1]), words[2])
            .encodeToUrlString();
      case "use":
        return tokens.verifyToken(token(words[1])).getShortUserName();
      case "renew":
        return Long.toString(tokens.renewToken(token(words[1]), words[2]));
      case "cancel":
        tokens.cancelToken(token(words[1]), words[2]);
        return "";
      default:
        throw new IllegalArgumentException(words[0]);
    }
  }

  private static Token<AbstractDelegationTokenIdentifier> token(String text) throws Exception {
    Token<AbstractDelegationTokenIdentifier> token = new Token<>();
    token.decodeFromUrlString(text);
    return token;
  }

  public static void main(String[] args) throws Exception {
    ZooKeeperPeer peer = new ZooKeeperPeer(args);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String key = "answer";
      String value;
      try {
        value = peer.answer(line.split(" "));
      } catch (Exception e) {
        key = "error";
        value = e.toString();
      }
      peer.out.println(new ObjectMapper().writeValueAsString(Map.of(key, value)));
    }
    System.exit(0);
  }
}
