import de.timroes.axmlrpc.XMLRPCClient;
import de.timroes.axmlrpc.XMLRPCException;
import de.timroes.axmlrpc.XMLRPCServerException;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Java's aXMLRPC over the JDK's own HTTP, with its defaults.
 *
 * <p>Reads calls and writes replies, one a line, in the form that ../line.rs describes.
 */
public class Peer {
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

    public static void main(String[] arguments) throws Exception {
        Map<String, XMLRPCClient> clients = new HashMap<>();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream output = new PrintStream(System.out, true, "UTF-8");
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            List<String> tokens = new ArrayList<>(Arrays.asList(line.split("\t", -1)));
            String url = tokens.remove(0);
            if (!clients.containsKey(url)) {
                clients.put(url, new XMLRPCClient(new URL(url)));
            }
            XMLRPCClient client = clients.get(url);
            String method = tokens.remove(0);
            List<Object> parameters = new ArrayList<>();
            while (!tokens.isEmpty()) {
                parameters.add(value(tokens));
            }
            List<String> told = new ArrayList<>();
            try {
                told.add("value");
                tell(client.call(method, parameters.toArray()), told);
            } catch (XMLRPCServerException fault) {
                // The library puts the code behind the text, in brackets.
                String text = fault.getMessage().replaceFirst(" \\[" + fault.getErrorNr() + "\\]$", "");
                told = Arrays.asList("fault", "i" + fault.getErrorNr(), escaped(text));
            } catch (XMLRPCException | RuntimeException error) {
                told = Arrays.asList("error", escaped(error + ", from " + error.getCause()));
            }
            output.println(String.join("\t", told));
        }
    }
}
