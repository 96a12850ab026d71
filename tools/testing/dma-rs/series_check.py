#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks each commit of the series by itself: that its mail applies to those before it, its style, that
it builds without a warning of the compilers or of clippy, its documentation, and its tests in a guest.

It stops at the first commit that fails. What has passed isn't done again, as long as the commit's tree
stays the same."""

import argparse
import contextlib
import dataclasses
import fnmatch
import json
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))

# pylint: disable=wrong-import-position
import build
import check
import compile as compile_script
import initramfs
import qemu
import results
import run
import series
import toolchain
import tree
import variants
from common import OUT, REPO, Fail, checksum, lock, main, run as command, say, write
from selection import Selection

RESULTS = OUT / "series-check.json"
MAILS = OUT / "series-check"
VARIANT = "swiotlb"
ARCH = "x86_64"
DICTIONARIES = ("/usr/share/codespell/dictionary.txt",
                "/usr/lib/python3/dist-packages/codespell_lib/data/dictionary.txt")

SUITE = re.compile(r"^(?:#\[cfg\((?P<switch>CONFIG_\w+)\)\]\n)?#\[kunit_tests\((?P<name>\w+)\)\]", re.M)

PASSED, FAILED, NOTHING, UNDONE = "ok", "FAILED", "-", ""


@dataclasses.dataclass(frozen=True)
class Suites(Selection):
    """All of KUnit's tests that aren't slow; `defined` are the suites that the tree has."""

    defined: tuple = ()

    def guest_tests(self, variant):
        return ()

    def missing(self, variant, seen):
        return [suite for suite in self.defined if suite not in seen]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A commit to check, and what with."""

    one: series.Made
    repository: series.Repository
    opened: build.Build

    def suites(self):
        """The KUnit suites of our files, but for those that a switch hides which isn't there yet, and
        those of a kernel with KCSAN."""
        pristine = self.repository.source.pristine
        found = [match for path, (content, _) in self.one.files.items()
                 if path.endswith(".rs") and not (pristine / path).exists()
                 for match in SUITE.finditer(content.decode())]
        return sorted(match["name"] for match in found if match["switch"] not in self.opened.absent
                      and match["name"] not in variants.RACY_SUITES)


def absent(files, last):
    """The switches that the series has in the end, and not after a commit."""
    return frozenset(switches(last) - switches(files))


def switches(files):
    """The switches that some files define."""
    return {f"CONFIG_{name}" for path, (content, _) in files.items() if "/Kconfig" in path
            for name in re.findall(r"^(?:menu)?config (\w+)$", content.decode(), re.M)}


def am(subject):
    """The commit's mail applies to the commit before it, and makes the same tree of it. Leaves that in the
    working tree, where the other checks are made."""
    repository, one = subject.repository, subject.one
    if (repository.folder / ".git/rebase-apply").exists():
        repository.git("am", "--abort")
    repository.git("reset", "--quiet", "--hard")
    repository.git("checkout", "--quiet", "--detach", one.parent)
    try:
        repository.git("am", "--quiet", "--committer-date-is-author-date", one.mail)
    except Fail:
        repository.git("am", "--abort")
        raise
    if tree_of(repository, "HEAD") != tree_of(repository, one.hash):
        raise Fail(f"{one.mail.relative_to(REPO)}, as git am takes it, isn't the commit that it was made from")
    return PASSED


def tree_of(repository, commit):
    """What a commit's tree is called."""
    return repository.git("rev-parse", f"{commit}^{{tree}}").strip()


def changed_by(subject):
    """The files that the commit changes."""
    return subject.repository.git("diff", "--name-only", subject.one.parent, subject.one.hash).splitlines()


def checkpatch(subject):
    """checkpatch --strict over the mail, with a spelling check where there is a dictionary."""
    dictionary = next(filter(pathlib.Path.exists, map(pathlib.Path, DICTIONARIES)), None)
    spelling = ["--codespell", f"--codespellfile={dictionary}"] if dictionary else []
    # Where there is no repository checkpatch runs no tools that a machine may not have. MAINTAINERS has
    # a commit of its own, and folders.
    command(["scripts/checkpatch.pl", "--strict", "--terse", "--show-types", "--no-summary", *spelling,
             "--ignore=FILE_PATH_CHANGES", subject.one.mail], cwd=subject.repository.source.tree)
    return PASSED


def rustfmt(subject):
    """rustfmt over the Rust files that the commit changes."""
    files = [name for name in changed_by(subject) if name.endswith(".rs")]
    check.unformatted(subject.opened, files, subject.repository.folder)
    return PASSED if files else NOTHING


def maintainers(subject):
    """get_maintainer.pl's tests of MAINTAINERS, as far as our entry goes."""
    if "MAINTAINERS" not in changed_by(subject):
        return NOTHING
    lines = subject.repository.git("diff", "refs/tags/base", subject.one.hash, "--", "MAINTAINERS").splitlines()
    entry = "".join(f"{line[1:]}\n" for line in lines if re.match(r"\+(?!\+)", line))
    said = self_test(subject.repository.folder, entry)
    if said:
        raise Fail(f"get_maintainer.pl complains about our entry:\n{said}")
    return PASSED


def self_test(folder, entry):
    """Has get_maintainer.pl test an entry as all that is in MAINTAINERS: to look for the files of all
    others takes minutes. Returns what it says."""
    with tempfile.TemporaryDirectory(prefix="dma-rs-") as name:
        shadow = pathlib.Path(name)
        for path in folder.iterdir():
            if path.name != "MAINTAINERS":
                (shadow / path.name).symlink_to(path)
        # Sections come after the first lines of text and an empty one.
        (shadow / "MAINTAINERS").write_text("\n" + entry)
        return "".join(command(["scripts/get_maintainer.pl", f"--self-test={test}"], cwd=shadow)
                       for test in ("sections", "patterns"))


def compiled(subject):
    """The kernel crate and all else of ours builds, with clippy in the compiler's place."""
    subject.opened.tools.rust_tool("clippy-driver")
    build.configure(subject.opened)
    # What isn't there yet is no target.
    targets = [target for target in compile_script.TARGETS
               if not target.endswith("/") or (subject.repository.folder / target).is_dir()]
    make(subject, ["prepare", *targets], "building", compile_script.COMMANDS)
    return PASSED


def make(subject, targets, what, commands=None):
    """Makes targets, with clippy in the compiler's place: so the ones made before stay as they are."""
    build.compile_kernel(subject.opened, ["CLIPPY=1", *targets], what, commands)
    write(subject.opened.stamp("total"), str(build.objects(subject.opened.folder)).encode())


def rustdoc(subject):
    """The documentation of our files has no warnings."""
    build.configure(subject.opened)
    check.document(subject.opened, set(subject.one.files))
    return PASSED


def kunit(subject):
    """The tests that are there pass, and the guest's log is clean."""
    defined = subject.suites()
    if not defined:
        return NOTHING
    build.configure(subject.opened)
    make(subject, [build.ARCHES[ARCH].target], "building the kernel")
    # Also those suites for which the variant makes no difference.
    variant = dataclasses.replace(variants.VARIANTS[ARCH][VARIANT], suites="*")
    guest = qemu.Guest(ARCH, f"series-{subject.one.number}", variant,
                       build.copy_image(subject.opened), initramfs.build(subject.opened))
    runner = subject.repository.folder / "tools/testing/kunit/kunit.py"
    cases, words = run.judged_boot(guest, runner, Suites(defined=tuple(defined)))
    bad = [case for case in cases if case.status != results.PASSED]
    if bad:
        lines = [f"{case.status} {case.suite}.{case.name}: {case.detail}".strip() for case in bad]
        raise Fail(f"{results.summary(cases)} (see {guest.log.relative_to(REPO)})\n{words.strip()}\n"
                   + "\n".join(lines))
    return f"{PASSED} {results.count(cases)[results.PASSED]}"


# In this order. Those of `OF_MAIL` depend on what the commit changes, the others on what the tree is then.
CHECKS = {"am": am, "checkpatch": checkpatch, "rustfmt": rustfmt, "maintainers": maintainers,
          "build": compiled, "rustdoc": rustdoc, "kunit": kunit}
NEEDS = {"rustdoc": "build", "kunit": "build"}
OF_MAIL = ("am", "checkpatch", "rustfmt", "maintainers")


class Record:
    """What has passed, by what it depends on; kept after each check."""

    def __init__(self):
        self.passed = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def add(self, key, outcome):
        """Keeps an outcome."""
        self.passed[key] = outcome
        OUT.mkdir(exist_ok=True)
        write(RESULTS, (json.dumps(self.passed, indent=0) + "\n").encode())


def key(name, repository, one, opened):
    """What the outcome of a check depends on."""
    after = tree_of(repository, one.hash)
    if name in OF_MAIL:
        return checksum([name, tree_of(repository, one.parent), after, series.message(one.commit)])
    fragments = [(build.FRAGMENTS / f"{part.format(arch=ARCH)}.config").read_text()
                 for part in build.FRAGMENTS_OF["series"]]
    return checksum([name, after, opened.tools.identity, fragments])


def open_commit(one, last, repository, tools, lock_fd):
    """The build of a commit's tree."""
    kconfig = {path: checksum(content) for path, (content, _) in one.files.items() if "/Kconfig" in path}
    prepared = tree.Prepared(repository.copy, tree_of(repository, one.hash), checksum(kconfig))
    return build.Build(ARCH, tools, prepared, lock_fd, "series", absent(one.files, last))


def check_one(subject, wanted, record, keep_going):
    """Makes the checks of a commit that are wanted and weren't passed before, up to the first that
    fails, or all that can be made. Returns the outcome of each, and what is wrong with those that fail."""
    keys = {name: key(name, subject.repository, subject.one, subject.opened) for name in wanted}
    outcomes = {name: record.passed.get(keys[name], UNDONE) for name in wanted}
    todo = [name for name in wanted if outcomes[name] == UNDONE]
    complaints = []
    for name in ["am"] * bool(todo) + [name for name in todo if name != "am"]:
        if name in NEEDS and outcomes.get(NEEDS[name]) == FAILED:
            continue
        try:
            outcome = CHECKS[name](subject)
        except Fail as error:
            complaints.append(f"{name}: {error}")
            outcomes[name] = FAILED
            if name == "am" or not keep_going:
                break
        else:
            outcomes[name] = outcome
            if name in keys:
                record.add(keys[name], outcome)
    return outcomes, complaints


def chosen(made, words):
    """The commits that the user asked for: ranges of numbers (3, 3..7, 3..), globs of names."""
    if not words:
        return made
    found = []
    for word in words:
        span = re.fullmatch(r"(\d*)(\.\.)?(\d*)", word)
        if span:
            first = int(span[1] or 1)
            end = int(span[3] or len(made)) if span[2] else first
            some = [one for one in made if first <= one.number <= end]
        else:
            some = [one for one in made if fnmatch.fnmatch(one.commit.name, word)]
        if not some:
            names = "\n".join(f"    {one.number:>3}  {one.commit.name}" for one in made)
            raise Fail(f"COMMITS={word} is none of these, nor a range of numbers:\n{names}")
        found += some
    return sorted(set(found), key=lambda one: one.number)


def table(rows, wanted):
    """Commits by checks."""
    lines = [["", "commit", *wanted]]
    lines += [[str(one.number), one.commit.name, *(outcomes.get(name, UNDONE) for name in wanted)]
              for one, outcomes in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip()
                     for line in lines)


def advice(one):
    """What to do about a commit that fails."""
    return (f"What it brings is said in {one.commit.path.relative_to(REPO)}. Mend that, or let an earlier "
            "commit bring\nwhat it lacks; then go on with: make seriescheck "
            f"COMMITS={one.number}..")


def cli():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ksrc", default="", help="your own Linux 7.3 tree; it is copied, never changed")
    parser.add_argument("--commits", default="", help="ranges of numbers and globs of names; all if not given")
    parser.add_argument("--checks", default="", help=f"some of: {' '.join(CHECKS)}; all if not given")
    parser.add_argument("--keep-going", action="store_true", help="go on with the next commit after a failure")
    options = parser.parse_args()
    wanted = options.checks.split() or list(CHECKS)
    if unknown := set(wanted) - CHECKS.keys():
        raise Fail(f"CHECKS={unknown.pop()} is none of: {' '.join(CHECKS)}")
    wanted = [name for name in CHECKS if name in wanted]
    record, rows, failed = Record(), [], 0
    with lock(series.LOCK), contextlib.ExitStack() as builds:
        with lock():
            tools = toolchain.ensure()
            repository, made, _ = series.make(options.ksrc, MAILS)
        # What is seen in the mails alone is no reason for other builds to wait.
        lock_fd = builds.enter_context(lock()) if set(wanted) - set(OF_MAIL) else None
        for one in chosen(made, options.commits.split()):
            say(f"{one.number} of {len(made)}: {one.commit.name}")
            opened = open_commit(one, made[-1].files, repository, tools, lock_fd)
            outcomes, complaints = check_one(Subject(one, repository, opened), wanted, record,
                                             options.keep_going)
            rows.append((one, outcomes))
            for complaint in complaints:
                say(f"FAILED {complaint}")
            if complaints:
                failed += 1
                say(advice(one))
                if not options.keep_going:
                    break
    say("\n" + table(rows, wanted) + f"\n\n{len(rows) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    main(cli)
