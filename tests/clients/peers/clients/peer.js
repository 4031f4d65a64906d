// JavaScript's most used client, the npm package "xmlrpc", with its defaults. It has one kind of number.
//
// Reads calls and writes replies, one a line, in the form that ../line.rs describes.

'use strict'

const xmlrpc = require('xmlrpc')

const PLAIN = { '\\': '\\', t: '\t', n: '\n', r: '\r' }
const ESCAPES = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' }

const text = (token) => token.replace(/\\(.)/g, (_, letter) => PLAIN[letter])
const escaped = (text) => 's' + text.replace(/[\\\t\n\r]/g, (letter) => ESCAPES[letter])

function value (tokens) {
  const token = tokens.shift()
  const rest = token.slice(1)
  switch (token[0]) {
    case 'i': return parseInt(rest, 10)
    case 'b': return rest === '1'
    case 'd': return parseFloat(rest)
    case 's': return text(rest)
  }
  if (token === '[') {
    const items = []
    while (tokens[0] !== ']') items.push(value(tokens))
    tokens.shift()
    return items
  }
  const members = {}
  for (let name = tokens.shift(); name !== '}'; name = tokens.shift()) {
    members[text(name.slice(1))] = value(tokens)
  }
  return members
}

function told (read) {
  if (Number.isInteger(read)) return ['i' + read]
  if (typeof read === 'number') return ['d' + read]
  if (typeof read === 'boolean') return [read ? 'b1' : 'b0']
  if (typeof read === 'string') return [escaped(read)]
  if (Array.isArray(read)) return ['[', ...read.flatMap(told), ']']
  if (read !== null && read.constructor === Object) {
    return ['{', ...Object.entries(read).flatMap(([name, member]) => [escaped(name), ...told(member)]), '}']
  }
  throw new Error(`cannot tell what ${read} is`)
}

const clients = {}

const answer = (line) => new Promise((resolve) => {
  const [url, method, ...tokens] = line.split('\t')
  const args = []
  while (tokens.length) args.push(value(tokens))
  clients[url] = clients[url] || xmlrpc.createClient(url)
  clients[url].methodCall(method, args, (error, read) => {
    if (error && 'faultCode' in error) resolve(['fault', ...told(error.faultCode), ...told(error.faultString)])
    else if (error) resolve(['error', escaped(String(error))])
    else resolve(['value', ...told(read)])
  })
})

async function main () {
  let waiting = ''
  process.stdin.setEncoding('utf8')
  // Lines are cut by hand: Node's readline also ends a line at U+2028, which is a letter like any other here.
  for await (const piece of process.stdin) {
    const lines = (waiting + piece).split('\n')
    waiting = lines.pop()
    for (const line of lines) process.stdout.write((await answer(line)).join('\t') + '\n')
  }
}

main()
