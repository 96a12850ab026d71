#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Shows the floors of rust/kernel/dma/ and what each of them imports, and checks that no floor knows one
above it: in code, in examples and in links of the documentation. Then the switches of Kconfig, and that
none of another folder gates code in rust/.

A floor is a folder with a root file. Paths are followed through `pub use` to where an item is at home.
Test code (the simulated bus, fixtures, tests) may import anything, and may be called from below where a
switch says so. A bus may import dma; dma imports no bus."""

import collections
import dataclasses
import itertools
import pathlib
import re

import stages
from common import REPO, main, say

KERNEL = REPO / "rust/kernel"

# A floor is over all those with a smaller number, and may import them. Those of one number may import
# each other, as long as they don't do so in a circle.
HEIGHTS = {"base": 0, "mapping": 1, "session": 2, "transfer": 3, "ring": 3, "queue": 3, "dmaengine": 3, "bus": 4}
TESTS = ("sim", "fixture", "ensure", "tests", "bench")

# Modules of the kernel crate that know dma. Its documentation may speak of them: they are there before it.
BUSES = ("pci", "platform", "auxiliary")

# What code names without `crate`, if it is imported.
ROOTS = ("dma", *BUSES)

TOKEN = re.compile(r"""
    (?P<doc>//[/!][^\n]*) | (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<text>b?c?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]+?|[^\\\n])')
  | (?P<lifetime>'\w+)
  | (?P<word>\w+) | (?P<path>::) | (?P<mark>[{}();,*#\[\]=]) | (?P<other>\S)
""", re.X | re.S)

ITEM = re.compile(r"^(?P<indent> *)pub (?:const |unsafe |extern \"C\" )*"
                  r"(?:fn|struct|enum|trait|union|type|const|static|macro) ", re.M)
SWITCHED = re.compile(r"cfg\([^\n]*CONFIG_RUST_DMA_")


@dataclasses.dataclass(frozen=True)
class Import:
    """A path that a file names, in full, and where. `kind` is where it stands: code, a hook that a
    switch takes away, or documentation."""

    file: str
    line: int
    kind: str
    path: tuple

    def __str__(self):
        return f"{self.file}:{self.line}: {'::'.join(self.path)}"


def module_of(path):
    """A file's module, as a path below the crate."""
    return tuple(path.relative_to(KERNEL).with_suffix("").parts)


def tree_paths(tokens, prefix, at):
    """The paths in a tree of imports that begins at a token. Returns them, each with the number of its
    first token, and the number of the token after the tree."""
    path, first, found = list(prefix), at, []
    while at < len(tokens):
        kind, word, _ = tokens[at]
        if kind == "word" and word == "as":
            at += 2
        elif kind == "word" or word == "*":
            path.append(word)
            at += 1
        elif kind == "path":
            at += 1
        elif word == "{":
            at += 1
            while tokens[at][1] != "}":
                inner, at = tree_paths(tokens, path, at)
                found += inner
                if tokens[at][1] == ",":
                    at += 1
            return found, at + 1
        else:
            break
    return found + [(tuple(path), first)], at


def tokens_of(text):
    """The tokens of some Rust code, without comments and strings: kind, text, offset."""
    return [(match.lastgroup, match[0], match.start()) for match in TOKEN.finditer(text)
            if match.lastgroup not in ("comment", "text", "lifetime")]


def absolute(path, module):
    """A path from the crate's root, or None if it is of another crate, or no path at all."""
    if not path:
        return None
    if path[0] in ("crate", "$crate", "kernel"):
        return path[1:]
    if path[0] not in ("self", "super"):
        return None
    module = list(module)
    while path and path[0] in ("self", "super"):
        if path[0] == "super":
            module = module[:-1]
        path = path[1:]
    return (*module, *path)


def imports(file, text, module):
    """The imports of a file."""
    lines = list(itertools.accumulate((len(line) for line in text.splitlines(keepends=True)), initial=0))

    def at_line(offset):
        return sum(start <= offset for start in lines)

    found, docs = [], []
    tokens = []
    for token in tokens_of(text):
        (docs if token[0] == "doc" else tokens).append(token)
    # Inline modules, blocks that a switch takes away, and how deep each of them is.
    scopes, depth, at = [], 0, 0
    switched = None
    while at < len(tokens):
        kind, word, offset = tokens[at]
        inside = [name for name, _, _ in scopes if name]
        hidden = any(hook for _, _, hook in scopes) or switched is not None
        if word == "#":
            end = text.index("\n", offset) if "\n" in text[offset:] else len(text)
            if SWITCHED.search(text[offset:end]) and "not(" not in text[offset:end]:
                switched = depth
        elif word == "{":
            depth += 1
            named = tokens[at - 1][1] if at >= 2 and tokens[at - 2][1] == "mod" else ""
            scopes.append((named, depth, switched == depth - 1 and switched is not None))
            if switched == depth - 1:
                switched = None
        elif word == "}":
            if scopes:
                scopes.pop()
            depth -= 1
        elif word in ";," and switched == depth:
            switched = None
        elif kind == "word" and word == "use":
            paths, end = tree_paths(tokens, (), at + 1)
            for path, where in paths:
                found.append((tokens[where][2], path, inside, hidden))
            if switched == depth:
                switched = None
            at = end
            continue
        elif kind == "word" and word in ("crate", "kernel", "super", "self", *ROOTS) \
                and tokens[at + 1:at + 2] and tokens[at + 1][0] == "path" \
                and (at == 0 or tokens[at - 1][0] != "path"):
            path, end = [word], at + 1
            while end + 1 < len(tokens) and tokens[end][0] == "path" and tokens[end + 1][0] == "word":
                path.append(tokens[end + 1][1])
                end += 2
            found.append((offset, tuple(path), inside, hidden))
            at = end
            continue
        at += 1
    result = []
    known = {absolute(path, (*module, *inside)) for _, path, inside, _ in found}
    for offset, path, inside, hidden in found:
        if path[:1] and path[0] in ROOTS and {(path[0],), (path[0], "self")} & known:
            path = ("crate", *path)
        full = absolute(path, (*module, *inside))
        if full:
            kind = "test" if any(name in ("tests", "test") for name in inside) else "hook" if hidden else "code"
            result.append(Import(file, at_line(offset), kind, full))
    return result + documented(file, module, docs, at_line)


def documented(file, module, docs, at_line):
    """The imports of examples, and what the documentation links to."""
    result, block, start = [], [], None

    def flush():
        if block:
            text = "\n".join(line for _, line in block)
            tokens = [token for token in tokens_of(text) if token[0] != "doc"]
            for at, (kind, word, offset) in enumerate(tokens):
                if kind == "word" and word == "use":
                    paths, _ = tree_paths(tokens, (), at + 1)
                    line = block[text.count("\n", 0, offset)][0]
                    for path, _ in paths:
                        if full := absolute(path, module):
                            result.append(Import(file, line, "docs", full))
        block.clear()

    for _, doc, offset in docs:
        body = re.sub(r"^//[/!] ?", "", doc)
        if body.strip().startswith("```"):
            flush()
            start = None if start is not None else offset
        elif start is not None:
            block.append((at_line(offset), re.sub(r"^# ", "", body)))
        for target in re.findall(r"\]\(((?:crate|kernel|super|self)::[\w:]+)", body):
            if full := absolute(tuple(target.split("::")), module):
                result.append(Import(file, at_line(offset), "docs", full))
    flush()
    return result


class House:
    """The files of rust/kernel/dma/, those of the buses beside it, and where items are at home."""

    def __init__(self):
        paths = [*(KERNEL / "dma").rglob("*.rs")]
        for bus in BUSES:
            paths += [KERNEL / f"{bus}.rs", *(KERNEL / bus).rglob("*.rs")]
        self.texts = {module_of(path): path.read_text() for path in sorted(paths) if path.exists()}
        self.homes = {}
        for module, text in self.texts.items():
            if len(module) == 2 and module[0] == "dma":
                self.exports(module, text)

    def exports(self, root, text):
        """Notes what a floor's root lets others see in its own place: at kernel::dma."""
        tokens = [token for token in tokens_of(text) if token[0] != "doc"]
        for at, (kind, word, _) in enumerate(tokens):
            if kind != "word" or word not in ("use", "mod"):
                continue
            if not any(before[1] == "pub" for before in tokens[max(0, at - 5):at]):
                continue
            for path, _ in tree_paths(tokens, (), at + 1)[0]:
                self.homes.setdefault(path[-1], root[1])
        for name in re.findall(r"^pub[^\n]*? (?:fn|struct|enum|trait|union|type|const|static) (\w+)", text, re.M):
            self.homes.setdefault(name, root[1])

    def floor(self, path):
        """The floor of a module or an item, by its path below the crate; "" if it is none of ours."""
        if path[0] in BUSES:
            return "bus"
        if path[0] != "dma":
            return ""
        if len(path) == 1:
            return "base"
        if path[1] in HEIGHTS or path[1] in TESTS:
            return path[1]
        return self.homes.get(path[1], "base")

    def imports(self):
        """All imports between floors: from, to, Import."""
        for module, text in self.texts.items():
            here = self.floor(module)
            file = "rust/kernel/" + "/".join(module) + ".rs"
            for one in imports(file, text, module):
                there = self.floor(one.path)
                if there and there != here:
                    yield here, there, one


def is_test(floor):
    """Whether a floor is one of test code."""
    return floor in TESTS


def complaint(here, there, one):
    """What is wrong with an import; "" if nothing is."""
    if is_test(here) or one.kind == "test":
        return ""
    if is_test(there):
        return "" if one.kind == "hook" or one.kind == "docs" else "test code, which no switch takes away"
    if there == "bus" and one.kind == "docs":
        return ""
    if HEIGHTS[there] > HEIGHTS[here]:
        return "a bus" if there == "bus" else f"{there}, which is above {here}"
    return ""


def circles(edges):
    """Floors that import each other, as lists."""
    reached = {here: set(there) for here, there in edges.items()}
    for middle, here in itertools.product(list(reached), list(reached)):
        if middle in reached[here]:
            reached[here] |= reached[middle]
    return sorted({tuple(sorted(other for other in reached if other in reached[one] and one in reached[other]))
                   for one in reached if one in reached[one]})


def volumes(house):
    """Of each floor: lines, lines of code, public items, public methods."""
    result = collections.defaultdict(lambda: [0, 0, 0, 0])
    for module, text in house.texts.items():
        lines = text.splitlines()
        code = [line for line in lines if line.strip() and not line.strip().startswith("//")]
        items = [len(match["indent"]) for match in ITEM.finditer(text)]
        row = (len(lines), len(code), items.count(0), len(items) - items.count(0))
        total = result[house.floor(module)]
        total[:] = [before + more for before, more in zip(total, row)]
    return result


def table(house, edges):
    """A line for each floor, the highest first."""
    rows = [("floor", "lines", "code", "items", "methods", "imports")]
    found = volumes(house)
    order = sorted(found, key=lambda floor: (-HEIGHTS.get(floor, 9), floor))
    rows += [(floor, *map(str, found[floor]), " ".join(sorted(edges.get(floor, ()))) or "-") for floor in order]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in
                                                           zip(row[1:5], widths[1:])), row[5]]) for row in rows)


def look():
    """What there is to say: the table, and complaints."""
    house = House()
    edges, complaints = collections.defaultdict(set), collections.defaultdict(list)
    for here, there, one in house.imports():
        if one.kind == "code":
            edges[here].add(there)
        if text := complaint(here, there, one):
            complaints[here, text].append(one)
    lines = []
    for (here, text), members in sorted(complaints.items()):
        lines.append(f"{here} imports {text}:")
        lines += [f"    {one}{' (documentation)' if one.kind == 'docs' else ''}" for one in members]
    firm = {here: {there for there in edges[here] if not is_test(there)} for here in edges if not is_test(here)}
    lines += [f"a circle: {' <-> '.join(circle)}" for circle in circles(firm) if len(circle) > 1]
    return table(house, edges), lines


def switches():
    """The switches of ours: name to the file that defines it, or whose hunk does."""
    texts = {path: (REPO / path).read_text() for path in stages.overlay_paths() if "/Kconfig" in path}
    texts |= {path: re.sub(r"^\+", "", commit.diff, flags=re.M) for commit in stages.commits()
              for path in commit.touched if "/Kconfig" in path}
    return {name: path for path, text in texts.items()
            for name in re.findall(r"^(?:menu)?config (\w+)$", text, re.M)}


def look_at_switches(defined):
    """What is wrong with switches, as lines."""
    lines = []
    for path in stages.overlay_paths():
        if pathlib.PurePosixPath(path).suffix not in (".rs", ".c", ".h"):
            continue
        for name in sorted(set(re.findall(r"\bCONFIG_(\w*(?:DMA_RS|RUST_DMA)\w*)", (REPO / path).read_text()))):
            if name not in defined:
                lines.append(f"{path}: nothing defines {name}")
            elif path.startswith("rust/") and not defined[name].startswith("rust/"):
                lines.append(f"{path}: gated by {name} of {defined[name]}")
    return lines


def cli():
    """Command line."""
    shown, complaints = look()
    say(shown)
    defined = switches()
    say("\n" + "\n".join(f"{name:<28}{path}" for name, path in sorted(defined.items(), key=lambda one: one[::-1])))
    complaints += look_at_switches(defined)
    if complaints:
        say("\n" + "\n".join(complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    main(cli)
