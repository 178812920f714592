import java.util.Arrays;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.security.alias.CredentialShell;
import org.apache.hadoop.util.ToolRunner;

/**
 * Asks Hadoop itself. "create PROVIDER NAME VALUE" puts a credential into a store, "get FILE NAME" prints the password
 * that a configuration gives, in brackets, or that there is none, or that asking failed.
 */
public class GetPassword {
  public static void main(String[] args) throws Exception {
    for (int i = 0; i < args.length; ) {
      if (args[i].equals("create")) {
        String[] words = {"create", args[i + 2], "-value", args[i + 3], "-provider", args[i + 1]};
        if (ToolRunner.run(new Configuration(), new CredentialShell(), words) != 0) {
          System.exit(1);
        }
        i += 4;
        continue;
      }
      Configuration conf = new Configuration(false);
      conf.addResource(new Path("file://" + args[i + 1]));
      String answer;
      try {
        char[] password = conf.getPassword(args[i + 2]);
        answer = password == null ? "none" : "[" + new String(password) + "]";
      } catch (Exception e) {
        answer = "failed";
      }
      System.out.println("answer " + answer);
      i += 3;
    }
  }
}
