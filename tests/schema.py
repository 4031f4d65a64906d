#!/usr/bin/env python3
"""Lists what libvirt's schemas know of domains: every element in its parent, with attributes and text (#).

    tests/schema.py /usr/share/libvirt/schemas [FOLDER of another release ...] > src/daemon/policy/schema.txt

The first line of schema.txt, which says of which releases it is, is written by hand.
"""

import os
import sys
import xml.etree.ElementTree as tree

RNG = "{http://relaxng.org/ns/structure/1.0}"


def definitions(folder):
    defines, done = {}, set()

    def add(node):
        if node.tag == RNG + "define":
            defines.setdefault(node.get("name"), []).append(node)
        elif node.tag in (RNG + "div", RNG + "include"):
            for child in node:
                add(child)

    def read(name):
        if name in done:
            return
        done.add(name)
        root = tree.parse(os.path.join(folder, name)).getroot()
        for node in root.iter(RNG + "include"):
            read(node.get("href"))
        for node in root:
            add(node)

    overrides = os.path.exists(os.path.join(folder, "domainoverrides.rng"))
    read("domainoverrides.rng" if overrides else "domaincommon.rng")
    return defines


def names(node):
    if node.get("name"):
        return [node.get("name")]
    first = next(iter(node), None)
    return [] if first is None else [name.text for name in first.iter(RNG + "name")]


def has_text(node, defines, seen=frozenset()):
    for child in node:
        if child.tag in (RNG + "value", RNG + "data", RNG + "text"):
            return True
        if child.tag == RNG + "ref":
            name = child.get("name")
            inner = [] if name in seen else defines.get(name, [])
            if any(has_text(one, defines, seen | {name}) for one in inner):
                return True
        elif child.tag not in (RNG + "attribute", RNG + "element") and has_text(child, defines, seen):
            return True
    return False


def known(folder):
    defines, found, walked = definitions(folder), {}, set()

    def walk(node, path, refs):
        for child in node:
            if child.tag == RNG + "ref":
                name = child.get("name")
                for one in [] if name in refs else defines.get(name, []):
                    walk(one, path, refs | {name})
            elif child.tag == RNG + "element":
                for name in names(child):
                    values = found.setdefault((*path[-1:], name), set())
                    if has_text(child, defines):
                        values.add("#")
                    if (id(child), path[-1:]) not in walked:
                        walked.add((id(child), path[-1:]))
                        walk(child, (*path, name), frozenset())
            elif child.tag == RNG + "attribute":
                found[path[-2:]].update(names(child))
            else:
                walk(child, path, refs)

    for one in defines["domain"]:
        walk(one, (), frozenset())
    return found


def main():
    together = {}
    for folder in sys.argv[1:]:
        for place, values in known(folder).items():
            together.setdefault(place, set()).update(values)
    # What others put there is theirs.
    together[("domain", "metadata")] = set()
    for place, values in sorted(together.items()):
        print(" ".join([">".join(place), *sorted(values)]))


main()
