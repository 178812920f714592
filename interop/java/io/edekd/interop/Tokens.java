package io.edekd.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.kms.KMSDelegationToken;
import org.apache.hadoop.security.HadoopKerberosName;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.token.Token;
import org.apache.hadoop.security.token.delegation.AbstractDelegationTokenIdentifier;
import org.apache.hadoop.security.token.delegation.AbstractDelegationTokenSecretManager;
import org.apache.hadoop.security.token.delegation.DelegationKey;
import org.apache.hadoop.security.token.delegation.web.DelegationTokenManager;

/**
 * Does with delegation tokens what Hadoop's KMS does, with the classes it uses. Each line of the input is
 * a command and its arguments, divided by tabs; each gets one line of output, which begins with "!" when it
 * is the text of an exception.
 */
public class Tokens {
  private static DelegationTokenManager manager;

  public static void main(String[] args) throws Exception {
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    System.setOut(System.err);
    HadoopKerberosName.setConfiguration(new Configuration());
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String answer;
      try {
        answer = answer(line.split("\t", -1));
      } catch (Throwable t) {
        answer = "!" + t;
      }
      out.println(answer.replace('\n', ' '));
    }
    manager.destroy();
  }

  private static String answer(String[] words) throws Exception {
    switch (words[0]) {
      case "start":
        return start(words[1], words[2]);
      case "keys":
        return keys();
      case "issue":
        return issue(words[1], words[2], words[3], words[4]);
      case "mac":
        return hex(AbstractDelegationTokenSecretManager.createPassword(
            bytes(words[2]), AbstractDelegationTokenSecretManager.createSecretKey(bytes(words[1]))));
      case "describe":
        return describe(words[1]);
      case "verify":
        return manager.verifyToken(token(words[1])).getUserName();
      case "renew":
        return Long.toString(manager.renewToken(token(words[1]), words[2]));
      case "cancel":
        manager.cancelToken(token(words[1]), words[2].isEmpty() ? null : words[2]);
        return "cancelled";
      default:
        throw new IllegalArgumentException(words[0]);
    }
  }

  /** Begins anew, with these lifetimes in seconds. */
  private static String start(String maxLifetime, String renewInterval) {
    if (manager != null) {
      manager.destroy();
    }
    Configuration conf = new Configuration(false);
    conf.set(DelegationTokenManager.MAX_LIFETIME, maxLifetime);
    conf.set(DelegationTokenManager.RENEW_INTERVAL, renewInterval);
    manager = new DelegationTokenManager(conf, KMSDelegationToken.TOKEN_KIND);
    manager.init();
    return "started";
  }

  private static String keys() {
    StringBuilder all = new StringBuilder();
    for (DelegationKey key : manager.getDelegationTokenSecretManager().getAllKeys()) {
      all.append(key.getKeyId()).append(' ').append(key.getExpiryDate()).append(' ')
          .append(hex(key.getEncodedKey())).append('\t');
    }
    return all.toString().trim();
  }

  private static String issue(String owner, String real, String renewer, String service) throws Exception {
    UserGroupInformation user = real.isEmpty()
        ? UserGroupInformation.createRemoteUser(owner)
        : UserGroupInformation.createProxyUser(owner, UserGroupInformation.createRemoteUser(real));
    return manager.createToken(user, renewer, service.isEmpty() ? null : service).encodeToUrlString();
  }

  private static String describe(String text) throws Exception {
    Token<AbstractDelegationTokenIdentifier> token = token(text);
    AbstractDelegationTokenIdentifier id = token.decodeIdentifier();
    UserGroupInformation real = id.getUser().getRealUser();
    return String.join("\t", hex(token.getIdentifier()), hex(token.getPassword()), token.getKind().toString(),
        token.getService().toString(), id.toString(), id.getUser().getUserName(),
        real == null ? "" : real.getUserName(), token.encodeToUrlString());
  }

  private static Token<AbstractDelegationTokenIdentifier> token(String text) throws Exception {
    Token<AbstractDelegationTokenIdentifier> token = new Token<>();
    token.decodeFromUrlString(text);
    return token;
  }

  private static byte[] bytes(String hex) {
    return HexFormat.of().parseHex(hex);
  }

  private static String hex(byte[] bytes) {
    return HexFormat.of().formatHex(bytes);
  }
}
