package io.edekd.interop;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.Objects;

/**
 * Prints one line of JSON per check on standard output, and waits at named steps for the test that
 * started the program. Whatever else Hadoop prints goes to standard error.
 */
final class Checks {
  interface Action {
    void run() throws Exception;
  }

  interface Value {
    Object get() throws Exception;
  }

  private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
  private final BufferedReader in =
      new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

  Checks() {
    System.setOut(System.err);
  }

  /** Passes if the action returns, fails with the stack trace if it throws. */
  void passes(String name, Action action) {
    String detail = null;
    try {
      action.run();
    } catch (Throwable t) {
      StringWriter trace = new StringWriter();
      t.printStackTrace(new PrintWriter(trace, true));
      detail = trace.toString();
    }
    report(name, detail);
  }

  void equal(String name, Object want, Value got) {
    passes(name, () -> same(want, got.get()));
  }

  /** Passes if the action throws exactly this class, with a message that holds the text. */
  void fails(String name, Class<? extends Throwable> want, String text, Action action) {
    passes(name, () -> {
      try {
        action.run();
      } catch (Throwable t) {
        if (t.getClass() != want || !String.valueOf(t.getMessage()).contains(text)) {
          throw new AssertionError("want " + want.getName() + " with \"" + text + "\"", t);
        }
        return;
      }
      throw new AssertionError("want " + want.getName() + ", nothing was thrown");
    });
  }

  /** Tells the test that this step is reached, and waits until the test has done its part. */
  void step(String name) throws IOException {
    out.println("{\"step\":" + quote(name) + "}");
    String answer = in.readLine();
    if (!name.equals(answer)) {
      throw new IOException("step " + name + ": the test answered " + answer);
    }
  }

  static void same(Object want, Object got) {
    if (!Objects.deepEquals(want, got)) {
      throw new AssertionError("want <" + show(want) + ">, got <" + show(got) + ">");
    }
  }

  static void isTrue(boolean condition, String otherwise) {
    if (!condition) {
      throw new AssertionError(otherwise);
    }
  }

  private void report(String name, String detail) {
    out.println("{\"check\":" + quote(name) + ",\"ok\":" + (detail == null)
        + (detail == null ? "" : ",\"detail\":" + quote(detail)) + "}");
  }

  private static String show(Object o) {
    return o instanceof byte[] ? java.util.Arrays.toString((byte[]) o) : String.valueOf(o);
  }

  private static String quote(String s) {
    StringBuilder b = new StringBuilder("\"");
    for (char c : s.toCharArray()) {
      if (c == '"' || c == '\\') {
        b.append('\\').append(c);
      } else if (c < ' ') {
        b.append(String.format("\\u%04x", (int) c));
      } else {
        b.append(c);
      }
    }
    return b.append('"').toString();
  }
}
