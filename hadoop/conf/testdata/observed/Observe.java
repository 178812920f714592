import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.conf.Configuration;

/**
 * Asks Hadoop's Configuration the questions of cases.txt and prints the file with the answers it gave.
 * Run it in this folder with hadoop-common on the class path, but not this folder:
 *
 * CONF_SET=set CONF_EMPTY= java -Duser.home=/home/u -Duser.name=u -cp ... Observe.java > cases.new
 */
public class Observe {
  public static void main(String[] args) throws Exception {
    for (String line : Files.readAllLines(Paths.get("cases.txt"))) {
      if (line.isEmpty() || line.startsWith("#")) {
        System.out.println(line);
        continue;
      }
      String[] field = line.split("\t");
      System.out.println(field[0] + "\t" + field[1] + "\t" + field[2] + "\t" + answer(field[0], field[1], field[2]));
    }
  }

  static String answer(String files, String getter, String name) {
    try {
      Configuration conf = new Configuration(false);
      for (String file : files.split(",")) {
        conf.addResource(new org.apache.hadoop.fs.Path(Paths.get(file).toAbsolutePath().toString()));
      }
      switch (getter) {
        case "get": return quote(conf.get(name));
        case "raw": return quote(conf.getRaw(name));
        case "string": return quote(conf.getTrimmed(name));
        case "int": return "" + conf.getInt(name, -999);
        case "int64": return "" + conf.getLong(name, -999);
        case "bool": return "" + conf.getBoolean(name, true);
        case "float": return "" + conf.getFloat(name, -999);
        case "duration": return conf.getTimeDuration(name, -999, TimeUnit.MILLISECONDS) + "ms";
        case "strings":
          List<String> quoted = new ArrayList<>();
          for (String s : conf.getTrimmedStringCollection(name)) {
            quoted.add(quote(s));
          }
          return String.join(" ", quoted);
        default: throw new Error("unknown getter " + getter);
      }
    } catch (Exception e) {
      return "error";
    }
  }

  static String quote(String s) {
    if (s == null) {
      return "unset";
    }
    return "\"" + s.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n").replace("\u00a0", "\\u00a0") + "\"";
  }
}
