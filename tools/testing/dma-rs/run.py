#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Builds the kernel if need be and boots it: the test matrix, the demonstration, or a shell."""

import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))

# pylint: disable=wrong-import-position
import build
import console
import controls
import initramfs
import misuse
import oracle
import qemu
import results
import variants
from common import REPO, Fail, clean_env, lock, main, say
from selection import GUEST_SUITE, Selection

DEMO = "dma-rs| "
GUEST_TEST = re.compile(r"dma-rs: guest test (\w+) (passed|failed):? ?(.*)")


def guests(options, wanted, title=str):
    """The guests to boot, with an up-to-date kernel, and what they are called. Also returns the
    tree's kunit.py."""
    known = variants.VARIANTS[options.arch]
    with lock() as lock_fd:
        opened = build.open_build(options.arch, options.ksrc, lock_fd)
        builds = {flavour: dataclasses.replace(opened, flavour=flavour)
                  for flavour in sorted({known[name].flavour for name in wanted})}
        images = {flavour: (build.build_image(one_of), initramfs.build(one_of))
                  for flavour, one_of in builds.items()}
    qemu.check(options.arch)
    found = [qemu.Guest(options.arch, title(name), known[name], *images[known[name].flavour])
             for name in wanted]
    accel = qemu.accelerator(found[0])
    kunit = opened.prepared.source.tree / "tools/testing/kunit/kunit.py"
    return [dataclasses.replace(guest, accel=accel) for guest in found], kunit


def chosen(options):
    """The variants that the user asked for."""
    if options.arch not in variants.VARIANTS:
        raise Fail(f"unknown ARCH {options.arch!r}; known: {', '.join(variants.VARIANTS)}")
    known = variants.VARIANTS[options.arch]
    globs = options.variant.split() or ["*"]
    unknown = [glob for glob in globs if not fnmatch.filter(known, glob)]
    if unknown:
        rows = "\n".join(f"    {name:<14} {variant.purpose}" for name, variant in known.items())
        raise Fail(f"unknown VARIANT {unknown[0]!r} for {options.arch}; known:\n{rows}")
    return [name for name in known if any(fnmatch.fnmatch(name, glob) for glob in globs)]


def one(options):
    """The one variant to show something on."""
    return chosen(options)[0] if options.variant else "plain"


def parse(kunit, guest, lines):
    """Lets kunit.py read the log's lines. Returns the cases and kunit.py's words about failures."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        words = subprocess.run(
            [sys.executable, kunit, "parse", "--failed", f"--json={file.name}"],
            env=clean_env(PYTHONDONTWRITEBYTECODE="1"), text=True, errors="replace",
            input="\n".join(console.for_kunit(lines)) + "\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout
        text = file.read()
    if not text:
        return [], words
    group = json.loads(text)
    cases = results.from_kunit(guest.name, group)
    if group["misc"]["errors"] or group["misc"]["crashed"]:
        cases.append(results.Case(guest.name, "runner", f"ktap:{guest.name}", results.FAILED, words))
    return cases, words


def check(name, guest, complaints):
    """A test of our own: passed if there are no complaints."""
    status = results.FAILED if complaints else results.PASSED
    return results.Case(guest.name, "runner", f"{name}:{guest.name}", status, "\n".join(complaints))


def guest_cases(guest, wanted, lines):
    """The verdicts of the tests that ran in the guest's user space."""
    found = {match[1]: match for match in map(GUEST_TEST.search, lines) if match}
    cases = [results.Case(guest.name, GUEST_SUITE, name,
                          results.PASSED if match[2] == "passed" else results.FAILED, match[3])
             for name, match in found.items()]
    if len(cases) < len(wanted):
        cases.append(check("guest", guest, [f"of {', '.join(wanted)}, only {len(cases)} ended"]))
    return cases


def kunit_cases(guest, kunit, selection, lines):
    """The verdicts of KUnit's tests, and on whether all ran; and kunit.py's words about failures."""
    cases, words = parse(kunit, guest, lines)
    if not cases:
        named = f" for SUITE={selection.glob}" if selection.glob else ""
        return [check("kunit", guest, [f"no suite ran{named}"])], words
    missing = selection.missing(guest.variant, {case.suite for case in cases})
    return [*cases, check("suites", guest, [f"suite {suite} did not run" for suite in missing])], words


def boot_tests(guest, kunit, selection):
    """Boots one variant with its tests. Returns their cases, why the guest was ended if it was, and
    kunit.py's words about failures."""
    wanted = selection.guest_tests(guest.variant)
    guest = dataclasses.replace(guest, slots=variants.slots(wanted))
    with tempfile.TemporaryDirectory(prefix="dma-rs-") as sockets:
        if set(wanted) & set(variants.CABLE_TESTS):
            guest = dataclasses.replace(guest, cable=sockets)
        return boot_with_tests(guest, kunit, selection, wanted)


def boot_with_tests(guest, kunit, selection, wanted):
    """Boots a guest that has what the wanted guest tests need. Returns what boot_tests does."""
    ended = guest.boot(" ".join(("test", *wanted)),
                       f"{variants.TEST_KERNEL} {selection.kernel_arguments(guest.variant)}")
    lines = console.read(guest.log)
    cases, words = kunit_cases(guest, kunit, selection, lines) if selection.kunit else ([], "")
    cases += guest_cases(guest, wanted, lines)
    cases.append(check("log", guest, oracle.judge(lines, dma_debug=guest.variant.dma_debug)))
    return cases, ended, words


def boot_controls(guest, selection):
    """Boots one variant in which the oracles must speak. Returns what boot_tests does."""
    wanted = selection.controls(guest.variant)
    ended = guest.boot(f"controls {','.join(wanted)}", "kunit.enable=0")
    cases, complaints = controls.judge(guest.name, wanted, console.read(guest.log))
    return [*cases, check("log", guest, complaints)], ended, ""


def judged_boot(guest, kunit, selection):
    """Boots one variant and judges everything about it. Returns the cases and kunit.py's words."""
    if guest.variant.controls:
        cases, ended, words = boot_controls(guest, selection)
    else:
        cases, ended, words = boot_tests(guest, kunit, selection)
    cases.append(check("boot", guest, [f"{ended}; the last lines:\n{qemu.last_lines(guest)}"] if ended else []))
    return cases, words


def test_boot(guest, kunit, selection):
    """Boots one variant and says how it went."""
    start = time.monotonic()
    cases, words = judged_boot(guest, kunit, selection)
    say(f"  {guest.name:<14} {results.summary(cases)}  [{time.monotonic() - start:.0f} s]")
    if any(case.status == results.FAILED and case.suite != "runner" for case in cases):
        say(words.strip())
    return cases


def explain(cases, arch):
    """Details about what went wrong in our own checks."""
    for case in cases:
        if case.status == results.FAILED and case.detail:
            log = f"out/{arch}-{case.variant}.log"
            say(f"\n{case.name} (see {case.suite if case.suite == misuse.SUITE else log}):")
            for line in case.detail.splitlines()[:40]:
                say(f"    {line}")


def programs(options, selection):
    """The programs that must not compile. They are compiled once, for one architecture, where no variant is named."""
    if selection.names_only(misuse.SUITE) or options.arch == misuse.ARCH and not options.variant:
        return selection.programs()
    return []


def test(options):
    """What must not compile, and the matrix."""
    selection = Selection(options.suite, options.slow)
    known = variants.VARIANTS[options.arch]
    names = [name for name in chosen(options)
             if selection.has_tests(known[name], name in options.variant.split())]
    wrong = programs(options, selection)
    if not names and not wrong:
        raise Fail("no variant has such tests: see SUITE=, SLOW= and VARIANT= in the README")
    cases = misuse.cases(options, wrong) if wrong else []
    cases += boot_all(options, names, selection) if names else []
    explain(cases, options.arch)
    title = selection.title(options.arch)
    results.write_json(title, cases)
    results.write_junit(title, cases)
    say("\n" + "\n".join([results.table(cases), "", *results.misses(cases), results.summary(cases)]))
    # A skip is a failure too: what we boot has everything that a test can want.
    return 0 if all(case.status == results.PASSED for case in cases) else 1


def boot_all(options, names, selection):
    """The matrix: every variant boots, two at a time. Returns the cases."""
    boots, kunit = guests(options, names, selection.title)
    say(f"booting {len(boots)} {options.arch} variant{'s' * (len(boots) > 1)} under {boots[0].accel}")
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        jobs = [pool.submit(test_boot, guest, kunit, selection) for guest in boots]
        try:
            return sum((job.result() for job in jobs), [])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            qemu.stop_all()
            raise


def demo(options):
    """The demonstration: shows what the guest's demo.sh says, and nothing else."""
    boots, _ = guests(options, [one(options)])
    # KVM can't count.
    guest = dataclasses.replace(boots[0], name=f"{boots[0].name}-demo", counted=True, accel="tcg",
                                cable=qemu.HUB)
    verdicts = []

    def on_line(line):
        if DEMO in line:
            text = line.split(DEMO, 1)[1]
            say(text)
            if text.startswith("dma-rs: verdict: "):
                verdicts.append(text.split()[-1])

    say(f"booting {guest.arch} ({guest.variant.purpose}), full log in {guest.log.relative_to(REPO)}")
    ended = guest.boot("demo", "kunit.enable=0", on_line)
    complaints = oracle.judge(console.read(guest.log))
    if ended:
        complaints.append(f"{ended}; the last lines:\n{qemu.last_lines(guest)}")
    for complaint in complaints:
        say(f"in the log: {complaint}")
    return 0 if verdicts == ["PASS"] and not complaints else 1


def shell(options):
    """An interactive shell in the guest; QEMU takes over this terminal."""
    boots, _ = guests(options, [one(options)])
    guest = boots[0]
    command = guest.command("shell", "kunit.enable=0 loglevel=4", "mon:stdio")
    say("leave the guest with: poweroff -f, or press Ctrl-A, then X")
    os.execvpe(command[0], command, clean_env())


def cli():
    """Command line."""
    parser = build.arguments(__doc__)
    parser.add_argument("mode", choices=("test", "run", "shell"))
    parser.add_argument("--variant", default="", help="globs of variants of the matrix; all if not given")
    parser.add_argument("--suite", default="", help="glob of the suites (suite or suite.test) to run")
    parser.add_argument("--slow", action="store_true", help="run the slow tests instead of the others")
    options = parser.parse_args()
    chosen(options)
    return {"test": test, "run": demo, "shell": shell}[options.mode](options)


if __name__ == "__main__":
    main(cli)
