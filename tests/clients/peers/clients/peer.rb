# Ruby's xmlrpc/client, with its defaults.
#
# Reads calls and writes replies, one a line, in the form that ../line.rs describes.

require 'xmlrpc/client'

PLAIN = { '\\' => '\\', 't' => "\t", 'n' => "\n", 'r' => "\r" }.freeze
ESCAPES = PLAIN.invert.freeze

def text(token)
  token.gsub(/\\(.)/) { PLAIN[$1] }
end

def escaped(text)
  's' + text.gsub(/[\\\t\n\r]/) { |letter| '\\' + ESCAPES[letter] }
end

def value(tokens)
  token = tokens.shift
  rest = token[1..]
  case token[0]
  when 'i' then Integer(rest)
  when 'b' then rest == '1'
  when 'd' then Float(rest)
  when 's' then text(rest)
  when '['
    items = []
    items << value(tokens) until tokens.first == ']'
    tokens.shift
    items
  when '{'
    members = {}
    until (name = tokens.shift) == '}'
      members[text(name[1..])] = value(tokens)
    end
    members
  end
end

def told(read)
  case read
  when Integer then ["i#{read}"]
  when true then ['b1']
  when false then ['b0']
  when Float then ["d#{read}"]
  when String then [escaped(read)]
  when Array then ['[', *read.flat_map { |item| told(item) }, ']']
  when Hash then ['{', *read.flat_map { |name, member| [escaped(name), *told(member)] }, '}']
  else raise "#{read.class} is no type of XML-RPC without extensions"
  end
end

$stdin.set_encoding('UTF-8')
$stdout.set_encoding('UTF-8')
$stdout.sync = true
clients = Hash.new { |made, url| made[url] = XMLRPC::Client.new2(url) }
while (line = $stdin.gets)
  url, method, *tokens = line.chomp.split("\t", -1)
  arguments = []
  arguments << value(tokens) until tokens.empty?
  begin
    reply = ['value', *told(clients[url].call(method, *arguments))]
  rescue XMLRPC::FaultException => fault
    reply = ['fault', "i#{fault.faultCode}", escaped(fault.faultString)]
  rescue StandardError => error
    reply = ['error', escaped("#{error.class}: #{error.message}")]
  end
  puts reply.join("\t")
end
