import java.net.URI;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.http.HttpServer2;

/** Serves HTTPS as a Java KMS does, once for each ssl-server.xml given, prints the ports and ends with standard input. */
public class HadoopServer {
  public static void main(String[] args) throws Exception {
    for (String file : args) {
      Configuration ssl = new Configuration(false);
      ssl.addResource(new Path("file://" + file));
      HttpServer2 server = new HttpServer2.Builder()
          .setName("datanode") // any application on the class path will do
          .setConf(new Configuration())
          .setSSLConf(ssl)
          .addEndpoint(new URI("https://127.0.0.1:0"))
          .build();
      server.start();
      System.out.println("port " + server.getConnectorAddress(0).getPort());
    }
    while (System.in.read() >= 0) { }
    System.exit(0);
  }
}
