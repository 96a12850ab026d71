#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the kernel's own tests of network interfaces (tools/testing/selftests) with its own driver and with
ours, on the same device, and compares. A test of ours passes where our driver does no worse.

At the other end of the device's cable is one of the kernel's own driver. Everything that was said is in
out/kselftest/, for each of the drivers."""

import collections
import concurrent.futures
import enum
import os
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))

# pylint: disable=wrong-import-position
import build
import console
import oracle
import qemu
import results
import userspace
from common import OUT, main, run, say, write

FOLDER = OUT / "kselftest"
COPY = FOLDER / "tests"
DRIVERS = ("e1000", "dma_rs_e1000_net")

# What the tests take from a tree, and the programs in C among it.
SELFTESTS = "tools/testing/selftests"
PARTS = (f"{SELFTESTS}/net", f"{SELFTESTS}/drivers/net", f"{SELFTESTS}/kselftest", "tools/net/ynl",
         "Documentation/netlink")
PROGRAMS = ("net/lib/csum", "net/lib/gro", "net/lib/xdp_helper", "drivers/net/napi_id_helper", "drivers/net/so_txtime")
FOR_BPF = ("net/lib/xdp_dummy",)

# Those for one interface, or for a pair, but for what neither driver has (XDP, RSS, filters, shapers,
# PSP, memory of devices). They are told of our end and of a peer in a namespace of its own ("remote"), or
# of two ends in the same ("pair").
TESTS = {
    "remote": (
        "drivers/net/gro.py", "drivers/net/macsec.py", "drivers/net/napi_id.py", "drivers/net/napi_threaded.py",
        "drivers/net/netpoll_basic.py", "drivers/net/ping.py", "drivers/net/queues.py",
        "drivers/net/ring_reconfig.py", "drivers/net/so_txtime.py", "drivers/net/stats.py",
        "drivers/net/hw/csum.py", "drivers/net/hw/ethtool_rmon.sh", "drivers/net/hw/ethtool_std_stats.sh",
        "drivers/net/hw/gro_hw.py", "drivers/net/hw/irq.py", "drivers/net/hw/nic_timestamp.py",
        "drivers/net/hw/pp_alloc_fail.py", "drivers/net/hw/tso.py"),
    "pair": (
        "drivers/net/hw/ethtool.sh", "drivers/net/hw/ethtool_extended_state.sh", "drivers/net/hw/loopback.sh",
        "net/forwarding/bridge_mdb_host.sh", "net/forwarding/local_termination.sh", "net/forwarding/min_max_mtu.sh",
        "net/forwarding/tc_chains.sh", "net/forwarding/tc_flower.sh", "net/forwarding/tc_flower_cfm.sh"),
}
KINDS = {path: kind for kind, paths in TESTS.items() for path in paths}

# What tests in Python and in shell say of each of their cases, and how they end if none of it applies.
KTAP = re.compile(r"^(?:# )?(ok|not ok) \d+ (\S+)(?: # (SKIP|XFAIL)\b.*)?")
LOGGED = re.compile(r"^TEST: (.*?) *\[ *(OK|FAIL|SKIP|XFAIL) *\]$")
NOT_APPLICABLE = 4

RETRIES = 3


class Outcome(enum.IntEnum):
    """How a case ended; better ones are greater."""

    FAILS = 0
    DOES_NOT_APPLY = 1
    PASSES = 2


def said(line):
    """What a line says of a case: its name and its outcome; none if it says nothing."""
    if match := KTAP.match(line):
        applies = {"ok": Outcome.PASSES, "not ok": Outcome.FAILS}[match[1]]
        return match[2], Outcome.DOES_NOT_APPLY if match[3] else applies
    if match := LOGGED.match(line):
        return match[1], {"OK": Outcome.PASSES, "FAIL": Outcome.FAILS}.get(match[2], Outcome.DOES_NOT_APPLY)
    return None


def outcomes(text, status):
    """The outcome of each case of a test, by what it said and how it ended. One without cases is one."""
    found = {}
    for name, outcome in filter(None, map(said, text.splitlines())):
        # Of cases with the same name the worst.
        found[name] = min(outcome, found.get(name, outcome))
    if status == NOT_APPLICABLE and not found:
        return {"all": Outcome.DOES_NOT_APPLY}
    if status != 0 and Outcome.FAILS not in found.values() or not found:
        found["all"] = Outcome.PASSES if status == 0 else Outcome.FAILS
    return found


def compared(path, theirs, ours):
    """Cases of the comparison of a test with both drivers. A case of which a test says nothing doesn't apply:
    what is left out as a whole is named otherwise, and a test that dies fails in `all`."""
    if not theirs or not ours:
        yield results.Case(DRIVERS[1], path, "tried", results.FAILED, "with one driver or both it was not tried")
    for name in sorted({*theirs, *ours}):
        before, now = (driver.get(name, Outcome.DOES_NOT_APPLY) for driver in (theirs, ours))
        status = results.FAILED if now < before else results.PASSED
        yield results.Case(DRIVERS[1], path, name, status, f"{before.name} with {DRIVERS[0]}, {now.name} with ours")


def gather(opened):
    """Copies the tests, and builds their programs."""
    shutil.rmtree(COPY, ignore_errors=True)
    source = opened.prepared.source.tree
    for part in PARTS:
        shutil.copytree(source / part, COPY / part, symlinks=True)
    for header in (source / SELFTESTS).glob("*.h"):
        shutil.copy(header, COPY / SELFTESTS)
    for name in PROGRAMS:
        program = COPY / SELFTESTS / name
        run(["gcc", "-O2", "-w", "-isystem", build.headers(opened), "-I", COPY / SELFTESTS, f"{program}.c",
             "-o", program])
    for name in FOR_BPF:
        program = COPY / SELFTESTS / name
        run([f"clang-{opened.tools.llvm}", "--target=bpf", "-O2", "-g", "-isystem", build.headers(opened),
             "-c", f"{program}.bpf.c", "-o", f"{program}.bpf.o"])


def attempt(driver, guest, paths, again=""):
    """Boots a guest in which our end of the cable has a driver, and tries tests. Returns the outcomes of each,
    and what is wrong with the boot."""
    folder = FOLDER / f"{driver}{again}"
    shutil.rmtree(folder, ignore_errors=True)
    todo = [f"{driver} {KINDS[path]} {path}\n" for path in paths]
    write(folder / "todo", "".join(todo).encode())
    guest, ended = userspace.boot(guest, f"kselftest-{driver}{again}", "kselftest", COPY, folder)
    lines = console.read(guest.log)
    complaints = [f"{ended}; the last lines:\n{qemu.last_lines(guest)}"] if ended else []
    complaints += [line for line in lines if "guest test kselftest failed" in line]
    return {path: outcome_of(folder, path) for path in paths}, complaints + oracle.judge(lines)


def outcome_of(folder, path):
    """The outcomes of the cases of a test, from what the guest has left in a folder; none if it wasn't tried."""
    log = folder / path.replace("/", "_")
    status = log.with_name(f"{log.name}.status")
    return outcomes(log.read_text(errors="replace"), int(status.read_text())) if status.exists() else {}


def table(found):
    """How the cases of each test ended, with both drivers."""
    rows = [["test", *(f"{driver}: passed, failed, n/a" for driver in DRIVERS)]]
    for path in KINDS:
        counts = [collections.Counter(found[driver][path].values()) for driver in DRIVERS]
        rows.append([path, *("{:>3} {:>3} {:>3}".format(*(count[outcome] for outcome in (
            Outcome.PASSES, Outcome.FAILS, Outcome.DOES_NOT_APPLY))) for count in counts)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def worse(found):
    """The tests of which a case is worse with ours."""
    return [path for path in KINDS if any(case.status == results.FAILED for case in compared(
        path, *(found[driver][path] for driver in DRIVERS)))]


def best(before, now):
    """The better outcome of each case in two attempts. A test that dies in one of them only (`all`) doesn't die."""
    merged = {name: max(before.get(name, Outcome.FAILS), now.get(name, Outcome.FAILS)) for name in {*before, *now}}
    return {name: outcome for name, outcome in merged.items() if name != "all" or name in before and name in now}


def attempt_all(guest):
    """Tries all tests with both drivers, and some more times with ours what was worse, of which the best
    counts: tests wait for a second or two, in which a slow guest gets nowhere. Returns the outcomes, and cases
    of the boots themselves."""
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        jobs = {driver: pool.submit(attempt, driver, guest, KINDS) for driver in DRIVERS}
        ended = {driver: job.result() for driver, job in jobs.items()}
    found = {driver: by_test for driver, (by_test, _) in ended.items()}
    boots = {driver: complaints for driver, (_, complaints) in ended.items()}
    for number in range(RETRIES):
        again = worse(found)
        if not again or any(boots.values()):
            break
        say(f"trying once more what was worse: {' '.join(again)}")
        by_test, boots[f"again-{number}"] = attempt(DRIVERS[1], guest, again, f"-again-{number}")
        for path, outcomes_now in by_test.items():
            found[DRIVERS[1]][path] = best(found[DRIVERS[1]][path], outcomes_now)
    return found, [results.Case(name, "runner", "log", results.FAILED if complaints else results.PASSED,
                                "\n".join(complaints)) for name, complaints in boots.items()]


def cli():
    """Command line."""
    options = build.arguments(__doc__).parse_args()
    guest = userspace.prepare(options.ksrc, gather)
    say(f"trying {len(KINDS)} tests with {' and '.join(DRIVERS)}")
    found, cases = attempt_all(guest)
    for path in KINDS:
        cases += compared(path, *(found[driver][path] for driver in DRIVERS))
    results.write_json("kselftest", cases)
    say("\n".join([table(found), "", *(f"{line}: {case.detail}" for case in cases
                                       for line in results.misses([case])), results.summary(cases)]))
    return 0 if all(case.status == results.PASSED for case in cases) else 1


if __name__ == "__main__":
    main(cli)
