import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The form of the lines that ../line.rs describes, for both Java clients. */
class Lines {
    static String text(String token) {
        StringBuilder text = new StringBuilder();
        for (int at = 0; at < token.length(); at++) {
            char letter = token.charAt(at);
            if (letter == '\\') {
                letter = token.charAt(++at);
                letter = letter == 't' ? '\t' : letter == 'n' ? '\n' : letter == 'r' ? '\r' : letter;
            }
            text.append(letter);
        }
        return text.toString();
    }

    static String escaped(String text) {
        String rest = text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r");
        return "s" + rest;
    }

    static Object value(List<String> tokens) {
        String token = tokens.remove(0);
        String rest = token.substring(1);
        switch (token.charAt(0)) {
            case 'i':
                return Integer.valueOf(rest);
            case 'b':
                return rest.equals("1");
            case 'd':
                return Double.valueOf(rest);
            case 's':
                return text(rest);
            case '[':
                List<Object> items = new ArrayList<>();
                while (!tokens.get(0).equals("]")) {
                    items.add(value(tokens));
                }
                tokens.remove(0);
                return items.toArray();
            default:
                Map<String, Object> members = new HashMap<>();
                while (!tokens.get(0).equals("}")) {
                    String name = text(tokens.remove(0).substring(1));
                    members.put(name, value(tokens));
                }
                tokens.remove(0);
                return members;
        }
    }

    static void tell(Object read, List<String> told) {
        if (read instanceof Integer) {
            told.add("i" + read);
        } else if (read instanceof Boolean) {
            told.add((Boolean) read ? "b1" : "b0");
        } else if (read instanceof Double) {
            told.add("d" + read);
        } else if (read instanceof String) {
            told.add(escaped((String) read));
        } else if (read instanceof Object[]) {
            told.add("[");
            for (Object item : (Object[]) read) {
                tell(item, told);
            }
            told.add("]");
        } else if (read instanceof Map) {
            told.add("{");
            for (Map.Entry<?, ?> member : ((Map<?, ?>) read).entrySet()) {
                told.add(escaped((String) member.getKey()));
                tell(member.getValue(), told);
            }
            told.add("}");
        } else {
            throw new IllegalArgumentException("cannot tell what " + read + " is");
        }
    }
}
