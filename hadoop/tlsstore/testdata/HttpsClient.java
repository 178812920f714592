import java.io.FileInputStream;
import java.net.URL;
import java.security.KeyStore;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** For each argument "URL,TRUSTSTORE,KEYSTORE,PROTOCOL", of which the last two may be empty, prints what a GET gives. */
public class HttpsClient {
  private static final char[] PASSWORD = "changeit".toCharArray();

  public static void main(String[] args) throws Exception {
    for (String arg : args) {
      String[] part = arg.split(",", -1);
      try {
        System.out.println(get(part[0], part[1], part[2], part[3]));
      } catch (java.io.IOException e) { // an alert, or the connection closed while the request is written
        System.out.println("refused");
      }
    }
  }

  private static String get(String url, String trust, String own, String protocol) throws Exception {
    TrustManagerFactory tmf = TrustManagerFactory.getInstance("PKIX");
    tmf.init(load(trust));
    KeyManagerFactory kmf = KeyManagerFactory.getInstance("SunX509");
    kmf.init(own.isEmpty() ? null : load(own), PASSWORD);
    SSLContext context = SSLContext.getInstance(protocol.isEmpty() ? "TLS" : protocol);
    context.init(kmf.getKeyManagers(), tmf.getTrustManagers(), null);
    HttpsURLConnection c = (HttpsURLConnection) new URL(url).openConnection();
    c.setSSLSocketFactory(context.getSocketFactory());
    int status = c.getResponseCode();
    return status + " " + new String(c.getInputStream().readAllBytes());
  }

  private static KeyStore load(String path) throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    try (FileInputStream in = new FileInputStream(path)) {
      store.load(in, PASSWORD);
    }
    return store;
  }
}
