#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Says of each function, macro and attribute that include/linux/dma-mapping.h and dmapool.h have for
drivers by what a Rust driver gets the same, who uses that, and who tests it; or why there is nothing.
Fails where neither is said, where what is said isn't so, or if Documentation/rust/dma/coverage.rst isn't
what comes of it."""

import argparse
import collections
import dataclasses
import pathlib
import re
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

# pylint: disable=wrong-import-position
import source
from common import REPO, Fail, lock, main, say, write

SAID = HERE / "coverage.toml"
PAGE = REPO / "Documentation/rust/dma/coverage.rst"
HEADERS = ("include/linux/dma-mapping.h", "include/linux/dmapool.h")

# Where Rust items are defined that aren't ours, and where items are used and tested.
THEIRS = ("rust/kernel/dma.rs",)
USERS = ("drivers/dma-rs", "samples/rust")
TESTS = re.compile(r"(?:^|/)(?:\w+_)?tests?(?:\.rs|/)|^drivers/dma-rs/controls/")

FUNCTION = re.compile(r"^(?:(?:static|inline|extern|const|struct|unsigned|enum)\s+)*\w+[\s*]+(\w+)\s*\(", re.M)
MACRO = re.compile(r"^#\s*define\s+(\w+)\(", re.M)
ATTRIBUTE = re.compile(r"^#\s*define\s+(\w*DMA_ATTR_\w+)\b", re.M)

IMPL = re.compile(r"^(?:unsafe )?impl(?:<.*?>+)?\s+(?:.*?\bfor\s+)?(?:\w+::)*(\w+)\b")
METHOD = re.compile(r"^    pub (?:(?:const |unsafe )*fn|const) (\w+)")
TOP = re.compile(r"^\s*pub (?:const |unsafe )*(?:fn|struct|enum|trait|type|const|static|mod) (\w+)")
MACRO_RULES = re.compile(r"^macro_rules! (\w+)")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is said of a C name: Rust items, or why there are none; both, if there is only a part."""

    name: str
    items: tuple
    why: str


def c_names(folder):
    """The names in the headers, in their order, and those that are the core's own."""
    found = {}
    for header in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", (folder / header).read_text(), flags=re.S)
        code = re.sub(r"^#(?:.*\\\n)*.*$", "", text, flags=re.M)
        for pattern, content in ((FUNCTION, code), (MACRO, text), (ATTRIBUTE, text)):
            found.update((name, header) for name in pattern.findall(content))
    return found


def sources(folder, names):
    """Rust files below some folders: path to text."""
    found = {}
    for name in names:
        path = folder / name
        for file in ([path] if path.is_file() else sorted(path.rglob("*.rs"))):
            found[str(file.relative_to(folder))] = file.read_text()
    return found


def defined(files):
    """The names of public items, and of methods with their type."""
    found = set()
    for path, text in files.items():
        if TESTS.search(path):
            continue
        subject = None
        for line in text.splitlines():
            if match := IMPL.match(line):
                subject = match[1]
            elif line.startswith("}"):
                subject = None
            elif (match := METHOD.match(line)) and subject:
                found.add(f"{subject}::{match[1]}")
            elif (match := TOP.match(line) or MACRO_RULES.match(line)):
                found.add(match[1])
    return found


def mentions(item, text, unique=False):
    """Whether a file uses an item; `unique` is a method that only one type has."""
    kind, _, method = item.rpartition("::")
    if not kind:
        return re.search(rf"\b{method}\b", text)
    return re.search(rf"\b{kind}(?:::<.*?>)?::{method}\b", text) or (
        (unique or re.search(rf"\b{kind}\b", text)) and re.search(rf"\.{method}(?:::<.*?>)?\(", text))


def read():
    """What coverage.toml says."""
    said = tomllib.loads(SAID.read_text())
    rows = [Row(name, tuple(entry.get("items", ())), entry.get("why", "")) for name, entry in said["rows"].items()]
    return rows, said["internal"]


def judge(rows, internal, names, items, users, tests):
    """Returns complaints."""
    complaints = []
    said = [row.name for row in rows] + internal
    complaints += [f"{name}: nothing is said of it" for name in names if name not in said]
    complaints += [f"{name}: no header has it" for name in said if name not in names]
    complaints += [f"{name}: said twice" for name, count in collections.Counter(said).items() if count > 1]
    for row in rows:
        if not row.items and not row.why:
            complaints.append(f"{row.name}: neither `items` nor `why`")
        for item in row.items:
            if item not in items:
                complaints.append(f"{row.name}: there is no public {item}")
            elif not where(item, users, items) and not row.why:
                complaints.append(f"{row.name}: no driver or sample uses {item}")
            elif not where(item, tests, items):
                complaints.append(f"{row.name}: no test uses {item}")
    return complaints


def where(item, files, items):
    """The files that use an item, which is one of many."""
    method = "::" + item.rpartition("::")[2]
    unique = sum(other.endswith(method) for other in items) == 1
    return [path for path, text in files.items() if mentions(item, text, unique)]


def short(paths):
    """Some paths, for people: drivers and samples by their names."""
    names = dict.fromkeys(re.sub(r"^drivers/dma-rs/(\w+)/.*|^samples/rust/(\w+)\.rs$|.*/tests/(\w+)\.rs$|.*/(\w+)/tests\.rs$",
                                 lambda match: next(filter(None, match.groups())), path) for path in paths)
    return ", ".join(names)


def page(rows, names, items, users, tests):
    """The page, in reStructuredText."""
    covered = sum(bool(row.items) for row in rows)
    lines = [".. SPDX-License-Identifier: GPL-2.0",
             ".. Written by `make coverage WRITE=1` from tools/testing/dma-rs/coverage.toml and the sources.", "",
             "The C functions, and what stands for them", "=" * 41, "",
             f"Of {len(rows)} functions, macros and attributes that ``linux/dma-mapping.h`` and "
             "``linux/dmapool.h`` have for",
             f"drivers, {covered} are served by an item of ``kernel::dma``. For the others the table says "
             "why not.", ""]
    for header in HEADERS:
        lines += [f"``{header.removeprefix('include/')}``", "-" * (len(header) - 4), "",
                  ".. list-table::", "    :header-rows: 1", "    :widths: 25 25 20 30", "",
                  "    * - C", "      - Rust", "      - used by, tested in", "      - why, or how it differs"]
        for row in rows:
            if names[row.name] != header:
                continue
            served = ", ".join(f"``{item}``" for item in row.items)
            used = short(path for item in row.items for path in where(item, users, items))
            tested = short(path for item in row.items for path in where(item, tests, items))
            both = "; ".join(filter(None, (used, tested)))
            lines += [f"    * - ``{row.name}``"] + [f"      - {cell}".rstrip() for cell in (served, both, row.why)]
        lines.append("")
    return "\n".join(lines)


def cli():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ksrc", default="", help="your own Linux 7.3 tree; it is copied, never changed")
    parser.add_argument("--write", action="store_true", help="bring the page up to date")
    options = parser.parse_args()
    with lock():
        folder = source.ensure(options.ksrc).tree
    names = c_names(folder)
    rows, internal = read()
    files = sources(REPO, (*USERS, "rust/kernel"))
    items = defined({**sources(folder, THEIRS), **files})
    tests = {path: text for path, text in files.items() if TESTS.search(path)}
    users = {path: text for path, text in files.items() if path.startswith(USERS) and path not in tests}
    if complaints := judge(rows, internal, names, items, users, tests):
        raise Fail("coverage.toml isn't complete:\n    " + "\n    ".join(complaints))
    text = page(rows, names, items, users, tests)
    if options.write:
        write(PAGE, text.encode())
    elif not PAGE.exists() or PAGE.read_text() != text:
        raise Fail(f"{PAGE.relative_to(REPO)} isn't up to date: run `make coverage WRITE=1`")
    say(f"{len(rows)} names: {sum(bool(row.items) for row in rows)} with an item, "
        f"{sum(not row.items for row in rows)} with a reason")


if __name__ == "__main__":
    main(cli)
