import java.lang.reflect.Field;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Collection;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.security.Groups;

/**
 * Gives Hadoop's Groups the static mappings of static.txt and prints the file with the table it made of each.
 * Run it in this folder with hadoop-common on the class path: java -cp ... Observe.java > static.new
 */
public class Observe {
  public static void main(String[] args) throws Exception {
    for (String line : Files.readAllLines(Paths.get("static.txt"))) {
      if (line.isEmpty() || line.startsWith("#")) {
        System.out.println(line);
        continue;
      }
      String value = line.split("\t")[0];
      System.out.println(value + "\t" + table(value));
    }
  }

  static String table(String value) throws Exception {
    Configuration conf = new Configuration(false);
    conf.set("hadoop.security.group.mapping", "org.apache.hadoop.security.NullGroupsMapping");
    if (!value.equals("unset")) {
      conf.set("hadoop.user.group.static.mapping.overrides",
          value.substring(1, value.length() - 1).replace("\\n", "\n"));
    }
    Groups groups;
    try {
      groups = new Groups(conf);
    } catch (IllegalArgumentException e) {
      return "error";
    }
    Field field = Groups.class.getDeclaredField("staticMapRef");
    field.setAccessible(true);
    Map<String, ? extends Collection<String>> map =
        ((AtomicReference<Map<String, ? extends Collection<String>>>) field.get(groups)).get();
    StringBuilder all = new StringBuilder();
    if (map != null) {
      for (Map.Entry<String, ? extends Collection<String>> entry : new TreeMap<>(map).entrySet()) {
        all.append("{").append(entry.getKey()).append("}");
        for (String group : entry.getValue()) {
          all.append("[").append(group).append("]");
        }
      }
    }
    return all.length() == 0 ? "none" : all.toString().replace("\n", "\\n");
  }
}
