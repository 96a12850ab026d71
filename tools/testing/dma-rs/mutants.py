#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Puts one fault after the other into a copy of the tree, and shows that the tests notice each.

mutants.toml lists the faults. A fault that no test, no oracle and no time-out notices has survived,
and that is a failure: of the tests. Most can be built into one kernel, which is told at boot which of
them to have."""

import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))

# pylint: disable=wrong-import-position
import build
import initramfs
import misuse
import qemu
import results
import run
import schemata
import stages
import tree
import variants
from common import CACHE, OUT, REPO, Fail, Progress, checksum, lock, main, say, write
from selection import GUEST_SUITE, Selection

LIST = pathlib.Path(__file__).with_name("mutants.toml")
RESULTS = OUT / "mutants.json"

KILLED, SURVIVED, STALE, BROKEN = "killed", "SURVIVED", "stale", "does not compile"

# A guest with a fault in it is often one that waits for ever. A healthy one takes half a minute. It has
# said enough when a test has failed.
SILENCE = 30
TOTAL = 180
ENOUGH = re.compile(r"\]\s+not ok \d+ ")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault: `old` occurs once in `file`, and becomes `new`. It is looked for on one variant of
    the machine, with the suites that match; on the variant "rustc" it is looked for by programs that
    must not compile, which `suites` is a glob of."""

    name: str
    file: str
    old: str
    new: str
    variant: str = "swiotlb"
    suites: str = "*dma*"

    def complaint(self, text):
        """What is wrong with the entry, for a file of this content."""
        count = text.count(self.old)
        if count != 1:
            return f"the old text occurs {count} times in {self.file}"
        return "the new text is the old one" if self.old == self.new else ""


@dataclasses.dataclass
class Verdict:
    """What became of a mutant, and all that noticed it."""

    name: str
    verdict: str
    by: list


def read_list(arch):
    """The entries of mutants.toml that can be tried on an architecture: it has their variant."""
    try:
        mutants = [Mutant(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise Fail(f"{LIST.relative_to(REPO)}: {error}") from None
    names = [mutant.name for mutant in mutants]
    for mutant in mutants:
        if names.count(mutant.name) > 1 or not re.fullmatch(r"[a-z0-9-]+", mutant.name):
            raise Fail(f"{LIST.relative_to(REPO)}: {mutant.name!r} is no name, or not of one mutant only")
        if not any(mutant.variant in known for known in ((misuse.VARIANT,), *variants.VARIANTS.values())):
            raise Fail(f"{LIST.relative_to(REPO)}: {mutant.name}: there is no variant {mutant.variant}")
        if mutant.variant == misuse.VARIANT and not misuse.programs(mutant.suites):
            raise Fail(f"{LIST.relative_to(REPO)}: {mutant.name}: there is no program {mutant.suites}")
        known = (*variants.COMMON_SUITES, GUEST_SUITE)
        if mutant.variant != misuse.VARIANT and not fnmatch.filter(known, mutant.suites.split(".")[0]):
            raise Fail(f"{LIST.relative_to(REPO)}: {mutant.name}: there is no suite {mutant.suites}")
    mutants = [mutant for mutant in mutants if mutant.variant in (misuse.VARIANT, *variants.VARIANTS[arch])]
    for mutant in mutants:
        selection = Selection(mutant.suites)
        if selection.names_only(GUEST_SUITE) and not selection.guest_tests(variants.VARIANTS[arch][mutant.variant]):
            raise Fail(f"{LIST.relative_to(REPO)}: {mutant.name}: {mutant.variant} has no {mutant.suites}")
        if flavour_of(arch, mutant) not in build.FRAGMENTS_OF:
            raise Fail(f"{LIST.relative_to(REPO)}: {mutant.name}: no small kernel of that flavour")
    return mutants


def text_of(folder, file):
    """What is in a file; of one that the checkout only patches, what the hunks add."""
    path = folder / file
    if path.is_file():
        return path.read_text()
    hunks = [part.split("\n--- a/")[0] for commit in stages.commits()
             for part in commit.diff.split(f"\n+++ b/{file}\n")[1:]]
    return "".join(line[1:] + "\n" for part in hunks for line in part.splitlines()
                   if line.startswith(("+", " ")))


def stale(mutants, folder):
    """The entries that don't fit the files in a folder: name to complaint, as lines."""
    found = {}
    for mutant in mutants:
        text = text_of(folder, mutant.file)
        complaint = mutant.complaint(text) if text else f"there is no {mutant.file}"
        if complaint:
            found[mutant.name] = [complaint]
    return found


def flavour_of(arch, mutant):
    """Which kernel a mutant is built as: the small one, or that of its variant, by name or flavour."""
    if mutant.variant == misuse.VARIANT:
        return "mutants"
    apart = f"mutants-{mutant.variant}"
    if apart in build.FRAGMENTS_OF:
        return apart
    return "-".join(filter(None, ("mutants", variants.VARIANTS[arch][mutant.variant].flavour)))


def open_copy(options, lock_fd, flavour="mutants"):
    """The build of a tree of our own, which is as the prepared one."""
    opened = build.open_build(options.arch, options.ksrc, lock_fd, flavour)
    source = opened.prepared.source
    copy = dataclasses.replace(source, home=CACHE / "mutants" / source.home.name)
    tree.mirror(source.tree, copy.tree)
    return dataclasses.replace(opened, prepared=dataclasses.replace(opened.prepared, source=copy))


@contextlib.contextmanager
def applied(texts, folder):
    """Has files of the tree with another text, which `texts` gives by their paths. The restored file is
    a new one too, or make would trust what was built from the other."""
    kept = {file: tree.content_of(folder / file) for file in texts}
    try:
        for file, text in texts.items():
            write(folder / file, text.encode(), kept[file][1])
        yield
    finally:
        for file, (data, mode) in kept.items():
            write(folder / file, data, mode)


def short(text):
    """The first line of a text."""
    return (text.strip().splitlines() or [""])[0]


def killers(cases):
    """What failed: tests by name; if none did, our own checks by what they say. A guest in which a test
    has failed was ended, so these may have missed something."""
    # A test that was cut off in the middle may have no name.
    failed = [case for case in cases if case.status == results.FAILED and case.name]
    found = [f"{case.suite}.{case.name}" for case in failed if case.suite != "runner"]
    for case in failed if not found else ():
        check = case.name.split(":")[0]
        lines = case.detail.splitlines() if check == "log" else [short(case.detail)]
        found += [f"{check}: {line}" for line in lines]
    return found


class Bench:
    """Where mutants are tried. While one boots, the next can be built."""

    def __init__(self, opened, initramfs_image, pool):
        self.opened = opened
        self.initramfs = initramfs_image
        self.pool = pool
        self.tree = opened.prepared.source.tree

    def build(self, mutant, label):
        """Builds the kernel with a fault in it. Returns the compiler's words if it doesn't compile."""
        text = (self.tree / mutant.file).read_text()
        with applied({mutant.file: text.replace(mutant.old, mutant.new)}, self.tree):
            try:
                self.make([mutant], label)
            except Fail as error:
                return str(error).splitlines()
        return []

    def build_together(self, mutants):
        """Builds one kernel with many faults to choose from. Returns those that are in it, by number:
        what doesn't compile in this form is left out."""
        chosen = schemata.choose(mutants, self.tree)
        names = {mutant.file for mutant in chosen.values()} | schemata.DEFINITIONS.keys()
        before = {file: (self.tree / file).read_text() for file in names}
        with applied(before, self.tree):
            while chosen:
                made = schemata.files(chosen, before)
                # What stays as it was in the round before isn't built again.
                for file, text in before.items():
                    text = made[file].text if file in made else text
                    write(self.tree / file, (text + schemata.DEFINITIONS.get(file, "")).encode())
                try:
                    self.make(list(chosen.values()), f"building {len(chosen)} faults")
                    return chosen
                except Fail:
                    words = self.opened.log.read_text(errors="replace")
                    wrong = schemata.blamed(words, made)
                    if not wrong:
                        raise
                say("    on their own: " + ", ".join(chosen.pop(number).name for number in sorted(wrong)))
        return {}

    def make(self, mutants, label):
        """Builds what is in the tree, as far as some mutants need it. Others may use the cache before and
        afterwards."""
        make = build.make_image
        if all(mutant.variant == misuse.VARIANT for mutant in mutants):
            make = misuse.make_crate
        with lock() as lock_fd:
            make(dataclasses.replace(self.opened, lock=lock_fd), label)

    def boot(self, name, variant, suites):
        """Boots what was built last. Returns the future of what complains; the next kernel may be
        built before that is known, but not booted."""
        if variant == misuse.VARIANT:
            # They need what was built, so the next one has to wait.
            found = concurrent.futures.Future()
            with lock():
                found.set_result(killers(misuse.judge(self.opened, misuse.programs(suites))))
            return found
        guest = self.guest(name, variant, build.copy_image(self.opened))
        return self.pool.submit(self.judged, guest, suites)

    def guest(self, name, variant, image, arguments=""):
        """A guest for a fault, on one variant of the machine."""
        known = variants.VARIANTS[self.opened.arch][variant]
        return qemu.Guest(self.opened.arch, f"mutant-{name}",
                          dataclasses.replace(known, kernel=f"{known.kernel} {arguments}"),
                          image, self.initramfs, silence=SILENCE, total=TOTAL, enough=ENOUGH)

    def judged(self, guest, suites, quick=False):
        """Boots a guest, without slow tests if it is to be quick. Returns what complains."""
        kunit = self.tree / "tools/testing/kunit/kunit.py"
        return killers(run.judged_boot(guest, kunit, Selection(suites, quick=quick))[0])

    def boot_each(self, mutants, quick, on_verdict):
        """Boots what `build_together` built with one fault after the other, some at a time. `mutants` are
        pairs of their numbers and them."""
        image = build.copy_image(self.opened)
        with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
            try:
                jobs = {}
                for number, mutant in mutants:
                    guest = self.guest(mutant.name, mutant.variant, image, f"{schemata.PARAMETER}={number}")
                    jobs[pool.submit(self.judged, guest, mutant.suites, quick)] = mutant
                for job in concurrent.futures.as_completed(jobs):
                    on_verdict(jobs[job], job.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                qemu.stop_all()
                raise

    def baseline_together(self, mutants, quick):
        """As `baseline`, of what `build_together` built. If it is quick, returns the suites that have only
        slow tests, or fail."""
        places = {(mutant.variant, mutant.suites): mutant for mutant in mutants}.values()
        nothing = [(0, dataclasses.replace(mutant, name=f"none-{number}")) for number, mutant in enumerate(places)]
        unfit = set()

        def on_verdict(mutant, found):
            if quick and found:
                unfit.add(mutant.suites)
            else:
                healthy(mutant.variant, mutant.suites, found)

        self.boot_each(nothing, quick, on_verdict)
        return unfit

    def baseline(self, mutants):
        """Without a fault nothing may complain, wherever the mutants are tried."""
        self.make(mutants, "building without a fault")
        for variant, suites in sorted({(mutant.variant, mutant.suites) for mutant in mutants}):
            healthy(variant, suites, self.boot(f"none-{variant}", variant, suites).result())


def healthy(variant, suites, found):
    """Fails if something complains although there is no fault."""
    if found:
        raise Fail(f"without a fault, {variant} fails already:\n    " + "\n    ".join(found))
    say(f"    {variant}, {suites}: passes")


def earlier(made_from):
    """What a run that was interrupted found out, if it was about the same tree and list."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if known.get("made_from") != made_from or known["finished"]:
        return {}
    verdicts = [Verdict(**entry) for entry in known["mutants"]]
    return {verdict.name: verdict for verdict in verdicts if verdict.verdict in (KILLED, SURVIVED)}


def tally(verdicts):
    """How many of each."""
    count = [verdict.verdict for verdict in verdicts].count
    return {"killed": count(KILLED), "survived": count(SURVIVED), "errors": count(STALE) + count(BROKEN)}


def table(verdicts):
    """A line for each mutant: what noticed it, cut to what fits."""
    width = max(len(verdict.name) for verdict in verdicts)
    rows = []
    for verdict in verdicts:
        more = f" (+{len(verdict.by) - 3})" if len(verdict.by) > 3 else ""
        by = ", ".join(clip(text, 60) for text in verdict.by[:3]) + more
        rows.append(f"{verdict.name:<{width}}  {verdict.verdict:<8}  {by}".rstrip())
    return "\n".join(rows)


def clip(text, width):
    """A text's beginning, without a log's time stamps."""
    text = re.sub(r"\[ *\d+\.\d+\] ", "", text)
    return text if len(text) <= width else text[:width - 3] + "..."


class Record:
    """The verdicts so far. They are kept after each, so that an interrupted run can go on."""

    def __init__(self, made_from):
        self.made_from = made_from
        self.verdicts = earlier(made_from)
        self.clock = Progress("")

    def add(self, mutant, verdict, by):
        """Says and keeps a verdict."""
        self.verdicts[mutant.name] = Verdict(mutant.name, verdict, by)
        text = f"{mutant.name}: {verdict} {clip(short(', '.join(by)), 60)}"
        say(f"    {text.rstrip()} [{self.clock.elapsed()} in all]")
        self.save(False)

    def add_boot(self, mutant, found):
        """As `add`, by what complained."""
        self.add(mutant, KILLED if found else SURVIVED, found)

    def add_killed(self, mutant, found):
        """As `add_boot`, if anything did."""
        if found:
            self.add_boot(mutant, found)

    def save(self, finished):
        """out/mutants.json: all that noticed each mutant."""
        verdicts = list(self.verdicts.values())
        document = {"made_from": self.made_from, "finished": finished, "summary": tally(verdicts),
                    "mutants": [dataclasses.asdict(verdict) for verdict in verdicts]}
        write(RESULTS, (json.dumps(document, indent=1) + "\n").encode())


def try_together(bench, mutants, record):
    """Tries those of some mutants that one kernel can have: first without slow tests."""
    fitting = [mutant for mutant in mutants if mutant.variant != misuse.VARIANT and
               not stale([mutant], bench.tree)]
    chosen = bench.build_together(fitting) if len(fitting) > 1 else {}
    for quick in (True, False) if chosen else ():
        left = {number: mutant for number, mutant in chosen.items() if mutant.name not in record.verdicts}
        unfit = bench.baseline_together(list(left.values()), quick)
        some = [pair for pair in left.items() if pair[1].suites not in unfit]
        bench.boot_each(some, quick, record.add_killed if quick else record.add_boot)


def try_each(bench, mutants, record):
    """Tries mutants, building each while the one before it boots."""
    misfits = stale(mutants, bench.tree)
    booting = None
    if mutants:
        bench.baseline(mutants)
    for number, mutant in enumerate(mutants, 1):
        complaint, verdict = misfits.get(mutant.name), STALE
        if not complaint:
            complaint, verdict = bench.build(mutant, f"{number} of {len(mutants)}, {mutant.name}"), BROKEN
        if booting:
            record.add_boot(booting[0], booting[1].result())
            booting = None
        if complaint:
            record.add(mutant, verdict, complaint)
        else:
            booting = mutant, bench.boot(mutant.name, mutant.variant, mutant.suites)
    if booting:
        record.add_boot(booting[0], booting[1].result())


def try_all(options, chosen):
    """Tries the chosen mutants; returns the verdicts in their order. Only one command at a time does
    so; the cache is locked for each build, and not while guests boot."""
    with lock("mutants.lock"), concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            with lock() as lock_fd:
                opened = open_copy(options, lock_fd)
                files = initramfs.build(opened)
            qemu.check(options.arch)
            record = Record(checksum([options.arch, opened.prepared.digest, opened.tools.identity]))
            left = [mutant for mutant in chosen if mutant.name not in record.verdicts]
            if len(left) < len(chosen):
                say(f"{len(chosen) - len(left)} of {len(chosen)} were tried before an interruption")
            for flavour in sorted({flavour_of(options.arch, mutant) for mutant in left}):
                some = [mutant for mutant in left if flavour_of(options.arch, mutant) == flavour]
                bench = Bench(dataclasses.replace(opened, flavour=flavour), files, pool)
                build.configure(bench.opened)
                try_together(bench, some, record)
                try_each(bench, [mutant for mutant in some if mutant.name not in record.verdicts], record)
            record.save(True)
        except BaseException:
            qemu.stop_all()
            raise
    return [record.verdicts[mutant.name] for mutant in chosen]


def check(mutants):
    """Says which entries don't fit the checkout. Needs no kernel."""
    misfits = stale(mutants, REPO)
    for name, (complaint,) in misfits.items():
        say(f"{name}: {complaint}")
    say(f"{len(mutants) - len(misfits)} of {len(mutants)} mutants apply")
    return 1 if misfits else 0


def cli():
    """Command line."""
    parser = build.arguments(__doc__)
    parser.add_argument("--mutant", default="", help="globs of the mutants to try; all if not given")
    parser.add_argument("--check", action="store_true", help="only see whether each still applies")
    options = parser.parse_args()
    if options.arch not in variants.VARIANTS:
        raise Fail(f"unknown ARCH {options.arch!r}; known: {', '.join(variants.VARIANTS)}")
    mutants = read_list(options.arch)
    globs = options.mutant.split() or ["*"]
    chosen = [mutant for mutant in mutants if any(fnmatch.fnmatch(mutant.name, glob) for glob in globs)]
    if not chosen:
        raise Fail(f"no mutant is named {options.mutant}: {LIST.relative_to(REPO)} lists them")
    if options.check:
        return check(chosen)
    verdicts = try_all(options, chosen)
    counts = tally(verdicts)
    say("\n" + table(verdicts) + "\n\n" + ", ".join(f"{number} {what}" for what, number in counts.items()))
    return 0 if counts["killed"] == len(verdicts) else 1


if __name__ == "__main__":
    main(cli)
