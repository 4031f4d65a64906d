// Go's github.com/kolo/xmlrpc, with its defaults. It reads an empty text as nil.
//
// Reads calls and writes replies, one a line, in the form that ../line.rs describes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/kolo/xmlrpc"
)

var (
	escapes = strings.NewReplacer("\\", "\\\\", "\t", "\\t", "\n", "\\n", "\r", "\\r")
	plain   = strings.NewReplacer("\\\\", "\\", "\\t", "\t", "\\n", "\n", "\\r", "\r")
	// What the library returns for a fault has passed net/rpc, which keeps only the words.
	fault = regexp.MustCompile(`(?s)^Fault\((-?\d+)\): (.*)$`)
)

func value(tokens *[]string) interface{} {
	token := (*tokens)[0]
	*tokens = (*tokens)[1:]
	rest := token[1:]
	switch token[0] {
	case 'i':
		number, err := strconv.Atoi(rest)
		must(err)
		return number
	case 'b':
		return rest == "1"
	case 'd':
		number, err := strconv.ParseFloat(rest, 64)
		must(err)
		return number
	case 's':
		return plain.Replace(rest)
	case '[':
		items := []interface{}{}
		for (*tokens)[0] != "]" {
			items = append(items, value(tokens))
		}
		*tokens = (*tokens)[1:]
		return items
	}
	members := map[string]interface{}{}
	for (*tokens)[0] != "}" {
		name := plain.Replace((*tokens)[0][1:])
		*tokens = (*tokens)[1:]
		members[name] = value(tokens)
	}
	*tokens = (*tokens)[1:]
	return members
}

func told(read interface{}) []string {
	switch read := read.(type) {
	case nil:
		return []string{"n"}
	case int64:
		return []string{fmt.Sprintf("i%d", read)}
	case bool:
		if read {
			return []string{"b1"}
		}
		return []string{"b0"}
	case float64:
		return []string{fmt.Sprintf("d%g", read)}
	case string:
		return []string{"s" + escapes.Replace(read)}
	case []interface{}:
		items := []string{"["}
		for _, item := range read {
			items = append(items, told(item)...)
		}
		return append(items, "]")
	case map[string]interface{}:
		members := []string{"{"}
		for name, member := range read {
			members = append(append(members, "s"+escapes.Replace(name)), told(member)...)
		}
		return append(members, "}")
	}
	return []string{fmt.Sprintf("?%T", read)}
}

func answer(client *xmlrpc.Client, method string, tokens []string) []string {
	arguments := []interface{}{}
	for len(tokens) > 0 {
		arguments = append(arguments, value(&tokens))
	}
	var read interface{}
	err := client.Call(method, arguments, &read)
	if err == nil {
		return append([]string{"value"}, told(read)...)
	}
	if parts := fault.FindStringSubmatch(err.Error()); parts != nil {
		return []string{"fault", "i" + parts[1], "s" + escapes.Replace(parts[2])}
	}
	return []string{"error", "s" + escapes.Replace(err.Error())}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	clients := map[string]*xmlrpc.Client{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		tokens := strings.Split(lines.Text(), "\t")
		url := tokens[0]
		if clients[url] == nil {
			client, err := xmlrpc.NewClient(url, nil)
			must(err)
			clients[url] = client
		}
		fmt.Println(strings.Join(answer(clients[url], tokens[1], tokens[2:]), "\t"))
	}
	must(lines.Err())
}
