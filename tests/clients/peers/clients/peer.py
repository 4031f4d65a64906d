"""Python's own xmlrpc.client, with its defaults: the peer that all others are compared with.

Reads calls and writes replies, one a line, in the form that ../line.rs describes.
"""

import sys
import xmlrpc.client

ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
PLAIN = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def text(token):
    parts = iter(token)
    return "".join(PLAIN[next(parts)] if part == "\\" else part for part in parts)


def value(token, tokens):
    if token == "[":
        return [value(item, tokens) for item in iter(lambda: next(tokens), "]")]
    if token == "{":
        return {text(name[1:]): value(next(tokens), tokens) for name in iter(lambda: next(tokens), "}")}
    kind, rest = token[0], token[1:]
    return {"i": int, "b": lambda word: word == "1", "d": float, "s": text}[kind](rest)


def told(read):
    if isinstance(read, bool):
        return ["b1" if read else "b0"]
    if isinstance(read, int):
        return [f"i{read}"]
    if isinstance(read, float):
        return [f"d{read!r}"]
    if isinstance(read, str):
        return ["s" + "".join(ESCAPES.get(character, character) for character in read)]
    if isinstance(read, list):
        return ["[", *(token for item in read for token in told(item)), "]"]
    if isinstance(read, dict):
        members = (token for name, member in read.items() for token in [*told(name), *told(member)])
        return ["{", *members, "}"]
    raise TypeError(f"{type(read)} is no type of XML-RPC without extensions")


def main():
    sys.stdin.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    servers = {}
    for line in sys.stdin:
        url, method, *rest = line.removesuffix("\n").split("\t")
        tokens = iter(rest)
        arguments = [value(token, tokens) for token in tokens]
        server = servers.setdefault(url, xmlrpc.client.ServerProxy(url))
        try:
            reply = ["value", *told(getattr(server, method)(*arguments))]
        except xmlrpc.client.Fault as fault:
            reply = ["fault", *told(fault.faultCode), *told(fault.faultString)]
        except Exception as error:
            reply = ["error", *told(repr(error))]
        print("\t".join(reply), flush=True)


main()
