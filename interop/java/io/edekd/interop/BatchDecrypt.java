package io.edekd.interop;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.net.URLEncoder;
import java.security.GeneralSecurityException;
import java.security.PrivilegedExceptionAction;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.crypto.key.KeyProvider.KeyVersion;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension;
import org.apache.hadoop.crypto.key.KeyProviderCryptoExtension.EncryptedKeyVersion;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.token.delegation.web.DelegationTokenAuthenticatedURL;
import org.apache.hadoop.util.HttpExceptionUtils;
import org.apache.hadoop.util.JsonSerialization;
import org.apache.hadoop.util.KMSUtil;

/**
 * Opens EDEKs by the hundred where the server offers it, and one by one where it does not: what an
 * engine would do that opens many files of one zone at once.
 *
 * <p>One object is for one server. The path of batches is never tried before an answer of that
 * server said that it has them: a Java KMS takes the POST of a path it does not know for the
 * roll-over of a key of that name.
 */
final class BatchDecrypt {
  static final String HEADER = "X-Edekd-Batch";
  private static final int ENTRIES = 1000; // of one request

  private final String rest;
  private final KeyProviderCryptoExtension provider;
  private final DelegationTokenAuthenticatedURL.Token token =
      new DelegationTokenAuthenticatedURL.Token();
  private volatile boolean offered;
  private int batches; // sent

  /** rest is the server's address, http://host:port/kms/v1; provider is for single decrypts. */
  BatchDecrypt(String rest, KeyProviderCryptoExtension provider) {
    this.rest = rest;
    this.provider = provider;
  }

  /** Returns the DEKs of EDEKs of one key, in their order. */
  List<KeyVersion> decrypt(List<EncryptedKeyVersion> edeks)
      throws IOException, GeneralSecurityException {
    List<KeyVersion> deks = new ArrayList<>(edeks.size());
    if (edeks.size() > 1 && (offered || ask())) {
      try {
        while (deks.size() < edeks.size()) {
          int end = Math.min(deks.size() + ENTRIES, edeks.size());
          deks.addAll(send(edeks.subList(deks.size(), end)));
        }
        return deks;
      } catch (IOException | IllegalArgumentException e) {
        // What is wrong with one entry fails its batch, and the server may have been replaced. The
        // rest one by one: that tells which entry, in the words that callers know.
        offered = false;
      }
    }
    for (EncryptedKeyVersion edek : edeks.subList(deks.size(), edeks.size())) {
      deks.add(provider.decryptEncryptedKey(edek));
    }
    return deks;
  }

  /** Asks whether the server has batches, by a request that needs no right and changes nothing. */
  boolean ask() throws IOException {
    HttpURLConnection connection = open("/keys/names");
    connection.setRequestMethod("OPTIONS");
    HttpExceptionUtils.validateResponse(connection, HttpURLConnection.HTTP_OK);
    return see(connection);
  }

  int batches() {
    return batches;
  }

  private boolean see(HttpURLConnection connection) {
    offered = "decrypt".equals(connection.getHeaderField(HEADER));
    return offered;
  }

  private List<KeyVersion> send(List<EncryptedKeyVersion> edeks) throws IOException {
    List<Map<?, ?>> entries = new ArrayList<>(edeks.size());
    for (EncryptedKeyVersion edek : edeks) {
      entries.add(KMSUtil.toJSON(edek));
    }
    String name = URLEncoder.encode(edeks.get(0).getEncryptionKeyName(), "UTF-8");
    HttpURLConnection connection = open("/key/" + name + "/_decryptbatch");
    connection.setRequestMethod("POST");
    connection.setRequestProperty("Content-Type", "application/json");
    connection.setDoOutput(true);
    batches++;
    try (OutputStream out = connection.getOutputStream()) {
      JsonSerialization.writer().writeValue(out, entries);
    }
    HttpExceptionUtils.validateResponse(connection, HttpURLConnection.HTTP_OK);
    see(connection);
    List<KeyVersion> deks = new ArrayList<>(edeks.size());
    try (InputStream in = connection.getInputStream()) {
      for (Object dek : JsonSerialization.mapReader().forType(List.class).<List<?>>readValue(in)) {
        deks.add(KMSUtil.parseJSONKeyVersion((Map<?, ?>) dek));
      }
    }
    if (deks.size() != edeks.size()) {
      throw new IOException(deks.size() + " keys for " + edeks.size());
    }
    return deks;
  }

  /** Opens a connection as the user whom the KMS client would name. */
  private HttpURLConnection open(String path) throws IOException {
    UserGroupInformation user = UserGroupInformation.getCurrentUser();
    UserGroupInformation real = user.getRealUser() == null ? user : user.getRealUser();
    String doAs = user.getRealUser() == null ? null : user.getShortUserName();
    try {
      return real.doAs((PrivilegedExceptionAction<HttpURLConnection>) () ->
          new DelegationTokenAuthenticatedURL().openConnection(new URL(rest + path), token, doAs));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException(e);
    }
  }
}
