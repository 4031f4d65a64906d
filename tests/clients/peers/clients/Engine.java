import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.GZIPInputStream;
import javax.xml.parsers.SAXParserFactory;
import org.apache.commons.httpclient.HttpClient;
import org.apache.commons.httpclient.MultiThreadedHttpConnectionManager;
import org.apache.commons.httpclient.methods.ByteArrayRequestEntity;
import org.apache.commons.httpclient.methods.PostMethod;
import org.xml.sax.Attributes;
import org.xml.sax.InputSource;
import org.xml.sax.SAXException;
import org.xml.sax.XMLReader;
import org.xml.sax.helpers.DefaultHandler;

/**
 * Sends what oVirt's engine of 3.4 to 3.6 sends, through the HTTP library that it used, and reads as strictly.
 *
 * <p>The engine used Apache XML-RPC 3.1.3, which no package of Debian 12 has, over commons-httpclient 3.1, which is
 * there. So the HTTP is the engine's own, and the XML is written and read here by that library's rules: texts without a
 * type element, an empty params element for no parameters, one line; on the way in a namespace-aware SAX parser, and an
 * error for an unknown type, for text beside a typed value, for a member that comes twice, and for a number beyond 32 bits.
 *
 * <p>Reads calls and writes replies, one a line, in the form that ../line.rs describes.
 */
public class Engine {
    /** What the caller gets when the other side answers with a fault. */
    static class Fault extends Exception {
        final int code;

        Fault(int code, String text) {
            super(text);
            this.code = code;
        }
    }

    // ---- the way out ----

    static void writeText(StringBuilder xml, String text) {
        for (int at = 0; at < text.length(); at++) {
            char letter = text.charAt(at);
            switch (letter) {
                case '&':
                    xml.append("&amp;");
                    break;
                case '<':
                    xml.append("&lt;");
                    break;
                case '>':
                    xml.append("&gt;");
                    break;
                default:
                    if (Character.isSurrogate(letter)) {
                        // Two references for one letter, which is not XML: so did the original.
                        xml.append("&#").append((int) letter).append(';');
                    } else {
                        xml.append(letter);
                    }
            }
        }
    }

    static void writeValue(StringBuilder xml, Object value) {
        xml.append("<value>");
        if (value instanceof String) {
            writeText(xml, (String) value);
        } else if (value instanceof Integer) {
            xml.append("<i4>").append(value).append("</i4>");
        } else if (value instanceof Boolean) {
            xml.append("<boolean>").append((Boolean) value ? "1" : "0").append("</boolean>");
        } else if (value instanceof Double) {
            xml.append("<double>").append(value).append("</double>");
        } else if (value instanceof Object[]) {
            xml.append("<array><data>");
            for (Object item : (Object[]) value) {
                writeValue(xml, item);
            }
            xml.append("</data></array>");
        } else {
            xml.append("<struct>");
            for (Map.Entry<?, ?> member : ((Map<?, ?>) value).entrySet()) {
                xml.append("<member><name>");
                writeText(xml, (String) member.getKey());
                xml.append("</name>");
                writeValue(xml, member.getValue());
                xml.append("</member>");
            }
            xml.append("</struct>");
        }
        xml.append("</value>");
    }

    static byte[] request(String method, List<Object> parameters) {
        StringBuilder xml = new StringBuilder("<?xml version=\"1.0\" encoding=\"UTF-8\"?><methodCall><methodName>");
        writeText(xml, method);
        xml.append("</methodName>");
        if (parameters.isEmpty()) {
            xml.append("<params/>");
        } else {
            xml.append("<params>");
            for (Object parameter : parameters) {
                xml.append("<param>");
                writeValue(xml, parameter);
                xml.append("</param>");
            }
            xml.append("</params>");
        }
        return xml.append("</methodCall>").toString().getBytes(StandardCharsets.UTF_8);
    }

    static Object call(HttpClient client, String url, String method, List<Object> parameters) throws Exception {
        PostMethod post = new PostMethod(url);
        post.setRequestHeader("Content-Type", "text/xml");
        post.setRequestHeader("User-Agent", "Apache XML RPC 3.1.3 (Jakarta Commons httpclient Transport)");
        post.setRequestHeader("FlowID", "1f2e3d4c");
        post.setRequestEntity(new ByteArrayRequestEntity(request(method, parameters), "text/xml"));
        try {
            int status = client.executeMethod(post);
            if (status < 200 || status > 299) {
                throw new IOException("HTTP server returned unexpected status: " + post.getStatusText());
            }
            InputStream body = post.getResponseBodyAsStream();
            // The engine never asks for gzip; its library unpacks what comes packed all the same.
            boolean packed = post.getResponseHeader("Content-Encoding") != null;
            return new Reply().read(packed ? new GZIPInputStream(body) : body);
        } finally {
            post.releaseConnection();
        }
    }

    // ---- the way in ----

    /** Reads a methodResponse. */
    static class Reply extends DefaultHandler {
        /** Elements that are open, each with what it may hold. */
        private final Deque<String> open = new ArrayDeque<>();
        /** Structs and arrays that are open. */
        private final Deque<Object> holders = new ArrayDeque<>();
        private final Deque<String> names = new ArrayDeque<>();
        private final StringBuilder text = new StringBuilder();
        /** Whether a typed value was seen in the innermost open value. */
        private boolean typed;
        private Object result;
        private boolean fault;

        Object read(InputStream body) throws Exception {
            SAXParserFactory factory = SAXParserFactory.newInstance();
            factory.setNamespaceAware(true);
            XMLReader reader = factory.newSAXParser().getXMLReader();
            reader.setContentHandler(this);
            reader.setErrorHandler(this);
            reader.parse(new InputSource(body));
            if (result == null) {
                throw new SAXException("no value in the reply");
            }
            if (fault) {
                Map<?, ?> told = (Map<?, ?>) result;
                throw new Fault((Integer) told.get("faultCode"), (String) told.get("faultString"));
            }
            return result;
        }

        private static void expect(boolean holds, String what) throws SAXException {
            if (!holds) {
                throw new SAXException(what);
            }
        }

        private void noText() throws SAXException {
            expect(text.toString().trim().isEmpty(), "Unexpected non-whitespace characters: " + text);
            text.setLength(0);
        }

        @Override
        public void startElement(String space, String name, String qualified, Attributes attributes)
                throws SAXException {
            noText();
            String parent = open.peek();
            expect(space.isEmpty(), "Unknown type: " + qualified);
            expect(attributes.getLength() == 0, "attributes of " + name);
            boolean fits;
            switch (parent == null ? "" : parent) {
                case "":
                    fits = name.equals("methodResponse");
                    break;
                case "methodResponse":
                    fits = name.equals("params") || name.equals("fault");
                    fault = name.equals("fault");
                    break;
                case "params":
                    fits = name.equals("param");
                    break;
                case "param":
                case "fault":
                case "data":
                    fits = name.equals("value");
                    break;
                case "struct":
                    fits = name.equals("member");
                    break;
                case "member":
                    fits = name.equals("name") || name.equals("value");
                    break;
                case "array":
                    fits = name.equals("data");
                    break;
                case "value":
                    fits = !typed && "i4 int boolean double string struct array".contains(name);
                    break;
                default:
                    fits = false;
            }
            expect(fits, "Unknown type or unexpected element: " + name + " in " + parent);
            typed = false;
            if (name.equals("struct")) {
                holders.push(new HashMap<String, Object>());
            } else if (name.equals("array")) {
                holders.push(new ArrayList<Object>());
            }
            open.push(name);
        }

        @Override
        public void characters(char[] letters, int start, int length) {
            text.append(letters, start, length);
        }

        @Override
        public void endElement(String space, String name, String qualified) throws SAXException {
            open.pop();
            switch (name) {
                case "i4":
                case "int":
                    put(Integer.valueOf(text.toString().trim()));
                    break;
                case "boolean":
                    String digit = text.toString().trim();
                    expect(digit.equals("0") || digit.equals("1"), "Failed to parse boolean value: " + digit);
                    put(digit.equals("1"));
                    break;
                case "double":
                    put(Double.valueOf(text.toString().trim()));
                    break;
                case "string":
                    put(text.toString());
                    break;
                case "name":
                    names.push(text.toString());
                    break;
                case "value":
                    if (typed) {
                        noText();
                    } else {
                        put(text.toString());
                    }
                    typed = false;
                    break;
                case "struct":
                    noText();
                    put(holders.pop());
                    break;
                case "array":
                    noText();
                    put(((List<?>) holders.pop()).toArray());
                    break;
                default:
                    noText();
            }
            text.setLength(0);
        }

        /** A value is whole; it belongs to the innermost open struct or array, or it is the reply. */
        @SuppressWarnings("unchecked")
        private void put(Object value) throws SAXException {
            typed = true;
            Object holder = holders.peek();
            if (holder == null) {
                expect(result == null, "a second value");
                result = value;
            } else if (holder instanceof List) {
                ((List<Object>) holder).add(value);
            } else {
                expect(!names.isEmpty(), "Invalid state: Expected name");
                String name = names.pop();
                Map<String, Object> members = (Map<String, Object>) holder;
                expect(members.put(name, value) == null, "Duplicate name: " + name);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        HttpClient client = new HttpClient(new MultiThreadedHttpConnectionManager());
        client.getHttpConnectionManager().getParams().setConnectionTimeout(2_000);
        client.getHttpConnectionManager().getParams().setSoTimeout(180_000);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream output = new PrintStream(System.out, true, "UTF-8");
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            List<String> tokens = new ArrayList<>(Arrays.asList(line.split("\t", -1)));
            // The engine's own address has no path at all.
            String url = tokens.remove(0).replaceFirst("/$", "");
            String method = tokens.remove(0);
            List<Object> parameters = new ArrayList<>();
            while (!tokens.isEmpty()) {
                parameters.add(Lines.value(tokens));
            }
            List<String> told = new ArrayList<>();
            try {
                told.add("value");
                Lines.tell(call(client, url, method, parameters), told);
            } catch (Fault fault) {
                told = Arrays.asList("fault", "i" + fault.code, Lines.escaped(fault.getMessage()));
            } catch (Exception error) {
                told = Arrays.asList("error", Lines.escaped(error.toString()));
            }
            output.println(String.join("\t", told));
        }
    }
}
