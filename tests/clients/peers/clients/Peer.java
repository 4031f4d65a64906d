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
                parameters.add(Lines.value(tokens));
            }
            List<String> told = new ArrayList<>();
            try {
                told.add("value");
                Lines.tell(client.call(method, parameters.toArray()), told);
            } catch (XMLRPCServerException fault) {
                // The library puts the code behind the text, in brackets.
                String text = fault.getMessage().replaceFirst(" \\[" + fault.getErrorNr() + "\\]$", "");
                told = Arrays.asList("fault", "i" + fault.getErrorNr(), Lines.escaped(text));
            } catch (XMLRPCException | RuntimeException error) {
                told = Arrays.asList("error", Lines.escaped(error + ", from " + error.getCause()));
            }
            output.println(String.join("\t", told));
        }
    }
}
