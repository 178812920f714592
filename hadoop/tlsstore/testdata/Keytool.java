import java.io.BufferedReader;
import java.io.InputStreamReader;

/** Runs the JDK's own keytool once for each line of standard input: starting Java takes longer than keytool does. */
public class Keytool {
  public static void main(String[] args) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = lines.readLine()) != null; ) {
      System.err.println("keytool " + line);
      sun.security.tools.keytool.Main.main(line.split(" ")); // ends the process on error
    }
  }
}
