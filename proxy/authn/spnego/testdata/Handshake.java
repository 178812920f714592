import java.net.HttpURLConnection;
import java.net.URL;
import java.security.PrivilegedExceptionAction;
import java.util.Base64;
import java.util.Map;
import javax.security.auth.Subject;
import javax.security.auth.login.AppConfigurationEntry;
import javax.security.auth.login.Configuration;
import javax.security.auth.login.LoginContext;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.GSSName;
import org.ietf.jgss.Oid;

/**
 * Authenticates to an HTTP server with the JDK's Kerberos, and prints one line for each way:
 * first with the two mechanisms driven by hand, as Hadoop drives the first, then as
 * HttpURLConnection does by itself; when that ends with a challenge it goes on by hand, which is
 * what Hadoop's KerberosAuthenticator does, too.
 *
 * <p>Arguments: principal, keytab, URL, and "jdk" for the last way only.
 */
public final class Handshake {
  private static final Oid KRB5 = oid("1.2.840.113554.1.2.2");
  private static final Oid SPNEGO = oid("1.3.6.1.5.5.2");

  private final String principal;
  private final String keytab;
  private final String url;

  private final boolean byItself;

  private Handshake(String[] args) {
    principal = args[0];
    keytab = args[1];
    url = args[2];
    byItself = args.length > 3 && args[3].equals("jdk");
  }

  public static void main(String[] args) throws Exception {
    new Handshake(args).run();
  }

  private void run() throws Exception {
    Subject subject = login();
    Subject.doAs(subject, (PrivilegedExceptionAction<Void>) () -> {
      if (!byItself) {
        byHand("raw", KRB5, true);
        byHand("spnego", SPNEGO, true);
        byHand("raw one-way", KRB5, false);
        byHand("spnego one-way", SPNEGO, false);
      }
      HttpURLConnection c = (HttpURLConnection) new URL(url).openConnection();
      System.out.println("jdk: " + c.getResponseCode() + " " + c.getHeaderField("X-Principal"));
      if (c.getResponseCode() == HttpURLConnection.HTTP_UNAUTHORIZED
          && "Negotiate".equals(c.getHeaderField("WWW-Authenticate"))) {
        byHand("challenged", KRB5, true);
      }
      return null;
    });
  }

  private void byHand(String name, Oid mechanism, boolean mutual) throws Exception {
    GSSManager manager = GSSManager.getInstance();
    GSSName server = manager.createName("HTTP@" + new URL(url).getHost(), GSSName.NT_HOSTBASED_SERVICE);
    GSSContext context = manager.createContext(server, mechanism, null, GSSContext.DEFAULT_LIFETIME);
    context.requestMutualAuth(mutual);
    context.requestCredDeleg(true);
    byte[] token = context.initSecContext(new byte[0], 0, 0);
    HttpURLConnection c = (HttpURLConnection) new URL(url).openConnection();
    c.setRequestMethod("OPTIONS");
    c.setRequestProperty("Authorization", "Negotiate " + Base64.getEncoder().encodeToString(token));
    int status = c.getResponseCode();
    String reply = c.getHeaderField("WWW-Authenticate");
    if (reply != null && reply.startsWith("Negotiate ")) {
      byte[] answer = Base64.getDecoder().decode(reply.substring("Negotiate ".length()));
      context.initSecContext(answer, 0, answer.length);
    }
    System.out.println(name + ": " + status + " " + c.getHeaderField("X-Principal")
        + " established=" + context.isEstablished() + " mutual=" + context.getMutualAuthState());
    context.dispose();
  }

  private Subject login() throws Exception {
    Subject subject = new Subject();
    Configuration configuration = new Configuration() {
      @Override
      public AppConfigurationEntry[] getAppConfigurationEntry(String name) {
        return new AppConfigurationEntry[] {
          new AppConfigurationEntry("com.sun.security.auth.module.Krb5LoginModule",
              AppConfigurationEntry.LoginModuleControlFlag.REQUIRED,
              Map.of("useKeyTab", "true", "keyTab", keytab, "principal", principal,
                  "storeKey", "true", "doNotPrompt", "true", "isInitiator", "true"))
        };
      }
    };
    new LoginContext("client", subject, null, configuration).login();
    return subject;
  }

  private static Oid oid(String text) {
    try {
      return new Oid(text);
    } catch (org.ietf.jgss.GSSException e) {
      throw new IllegalStateException(e);
    }
  }
}
