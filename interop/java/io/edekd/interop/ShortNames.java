package io.edekd.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.hadoop.security.authentication.util.KerberosName;

/**
 * Applies Hadoop's name rules. Each line of the input is rules, mechanism and any number of principals, in
 * hexadecimal and divided by spaces; each line of the output has an answer for each principal in the same
 * way: "=" and the short name, or "!" and the exception. Rules that Hadoop refuses have one answer.
 */
public class ShortNames {
  public static void main(String[] args) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.split(" ", -1);
      StringBuilder out = new StringBuilder();
      try {
        KerberosName.setRules(text(words[0]));
        KerberosName.setRuleMechanism(text(words[1]));
      } catch (RuntimeException e) {
        System.out.println(hex("!" + e));
        continue;
      }
      for (int i = 2; i < words.length; i++) {
        String answer;
        try {
          answer = "=" + new KerberosName(text(words[i])).getShortName();
        } catch (Exception e) {
          answer = "!" + e.getMessage();
        }
        out.append(hex(answer)).append(' ');
      }
      System.out.println(out.toString().trim());
    }
  }

  private static String text(String hex) {
    return new String(HexFormat.of().parseHex(hex), StandardCharsets.UTF_8);
  }

  private static String hex(String text) {
    return HexFormat.of().formatHex(text.getBytes(StandardCharsets.UTF_8));
  }
}
