import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.security.GroupMappingServiceProvider;
import org.apache.hadoop.security.LdapGroupsMapping;
import org.apache.hadoop.security.RuleBasedLdapGroupsMapping;

/**
 * Asks Hadoop's LdapGroupsMapping for the groups of the users of ldap.txt and prints the file with its answers. The
 * server is one with slapd.conf and directory.ldif of this folder. Run it in this folder with hadoop-common on the
 * class path: java -cp ... ObserveLdap.java ldap://127.0.0.1:PORT > ldap.new
 */
public class ObserveLdap {
  public static void main(String[] args) throws Exception {
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    Configuration conf = null;
    for (String line : Files.readAllLines(Paths.get("ldap.txt"), StandardCharsets.UTF_8)) {
      String[] fields = line.split("\t");
      if (line.isEmpty() || line.startsWith("#")) {
        out.println(line);
      } else if (fields[0].equals("with")) {
        out.println(line);
        conf = configuration(args[0], fields);
      } else {
        List<String> groups = answer(conf, fields[0]);
        Collections.sort(groups);
        out.println(fields[0] + "\t" + String.join(";", groups) + (fields.length > 2 ? "\t" + fields[2] : ""));
      }
    }
  }

  static Configuration configuration(String url, String[] fields) {
    Configuration conf = new Configuration(false);
    String prefix = "hadoop.security.group.mapping.ldap.";
    conf.set(prefix + "url", url);
    conf.set(prefix + "base", "dc=example,dc=com");
    conf.set(prefix + "bind.user", "cn=reader,dc=example,dc=com");
    conf.set(prefix + "bind.password", "let me read");
    conf.set(prefix + "num.attempts", "1");
    for (int i = 1; i < fields.length; i++) {
      String[] pair = fields[i].split("=", 2);
      conf.set(prefix + pair[0], pair[1].replace("\\n", "\n"));
    }
    return conf;
  }

  static List<String> answer(Configuration conf, String user) {
    LdapGroupsMapping mapping = conf.get("hadoop.security.group.mapping.ldap.conversion.rule") == null
        ? new LdapGroupsMapping() : new RuleBasedLdapGroupsMapping();
    try {
      mapping.setConf(conf);
      return new ArrayList<>(((GroupMappingServiceProvider) mapping).getGroups(user));
    } catch (Exception e) {
      return new ArrayList<>(List.of(e.getClass().getName()));
    }
  }
}
