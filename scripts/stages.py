# SPDX-License-Identifier: GPL-2.0
"""What the series says: its stages, their commits, and what comes with each of them.

A folder in series/ is a stage, a *.patch in it a commit; both come in the order of their names. A
commit is written as a mail: subject and body, a line of three dashes, the names of what it brings,
one a line, and the hunks to files that are there already. A name is a file of ours, a folder (all of it that
no other commit names better), or a switch (CONFIG_...). So each file is said once and lies in the
checkout as it is in the end.

What names something that comes later comes with it: see `without`. So files that list others, as a
`mod` line, a Makefile or MAINTAINERS does, are written once, too. Where that isn't enough, a commit may
have hunks to a file of ours that came with an earlier one: until then the file is without them.

series/apart names what isn't for the kernel's tree."""

import dataclasses
import fnmatch
import functools
import pathlib
import re
import subprocess

from common import REPO, Fail, run

FOLDER = REPO / "series"
OVERLAY = ("rust", "drivers", "samples", "Documentation", "tools")
SWITCH = "CONFIG_"
# Stands in hunks for who makes the series.
AUTHOR = "@AUTHOR@"
HUNKS = re.compile(r"^(?:diff --git |--- (?:a/|/dev/null))", re.M)


@dataclasses.dataclass(frozen=True)
class Commit:
    """A commit as it is described. `names` are those of files, folders and switches."""

    path: pathlib.Path
    subject: str
    body: str
    names: tuple
    diff: str

    @property
    def name(self):
        """What it is called here: stage/number-title."""
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def stage(self):
        """The name of its stage."""
        return self.path.parent.name

    @property
    def touched(self):
        """The files that its hunks change."""
        return set(re.findall(r"^(?:---|\+\+\+) [ab]/(\S+)", self.diff, re.M))

    def hunks(self, paths):
        """The hunks to some files, as one text."""
        parts = re.split(r"^(?=--- (?:a/|/dev/null))", self.diff, flags=re.M)
        return "".join(part for part in parts if set(re.findall(r"^(?:---|\+\+\+) [ab]/(\S+)", part, re.M)) & paths)


def listed(text):
    """The lines of a text that say something."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def read(path):
    """Reads a commit's description."""
    where = path.relative_to(REPO)
    message, dashes, rest = path.read_text().partition("\n---\n")
    subject, _, body = message.partition("\n\n")
    if not subject.startswith("Subject: ") or not body.strip() or not dashes:
        raise Fail(f"{where}: it begins with `Subject: ...`, then come an empty line, the reason for it, "
                   "and a line of three dashes")
    hunks = HUNKS.search(rest)
    start = hunks.start() if hunks else len(rest)
    return Commit(path, " ".join(subject.removeprefix("Subject: ").split()), body.strip(),
                  listed(rest[:start]), rest[start:].replace(AUTHOR, identity()))


@functools.cache
def identity():
    """Who makes the series, in the form of a mail address, as git is configured for this checkout."""
    words = [subprocess.run(["git", "-C", REPO, "config", f"user.{key}"], text=True, check=False,
                            stdout=subprocess.PIPE).stdout.strip() for key in ("name", "email")]
    return "{} <{}>".format(*words) if all(words) else "The dma-rs authors"


def commits():
    """All commits, in their order."""
    return [read(path) for path in sorted(FOLDER.glob("*/*.patch"))]


def stages():
    """The names of the stages, in their order."""
    return sorted({path.parent.name for path in FOLDER.glob("*/*.patch")})


def all_paths():
    """Our files at their in-tree paths: what git knows or would add."""
    names = run(["git", "-C", REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                 "--", *OVERLAY], "The overlay must be a git checkout.")
    return sorted({name for name in names.split("\0") if name and (REPO / name).is_file()})


def is_apart(path):
    """Whether a file isn't for the kernel's tree."""
    return any(names(name, path) for name in listed((FOLDER / "apart").read_text()))


def overlay_paths():
    """Our files in the kernel's tree."""
    return [path for path in all_paths() if not is_apart(path)]


def names(name, path):
    """Whether a name is that of a file, or of a folder in which it is."""
    return path.startswith(name) if name.endswith("/") else path == name


def any_fits(name, paths):
    """Whether one of many files is meant by a name, or by a glob of MAINTAINERS."""
    if name.endswith("/"):
        return any(path.startswith(name) for path in paths)
    literal = re.match(r"[^*?\[]*", name)[0]
    if literal == name:
        return name in paths
    return any(path.startswith(literal) and fnmatch.fnmatchcase(path, name) for path in paths)


def schedule(series, paths):
    """Says with which commit each file comes: path to the commit's number. Each comes with one, which
    is the one that names it best."""
    claims = [(name, number) for number, commit in enumerate(series) for name in commit.names
              if not name.startswith(SWITCH)]
    complaints, found, used = [], {}, set()
    for path in paths:
        best = max((len(name) for name, _ in claims if names(name, path)), default=0)
        owners = [(name, number) for name, number in claims if names(name, path) and len(name) == best]
        if len(owners) != 1:
            said = " and ".join(series[number].name for _, number in owners)
            complaints.append(f"{path}: named by {said or 'no commit'}")
        else:
            used.add(owners[0])
            found[path] = owners[0][1]
    for name, number in claims:
        if (name, number) not in used and not any(name == other for other, _ in used):
            complaints.append(f"{series[number].name}: it brings {name}, of which there is nothing left to bring")
    if complaints:
        raise Fail("series/ doesn't fit the checkout:\n    " + "\n    ".join(complaints)
                   + "\nName each file in one commit, or in series/apart.")
    return found


@dataclasses.dataclass(frozen=True)
class Later:
    """What isn't there yet after a commit; `here` are our files that are."""

    files: frozenset
    switches: frozenset
    here: frozenset

    def has(self, name):
        """Whether a file, a folder or a glob is all of what comes later."""
        return any_fits(name, self.files) and not any_fits(name, self.here)

    def mentioned(self, line):
        """Whether a line names a switch that comes later."""
        return any(word in self.switches for word in re.findall(r"\bCONFIG_\w+", line))


def later(series, scheduled, number):
    """What comes after the commit of a number."""
    return Later(
        files=frozenset(path for path, when in scheduled.items() if when > number),
        switches=frozenset(name for commit in series[number + 1:] for name in commit.names
                           if name.startswith(SWITCH)),
        here=frozenset(path for path, when in scheduled.items() if when <= number))


class Lines:
    """The lines of a file, some of which are to go: of ours, not of the kernel's."""

    def __init__(self, text, original):
        self.all = text.splitlines(keepends=True)
        self.original = set(original.splitlines(keepends=True))
        self.gone = set()

    def ours(self):
        """The numbers and texts of those that are left and that the kernel doesn't have."""
        return ((at, line) for at, line in enumerate(self.all)
                if at not in self.gone and line not in self.original)

    def drop(self, first, end):
        """Drops lines, and an empty one where two would meet."""
        self.gone.update(range(first, end))
        before = next((at for at in range(first - 1, -1, -1) if at not in self.gone), None)
        empty_before = before is None or not self.all[before].strip()
        if empty_before and end < len(self.all) and not self.all[end].strip():
            self.gone.add(end)

    def replace(self, first, end, text):
        """Puts a text in the place of lines."""
        self.gone.update(range(first + 1, end))
        self.all[first] = text

    def text(self):
        """What is left, without empty lines at the end."""
        left = [line for at, line in enumerate(self.all) if at not in self.gone]
        while self.gone and left and not left[-1].strip():
            left.pop()
        return "".join(left)


def heading(lines, at, marks):
    """Where the comments and attributes above a line begin."""
    while at > 0 and lines.all[at - 1].strip().startswith(marks):
        at -= 1
    return at


MODULE = re.compile(r"\s*(?:pub(?:\([^)]*\))? )?mod (\w+);\n")
USE = re.compile(r"(?P<head>(?P<indent> *)(?:pub(?:\([^)]*\))? )?use self::)(?:\{\n|(?P<room>\w+)::)")
RUST_MARKS = ("#[", "//")


def rust(path, lines, after):
    """Drops modules, and what is imported from them."""
    folder, stem = pathlib.PurePosixPath(path).parent, pathlib.PurePosixPath(path).stem
    rooms = set()
    for at, line in lines.ours():
        if match := MODULE.fullmatch(line):
            # A crate's root has its modules beside it, other files have them in a folder.
            below, beside = f"{folder}/{stem}/{match[1]}.rs", f"{folder}/{match[1]}.rs"
            if (below if below in after.files | after.here else beside) in after.files:
                rooms.add(match[1])
                lines.drop(heading(lines, at, RUST_MARKS), at + 1)
    for at, line in enumerate(lines.all):
        match = USE.match(line)
        if not match or at in lines.gone:
            continue
        end = at + 1 if line.rstrip().endswith(";") else lines.all.index(f"{match['indent']}}};\n", at) + 1
        if match["room"]:
            if match["room"] in rooms:
                lines.drop(heading(lines, at, RUST_MARKS), end)
            continue
        items = use_items(lines.all[at + 1:end - 1], match["indent"] + "    ")
        left = [item for item in items if re.match(r"\w*", item)[0] not in rooms]
        if not left:
            lines.drop(heading(lines, at, RUST_MARKS), end)
        elif len(left) < len(items):
            lines.replace(at, end, use_of(match["head"], match["indent"], left))


def use_items(lines, indent):
    """What a list of imports has, an entry each: without the indentation, and what separates them."""
    items = []
    for line in lines:
        line = line.removeprefix(indent)
        if line[0] in " }":
            items[-1] += line
        else:
            items.append(line)
    return [re.sub(r",?(?: //)?\n\Z", "", item) for item in items]


def use_of(head, indent, items):
    """A list of imports, as rustfmt leaves it."""
    if len(items) == 1:
        return head + items[0].replace("\n", "\n" + indent) + ";\n"
    body = [indent + "    " + item.replace("\n", f"\n{indent}    ") + ",\n" for item in items]
    body[-1] = body[-1].removesuffix("\n") + " //\n"
    return f"{head}{{\n{''.join(body)}{indent}}};\n"


def kconfig(_path, lines, after):
    """Drops switches, what selects them, and files that aren't there."""
    for at, line in lines.ours():
        if match := re.match(r"(?:menu)?config (\w+)$", line):
            if SWITCH + match[1] in after.switches:
                end = next((other for other in range(at + 1, len(lines.all))
                            if re.match(r"\S", lines.all[other])), len(lines.all))
                lines.drop(heading(lines, at, ("#",)), end)
        elif match := re.match(r'\s*source "(\S+)"', line):
            if after.has(match[1]):
                lines.drop(at, at + 1)
        elif match := re.match(r"\s+select (\w+)", line):
            if SWITCH + match[1] in after.switches:
                lines.drop(at, at + 1)


def makefile(path, lines, after):
    """Drops objects and folders whose source isn't there."""
    folder = pathlib.PurePosixPath(path).parent
    for at, line in lines.ours():
        if match := re.match(r"[\w-]+-(?:y|m|\$\((CONFIG_\w+)\))\s*[:+]?=\s*(\S.*)\n", line):
            items = match[2].split()
            if after.mentioned(line) or all(comes_later(folder / item, item, after) for item in items):
                lines.drop(at, at + 1)


def comes_later(path, item, after):
    """Whether what make is told to build has its source later."""
    if item.endswith("/"):
        return after.has(f"{path}/")
    return any(after.has(str(path.with_suffix(suffix))) for suffix in (".c", ".rs"))


def helpers(path, lines, after):
    """Drops includes of files beside this one."""
    folder = pathlib.PurePosixPath(path).parent
    for at, line in lines.ours():
        if (match := re.match(r'#include "(\S+)"', line)) and after.has(str(folder / match[1])):
            lines.drop(at, at + 1)


def maintainers(_path, lines, after):
    """Drops patterns that no file would match."""
    for at, line in lines.ours():
        if (match := re.match(r"F:\t(\S+)", line)) and after.has(match[1]):
            lines.drop(at, at + 1)


def fragment(_path, lines, after):
    """Drops switches that aren't there."""
    for at, line in lines.ours():
        if after.mentioned(line):
            lines.drop(at, at + 1)


RULES = (
    ("*.rs", rust),
    ("*/Kconfig*", kconfig),
    ("*/Makefile", makefile),
    ("*.[ch]", helpers),
    ("MAINTAINERS", maintainers),
    ("*/.kunitconfig", fragment),
)


def without(path, data, original, after):
    """A file's bytes without what names something that comes later: for files that hold lists of
    others. What the kernel's original has stays. Of Rust these are `mod x;` with what is above it, and `use self::x`; of Kconfig a switch, its
    being selected, and `source`; of a Makefile the objects; of C `#include "x"`; of MAINTAINERS `F:`."""
    for pattern, rule in RULES:
        if fnmatch.fnmatchcase(path, pattern):
            lines = Lines(data.decode(), original.decode())
            rule(path, lines, after)
            return lines.text().encode()
    return data
