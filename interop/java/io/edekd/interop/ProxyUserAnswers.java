package io.edekd.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.authentication.util.KerberosName;
import org.apache.hadoop.security.authorize.ProxyUsers;

/**
 * Decides about proxy users as Hadoop's KMS does. A line "set NAME VALUE" of the input sets a property,
 * "load" puts the properties set so far in force and forgets them, and "ask REAL AS GROUPS ADDRESS" has one
 * line of output: "allowed", the text of the denial, or "!" and the exception. Words are divided by tabs.
 */
public class ProxyUserAnswers {
  public static void main(String[] args) throws Exception {
    KerberosName.setRules("DEFAULT");
    KerberosName.setRuleMechanism("hadoop");
    UserGroupInformation.createRemoteUser("any"); // has Hadoop set its own rules first
    Configuration site = new Configuration(false);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.split("\t", -1);
      switch (words[0]) {
        case "set":
          site.set(words[1], words[2].replace('|', '\n'));
          break;
        case "load":
          System.out.println(load(site));
          site = new Configuration(false);
          break;
        default:
          System.out.println(ask(words[1], words[2], words[3], words[4]));
      }
    }
  }

  /** The KMS hands its filter the properties without their first words. */
  private static String load(Configuration site) {
    Configuration conf = new Configuration(false);
    for (Map.Entry<String, String> e : site.getValByRegex("hadoop\\.kms\\.proxyuser\\.").entrySet()) {
      conf.set(e.getKey().substring("hadoop.kms.".length()), e.getValue());
    }
    try {
      ProxyUsers.refreshSuperUserGroupsConfiguration(conf, "proxyuser");
      return "loaded";
    } catch (RuntimeException e) {
      return "!" + e;
    }
  }

  private static String ask(String real, String as, String groups, String address) {
    try {
      UserGroupInformation who = UserGroupInformation.createProxyUserForTesting(as,
          UserGroupInformation.createRemoteUser(real), groups.isEmpty() ? new String[0] : groups.split(","));
      ProxyUsers.authorize(who, address);
      return "allowed";
    } catch (org.apache.hadoop.security.authorize.AuthorizationException e) {
      return e.getMessage();
    } catch (Exception e) {
      return "!" + e;
    }
  }
}
