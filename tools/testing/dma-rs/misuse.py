#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compiles misuse/*/*.rs: each mistake must be refused where its program says so, with the error that it
says, and with no other; its repair must compile without a warning. misuse/README.rst says more."""

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

# pylint: disable=wrong-import-position
import build
import results
from common import OUT, REPO, Fail, checksum, lock, main, say

SUITE = "misuse"
# The column of the programs, among the variants that boot.
VARIANT = "rustc"
FOLDER = HERE / "misuse"
# Where programs are compiled when `make test` boots variants; `make misuse ARCH=` does so for others.
ARCH = "x86_64"
# What built this is what compiles the programs.
SAMPLE = "samples/rust/.rust_dma_layout.o.cmd"
ANNOTATION = re.compile(r"//~\[bad\](\^*) (?:ERROR: (.+)|([A-Za-z]\w+))$")
DIRECTIVE = re.compile(r"^//@ ?([\w-]+)(?:: *(.*))?$", re.M)
FIELD = re.compile(r"^//! ([A-Z][a-z]*): (.*(?:\n//!   \S.*)*)", re.M)
FIELDS = ("C", "Shows", "Says")
INSTANTIATED = "the above error was encountered while instantiating"


@dataclasses.dataclass(frozen=True)
class Error:
    """An error at a line of the program; None stands for another file. One has a code, or a text."""

    line: int | None
    code: str
    text: str = ""

    def __str__(self):
        where = f"line {self.line}" if self.line else "another file"
        return f"{self.code or self.text.splitlines()[0]} in {where}"

    def fits(self, found):
        """Whether this, which is expected, is what was found."""
        return (self.line == found.line and self.code in ("", found.code) and self.text in found.text
                and bool(self.code or self.line is None or not found.code))


@dataclasses.dataclass(frozen=True)
class Program:
    """A mistake, and its repair."""

    name: str
    text: str

    @property
    def path(self):
        """Its file."""
        return FOLDER / f"{self.name}.rs"

    @property
    def title(self):
        """What one does wrong."""
        match = re.search(r"^//! (.*(?:\n//! \S.*)*?)\n//!$", self.text, re.M)
        return " ".join(match[1].replace("\n//!", "").split()) if match else ""

    @property
    def fields(self):
        """What the comment says: name to text."""
        return {name: " ".join(text.replace("\n//!", "").split()) for name, text in FIELD.findall(self.text)}

    @property
    def flags(self):
        """Flags of its own for rustc."""
        return [word for name, value in DIRECTIVE.findall(self.text) if name == "compile-flags"
                for word in shlex.split(value)]

    @property
    def expected(self):
        """The errors that the mistake must have."""
        lines = enumerate(self.text.splitlines(), 1)
        found = [Error(number - len(match[1]), match[3] or "", match[2] or "")
                 for number, line in lines if (match := ANNOTATION.search(line))]
        return found + [Error(None, "", value) for name, value in DIRECTIVE.findall(self.text)
                        if name == "error-in-other-file"]

    def form(self):
        """What is wrong with the program as a text."""
        directives = DIRECTIVE.findall(self.text)
        if [value for name, value in directives if name == "revisions"] != ["ok bad"]:
            yield "it needs a line `//@revisions: ok bad`"
        for name, _ in directives:
            if name not in ("revisions", "compile-flags", "error-in-other-file"):
                yield f"the runner doesn't know //@{name}"
        if self.text.count("//~") != sum(error.line is not None for error in self.expected):
            yield "an annotation isn't of the form `//~[bad] E0382` or `//~[bad] ERROR: text`"
        if not self.expected:
            yield "no error is expected"
        if not self.title or [name for name in self.fields if name not in FIELDS] or not {"C", "Shows"} <= self.fields.keys():
            yield "its comment needs a sentence, `C:` and `Shows:`, and may have `Says:`"


def programs(glob="*"):
    """The programs whose names match."""
    paths = sorted(FOLDER.glob("*/*.rs"))
    found = [Program(str(path.relative_to(FOLDER).with_suffix("")), path.read_text()) for path in paths]
    return [program for program in found if fnmatch.fnmatchcase(program.name, glob)]


def text_of(diagnostic):
    """All words of a diagnostic: what older compilers say in a label, newer ones say in the message."""
    parts = [diagnostic["message"], *(span["label"] or "" for span in diagnostic["spans"])]
    return "\n".join(parts + [text_of(child) for child in diagnostic["children"]])


def line_in(program, diagnostic):
    """The line of the program to which a diagnostic points, through macros if need be."""
    for span in diagnostic["spans"]:
        while span and span["is_primary"]:
            if span["file_name"].endswith(f"/{program.name}.rs"):
                return span["line_start"]
            span = span["expansion"] and {**span["expansion"]["span"], "is_primary": True}
    return None


def place(program, diagnostic):
    """The line of the program that an error is about. If a constant can't be evaluated, older compilers
    point to what fails in the kernel crate, and tell by notes who uses that."""
    lines = [line_in(program, one) for one in (diagnostic, *diagnostic["children"])]
    return next(filter(None, lines), None)


def errors(program, diagnostics, levels=("error",)):
    """What rustc complains of. One complaint may come several times. Of an error in a generic function
    of the kernel crate, the line is where the program uses that."""
    found = []
    for diagnostic in diagnostics:
        code = (diagnostic["code"] or {}).get("code", "")
        if diagnostic["level"].startswith(levels) and (diagnostic["spans"] or code):
            line = place(program, diagnostic) if code == "E0080" else line_in(program, diagnostic)
            found.append(Error(line, code, text_of(diagnostic)))
        elif diagnostic["message"].startswith(INSTANTIATED) and found and found[-1].line is None:
            found[-1] = dataclasses.replace(found[-1], line=line_in(program, diagnostic))
    return found


def complaints(program, outputs):
    """What is wrong with a program, if its revisions have these exit codes and diagnostics."""
    yield from program.form()
    code, diagnostics = outputs["bad"]
    found, expected = errors(program, diagnostics), program.expected
    for error in expected:
        if not any(error.fits(other) for other in found):
            yield f"the mistake compiles: no {error}" if code == 0 else f"the mistake isn't found: no {error}"
    for error in dict.fromkeys(map(str, (other for other in found if not any(one.fits(other) for one in expected)))):
        yield f"the mistake has an error that isn't expected: {error}"
    says = program.fields.get("Says", "")
    if says and not any(says in " ".join(error.text.split()) for error in found):
        yield f"the compiler doesn't say: {says}"
    code, diagnostics = outputs["ok"]
    for error in errors(program, diagnostics, ("error", "warning")):
        yield f"the repair doesn't compile cleanly: {error}"
    if code and not errors(program, diagnostics):
        yield f"the repair doesn't compile: {text_of(diagnostics[0]) if diagnostics else code}"


def words_of(command):
    """The rustc command of a sample, without the names of what it reads and writes."""
    line = next(line for line in command.splitlines() if line.startswith("savedcmd"))
    words = shlex.split(line.split(":=", 1)[1].split(" ;")[0])
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    at = words.index("--out-dir")
    del words[at:at + 2]
    return [word for word in words if not word.startswith("--emit") and not word.endswith(".rs")]


@dataclasses.dataclass(frozen=True)
class Compiler:
    """How programs are compiled: the command, where, and with which environment."""

    words: list
    folder: pathlib.Path
    env: dict

    def run(self, path, revision, flags=()):
        """Compiles a file. Returns the exit code and the diagnostics."""
        emit = [] if any(flag.startswith("--emit") for flag in flags) else ["--emit=metadata"]
        with tempfile.TemporaryDirectory(prefix="dma-rs-") as target:
            done = subprocess.run(
                [*self.words, *emit, *flags, "--error-format=json", "--diagnostic-width=100", "-Amissing_docs",
                 f"--cfg={revision}", "--crate-name=misuse", f"--out-dir={target}", path],
                cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]

    def one(self, program, revision):
        """Compiles a revision of a program."""
        return self.run(program.path, revision, program.flags)

    def repairs_are_clean(self, chosen):
        """Whether the repairs compile without a warning, all in one crate. That saves half of the time.
        If not, each is compiled alone, to see which."""
        with tempfile.NamedTemporaryFile("w", suffix=".rs") as crate:
            crate.writelines(f'#[path = "{program.path}"]\npub mod m{number};\n'
                             for number, program in enumerate(chosen))
            crate.flush()
            return self.run(crate.name, "ok") == (0, [])

    def outputs(self, chosen, pool):
        """Compiles the programs. Yields for each what came of its revisions."""
        together = [program for program in chosen if not program.flags]
        clean = pool.submit(self.repairs_are_clean, together)
        mistakes = [pool.submit(self.one, program, "bad") for program in chosen]
        repairs = {program: pool.submit(self.one, program, "ok") for program in chosen
                   if program not in together or not clean.result()}
        for program, mistake in zip(chosen, mistakes):
            yield {"bad": mistake.result(), "ok": repairs[program].result() if program in repairs else (0, [])}


def make_crate(opened, label):
    """Makes the kernel crate and a sample, from whatever the tree holds."""
    build.compile_kernel(opened, ["prepare", "samples/rust/"], label)


def ready(opened):
    """Has the kernel crate and a sample in the build folder."""
    build.configure(opened)
    made_from = checksum([opened.prepared.digest, build.read_stamp(opened.stamp("config"))])
    if build.read_stamp(opened.stamp("built")) != made_from:
        make_crate(opened, f"building the {opened.arch} kernel crate")


def judge(opened, chosen, show=lambda case: None):
    """Compiles the programs against what was built. Returns their verdicts, which are shown in order."""
    compiler = Compiler(words_of((opened.folder / SAMPLE).read_text()), opened.folder,
                        opened.tools.env(RUSTC_BOOTSTRAP="1", OBJTREE=str(opened.folder)))
    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for program, outputs in zip(chosen, compiler.outputs(chosen, pool)):
            wrong = list(complaints(program, outputs))
            status = results.FAILED if wrong else results.PASSED
            found.append(results.Case(VARIANT, SUITE, program.name, status, "\n".join(wrong)))
            show(found[-1])
    return found


def cases(options, chosen, show=lambda case: None):
    """Makes what they need, and compiles the programs."""
    OUT.mkdir(exist_ok=True)
    with lock() as lock_fd:
        opened = build.open_build(options.arch, options.ksrc, lock_fd)
        ready(opened)
        say(f"compiling {len(chosen)} programs that must not compile, and their repairs")
        return judge(opened, chosen, show)


def cli():
    """Command line."""
    parser = build.arguments(__doc__)
    parser.add_argument("--program", default="*", help="glob of the programs to compile")
    options = parser.parse_args()
    chosen = programs(options.program)
    if not chosen:
        raise Fail(f"no program is called {options.program}: see {FOLDER.relative_to(REPO)}/")
    numbers = iter(range(1, len(chosen) + 1))

    def show(case):
        number = next(numbers)
        if number == 1:
            say(f"KTAP version 1\n1..{len(chosen)}")
        say(f"{'' if case.status == results.PASSED else 'not '}ok {number} {case.name}")
        for line in case.detail.splitlines():
            say(f"    # {line}")

    found = cases(options, chosen, show)
    results.write_json(SUITE, found)
    results.write_junit(SUITE, found)
    say("\n" + results.summary(found))
    return 0 if all(case.status == results.PASSED for case in found) else 1


if __name__ == "__main__":
    main(cli)
