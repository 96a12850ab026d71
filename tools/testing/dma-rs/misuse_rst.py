#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Writes Documentation/rust/dma/misuse.rst: which mistakes with DMA don't compile, and what becomes of the
others. It is made of the comments in misuse/*/*.rs, and of misuse/rows.toml."""

import argparse
import functools
import pathlib
import re
import sys
import textwrap
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

# pylint: disable=wrong-import-position
import controls
import misuse
import stages
from common import REPO, Fail, main, say, write

PAGE = REPO / "Documentation/rust/dma/misuse.rst"
ROWS = misuse.FOLDER / "rows.toml"

# The folders, in the order of the page.
GROUPS = {
    "memory": "What is mapped",
    "streaming": "Buffers that are mapped",
    "address": "Addresses",
    "device": "Masks and registers",
    "pool": "Blocks of a pool",
    "transfer": "Transfers",
    "ring": "Rings",
    "queue": "Commands and completions",
    "dmaengine": "DMA engines",
    "fence": "Fences",
    "net": "Frames of the network stack",
    "session": "Start, stop, unbind",
    "values": "What a device writes",
}

# What the codes mean. They are the same in all versions of rustc.
CODES = {
    "E0046": "an item of the trait is missing",
    "E0061": "there is no such argument",
    "E0080": "a constant can't be evaluated, here since an assertion fails",
    "E0119": "that is implemented already",
    "E0133": "this takes `unsafe`",
    "E0200": "this takes `unsafe impl`",
    "E0277": "the type doesn't implement what is needed",
    "E0308": "another type is needed",
    "E0310": "it may not live long enough",
    "E0369": "there is no such operator",
    "E0425": "there is no such name",
    "E0451": "a field is private",
    "E0499": "it is borrowed already",
    "E0505": "it is moved while it is borrowed",
    "E0507": "it can't be moved out of there",
    "E0515": "the result borrows what ends here",
    "E0521": "what was lent is kept",
    "E0382": "it was moved",
    "E0596": "it isn't mutable here",
    "E0597": "it doesn't live long enough",
    "E0599": "there is no such method",
    "E0603": "this is private",
    "E0605": "there is no such cast",
    "E0608": "this can't be indexed",
    "E0609": "there is no such field",
    "E0616": "this field is private",
    "E0621": "this lifetime is too short",
    "E0624": "this method is private",
    "E0639": "this type can't be made here",
    "unused_must_use": "a warning, of a result that isn't used",
}

CLASSES = {
    "compile": "compile error",
    "impossible": "impossible",
    "errno": "errno",
    "duty": "the author's duty",
    "absent": "not here yet",
}

INTRO = """\
.. SPDX-License-Identifier: GPL-2.0
.. Made by {script}: don't edit.

Mistakes with DMA, and what becomes of them
===========================================

This page lists mistakes that a driver can make with DMA: what C lets it do, where the mistake
shows, and what Rust says. Each entry has a proof that can be run.

- {programs} mistakes are **compile errors**. Each has a program in
  ``tools/testing/dma-rs/misuse/``, which is named under *Proof*. The compiler must refuse it at the
  line that makes the mistake, with the error that is given here and with no other. The same program
  has the repair, which must compile. ``make misuse`` compiles them all, and so does ``make test``.
- Some are **impossible**: there is nothing to write, or what is written does no harm.
- Some are found at run time, and return an **errno**.
- A few are left to **the author** of a driver. For each of these the page says why.

The other proofs are KUnit tests (``suite.test``), controls (``controls.name``: C code makes the
mistake, and an oracle of the kernel must speak), tests of the guest's user space (``guest.name``),
and litmus tests (``litmus.name``). :doc:`testing` says how to run them.

If the compiler gives you one of these errors, look into the program: it shows the repair.
"""


def wrap(text, first="", rest=""):
    """A paragraph of reStructuredText, whose `code` becomes ``code``."""
    return textwrap.fill(re.sub(r"`+([^`]+)`+", r"``\1``", text), 100, initial_indent=first,
                         subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)


def heading(text, mark):
    """A heading."""
    return f"{text}\n{mark * len(text)}\n"


def answer(program):
    """What Rust says to a mistake."""
    said = []
    for error in program.expected:
        if error.code:
            if error.code not in CODES:
                raise Fail(f"{program.name}: what does {error.code} mean? Add it to CODES in {pathlib.Path(__file__).name}")
            said.append(f"`{error.code}`, {CODES[error.code]}")
        elif error.line:
            said.append(quoted(error.text))
        else:
            said.append(f"`E0080`, {CODES['E0080']}")
    text = "; ".join(dict.fromkeys(said)) + "."
    return text + (f" It says: {quoted(program.fields['Says'])}." if "Says" in program.fields else "")


def quoted(text):
    """A message, whose own backticks can't be nested."""
    return "`" + text.replace("`", "") + "`"


@functools.cache
def kunit_tests():
    """The names of all KUnit tests of ours: suite.test."""
    found = set()
    for path in stages.overlay_paths():
        if path.endswith(".rs"):
            suite = ""
            for line in (REPO / path).read_text().splitlines():
                if match := re.search(r"kunit_tests\((\w+)\)\]", line):
                    suite = match[1]
                elif suite and (match := re.match(r"\s+fn (\w+)\(\)", line)):
                    found.add(f"{suite}.{match[1]}")
    return found


def is_there(proof):
    """Whether a proof exists."""
    kind, _, name = proof.partition(".")
    if "/" in proof:
        return (misuse.FOLDER / f"{proof}.rs").is_file()
    if kind == "controls":
        return name in controls.SAYS
    if kind == "guest":
        return (HERE / f"initramfs/{name}.sh").is_file()
    if kind == "litmus":
        return (HERE / f"litmus/{name}.litmus").is_file()
    if kind == "doc":
        return (PAGE.parent / f"{name}.rst").is_file()
    return proof in kunit_tests()


def proofs(row):
    """The proofs of a row, in words."""
    missing = [proof for proof in row["proof"] if not is_there(proof)]
    if missing:
        raise Fail(f"{ROWS.relative_to(REPO)}: there is no {missing[0]}")
    if not row["proof"] and row["class"] != "absent":
        raise Fail(f"{ROWS.relative_to(REPO)}: a row without a proof: {row}")
    return ", ".join(f":doc:`{proof[4:]}`" if proof.startswith("doc.") else f"``{proof}``" for proof in row["proof"])


def entry(title, pairs):
    """An entry of the page: a sentence, and what is said about it."""
    yield wrap(title)
    yield ""
    for name, text in pairs:
        yield wrap(text, f"  :{name}: ", "    ")
    yield ""


def proof_field(row):
    """The proofs of an entry, as a field."""
    return textwrap.fill(proofs(row), 100, initial_indent="  :Proof: ", subsequent_indent="    ",
                         break_long_words=False, break_on_hyphens=False)


def of_programs(programs):
    """The part about programs."""
    yield heading("What doesn't compile", "-")
    unknown = sorted({program.name.split("/")[0] for program in programs} - GROUPS.keys())
    if unknown:
        raise Fail(f"misuse/{unknown[0]}/ needs a title in GROUPS of {pathlib.Path(__file__).name}")
    for folder, title in GROUPS.items():
        yield heading(title, "~")
        for program in programs:
            if program.name.startswith(f"{folder}/"):
                yield from entry(program.title, (
                    ("C", program.fields["C"]), ("Shows", program.fields["Shows"]),
                    ("Rust", answer(program)), ("Proof", f"`{program.name}`")))


def of_rows(rows, kind, title, text):
    """The part about rows of a class."""
    yield heading(title, "-")
    yield wrap(text) + "\n"
    for row in rows:
        if row["class"] == kind:
            why = [("Why", row["why"])] if "why" in row else []
            if bool(why) != (kind == "duty"):
                raise Fail(f"{ROWS.relative_to(REPO)}: {row['mistake']}: a duty, and nothing else, says why")
            yield from list(entry(row["mistake"], (
                ("C", row["c"]), ("Shows", row["shows"]), ("Rust", row["rust"]), *why)))[:-1]
            yield proof_field(row)
            yield ""


def of_list(rows, title, text):
    """A list of known mistakes, as a table."""
    yield heading(title, "-")
    yield wrap(text) + "\n"
    yield ".. list-table::\n   :header-rows: 1\n   :widths: 5 35 15 45\n"
    yield "   * - No.\n     - mistake\n     - becomes\n     - proof"
    for number, row in enumerate(rows, 1):
        yield f"   * - {number}"
        yield wrap(row["what"], "     - ", "       ")
        yield f"     - {CLASSES[row['class']]}"
        note = wrap(row["note"], "       ", "       ") if "note" in row else ""
        said = textwrap.fill(proofs(row), 100, initial_indent="     - ", subsequent_indent="       ",
                             break_long_words=False, break_on_hyphens=False) if row["proof"] else "     -"
        yield "\n\n".join(filter(None, (said, note))) if row["proof"] else f"     - {note.strip()}"
    yield ""


def text():
    """The page."""
    programs = misuse.programs()
    for program in programs:
        for complaint in program.form():
            raise Fail(f"{program.name}: {complaint}")
    known = tomllib.loads(ROWS.read_text())
    parts = [
        INTRO.format(script=pathlib.Path(__file__).relative_to(REPO), programs=len(programs)),
        *of_programs(programs),
        *of_rows(known["row"], "impossible", "What is impossible",
                 "No code would make the mistake, or it does no harm."),
        *of_rows(known["row"], "errno", "What is refused at run time",
                 "The compiler can't know, but the call checks. A buffer that it was offered comes back."),
        *of_rows(known["row"], "duty", "What is left to the author of a driver",
                 "Neither the compiler nor the call can know."),
        *of_list(known["mistake"], "Mistakes that are often named",
                 "What documents, reviews and dma-debug warn of most, and what becomes of it here."),
        *of_list(known["bug"], "Public bugs",
                 "Kinds of bugs that C drivers, and Rust ports of them, had, and what would become of them here."),
    ]
    return "\n".join(parts).rstrip() + "\n"


def is_stale():
    """Whether the page isn't what it would be made to be now."""
    return not PAGE.exists() or PAGE.read_text() != text()


def cli():
    """Command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    write(PAGE, text().encode())
    say(f"{PAGE.relative_to(REPO)}: {len(misuse.programs())} programs")


if __name__ == "__main__":
    main(cli)
