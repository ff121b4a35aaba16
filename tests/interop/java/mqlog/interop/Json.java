package mqlog.interop;

import java.util.List;
import java.util.Map;

/** One JSON object a line, written field by field. */
final class Json {
    private final StringBuilder text = new StringBuilder("{");

    Json put(String name, long value) {
        return name(name, Long.toString(value));
    }

    Json put(String name, String value) {
        return name(name, quote(value));
    }

    Json put(String name, Map<String, String> values) {
        StringBuilder object = new StringBuilder("{");
        for (Map.Entry<String, String> entry : values.entrySet()) {
            object.append(object.length() > 1 ? "," : "").append(quote(entry.getKey())).append(':').append(quote(entry.getValue()));
        }
        return name(name, object.append('}').toString());
    }

    Json put(String name, List<Long> values) {
        return name(name, values.toString());
    }

    private Json name(String name, String json) {
        text.append(text.length() > 1 ? "," : "").append(quote(name)).append(':').append(json);
        return this;
    }

    private static String quote(String value) {
        StringBuilder quoted = new StringBuilder(value.length() + 2).append('"');
        for (int i = 0; i < value.length(); i++) {
            char c = value.charAt(i);
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < 0x20) {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }

    @Override
    public String toString() {
        return text + "}";
    }
}
