#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Counts what DMA costs in C and in Rust: builds release-like kernels, boots them where QEMU counts
instructions, and writes out/bench.json, out/bench.html, and a table.

bench.json is an object:

  "counts"   a list of what was counted, one object each:
             name      of the operation, as in drivers/dma-rs/bench/table.rs, or interface/...,
                       blocks/...: see initramfs/bench_interface.sh, bench_blocks.sh
             backend   of the DMA API: the variant of the machine
             arch      of the machine
             helpers   whether C's inline functions are inlined into Rust
             c         instructions for each time, in the way in which C drivers do it
             lowest    the same where C calls the function that all others end in; null if none does
             rust      the same in Rust
             ratio     rust / c
             spread    how many more the worst of the rounds took, for each time: c, lowest, rust
  "code"     a list of functions: name, arch, helpers, c and rust (bytes of code), panics (how many
             calls of the Rust function lead to a panic)
  "sizes"    a list of types: name, c and rust (bytes)
  "frames"   a list of lengths of frames that an e1000 sends to itself: length, backend, arch,
             helpers, c and rust (frames for each million of instructions), ratio
  "transfers" a list of lengths of transfers of edu: name (write or read), length, backend, arch,
             helpers, c and rust (instructions for each, from the system call to its return; not
             those of the interrupt's handler; known to some 10), ratio
  "scaling"  a list of numbers of CPUs that map and unmap at the same time: arch, helpers, cpus, c
             and rust (how often in a second, against C on one CPU). By the wall clock: not exact,
             and more CPUs than the host has bring nothing.

A loop's own cost is in all counts: the operation "nothing" tells it. So is that of the DMA engine's
driver. What the "device" of a ring costs is not: it was counted apart, and subtracted."""

import argparse
import collections
import dataclasses
import itertools
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))

# pylint: disable=wrong-import-position
import build
import console
import initramfs
import oracle
import qemu
import toolchain
import variants
from common import OUT, REPO, Fail, clean_env, lock, main, run, say, write

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = OUT / "bench.json"
PAGE = OUT / "bench.html"
BASELINE = HERE / "bench-baseline.json"
FIGURES = REPO / "Documentation/rust/dma/benchmark-figures.txt"

# How much worse than the baseline a count may be, in instructions.
SLACK = 1.0

# How many CPUs map and unmap at the same time.
CPUS = (1, 2, 4)

# The driver in C polls, too.
BOOT = "dma_rs_e1000.polling=1"

LINE = re.compile(r"dma-rs-bench: (\w+) ?(.*)")
END = "end"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel to be built, and the variants of the machine to boot it on."""

    arch: str
    flavour: str
    backends: tuple

    @property
    def helpers(self):
        """Whether C's inline functions are inlined into Rust."""
        return self.flavour != "bench-calls"


KERNELS = (
    Kernel("x86_64", "bench", ("plain", "swiotlb", "iommu-strict", "iommu-lazy")),
    Kernel("x86_64", "bench-calls", ("plain", "swiotlb", "iommu-strict", "iommu-lazy")),
    Kernel("arm64", "bench", ("plain", "smmuv3")),
)

# Where several CPUs map and unmap at the same time. Its code never changes while it runs.
PARALLEL = Kernel("x86_64", "bench-parallel", ("plain",))

# Where the kernel's own drivers and ours do the same: carry frames, write and read blocks. By which
# scripts, with which cable.
DRIVERS = Kernel("x86_64", "bench-drivers", ("plain", "iommu-strict"))
SCRIPTS = {"bench_interface": qemu.HUB, "bench_blocks": ""}

# What people call them.
BACKENDS = {"plain": "dma-direct", "swiotlb": "swiotlb", "iommu-strict": "IOMMU strict",
            "iommu-lazy": "IOMMU lazy", "smmuv3": "SMMUv3"}

# The functions that do something once: what to call it, the symbol in C, a part of that in Rust.
HOT = (
    ("map_unmap", "map_unmap_2048_from", "map_unmap_onceNtNtNt*FromDeviceKj800_"),
    ("post", "tx_post", "5loops4post"),
    ("reap", "tx_clean", "5loops4reap"),
    ("receive", "rx_clean_recycle", "5loops13clean_recycle"),
    ("refill", "rx_refill", "5loops6refill"),
    ("pool", "pool", "5loops9pool_once"),
    ("list", "list_map_unmap", "5loops9list_once"),
    ("submit", "queue_submit", "5loops6submit"),
    ("submit_list", "queue_submit_list", "5loops12submit_large"),
    ("complete", "queue_reap", "5loops8complete"),
    ("engine_copy", "engine_copy", "5loops16engine_copy_once"),
)


def boot(kernel, backend, image, files, script="bench", cpus=0, cable=""):
    """Boots one variant, and returns what a script reports: lists of words, by the first word.
    Instructions are counted, unless a number of CPUs is given."""
    variant = variants.VARIANTS[kernel.arch][backend]
    what = kernel.flavour if script == "bench" else script
    name = f"{backend}-{what}" + (f"-{cpus}" if cpus else "")
    guest = qemu.Guest(kernel.arch, name, variant, image, files, counted=not cpus, cpus=cpus, cable=cable)
    bits = 32 if variant.edu == variants.WIDE_EDU else 28
    ended = guest.boot(script, f"{BOOT} dma_rs_bench_edu.dma_bits={bits}")
    lines = console.read(guest.log)
    log = guest.log.relative_to(REPO)
    offences = [line for line in lines if oracle.offends(line)]
    if ended or offences:
        raise Fail(f"{kernel.arch} {backend} did not go well (see {log}): {ended or offences[0]}\n"
                   f"{qemu.last_lines(guest)}")
    found = collections.defaultdict(list)
    for match in filter(None, map(LINE.search, lines)):
        found[match[1]].append(match[2].split())
    if END not in found:
        raise Fail(f"{kernel.arch} {backend} did not finish its operations: see {log}")
    return found


def counts(kernel, backend, rows):
    """What was counted, in the form of bench.json. A row: name, who, times, least, most."""
    operations = collections.defaultdict(dict)
    for name, who, times, least, most in rows:
        operations[name][who] = [int(value) / int(times) for value in (least, most)]
    found = []
    for name, who in operations.items():
        device = who.pop("device", [0, 0])[0]
        cost = {key: round(least - device, 3) for key, (least, _) in who.items()}
        found.append({
            "name": name, "backend": backend, "arch": kernel.arch, "helpers": kernel.helpers,
            "c": cost["c"], "lowest": cost.get("lowest"), "rust": cost["rust"],
            "ratio": round(cost["rust"] / cost["c"], 4) if cost["c"] else 1.0,
            "spread": {key: round(most - least, 3) for key, (least, most) in who.items()}})
    return found


def frames(kernel, backend, rows):
    """How fast frames go through a NIC, in the form of bench.json. A row: who, length, frames,
    time, how many did not arrive as they were sent."""
    found = collections.defaultdict(dict)
    for who, length, arrived, time, wrong in rows:
        if int(wrong):
            raise Fail(f"{kernel.arch} {backend}: of the frames that {who} sent, {wrong} were lost "
                       f"or damaged: see out/{kernel.arch}-{backend}-{kernel.flavour}.log")
        found[int(length)][who] = round(int(arrived) * 1e6 / int(time), 2)
    return [{"length": length, "backend": backend, "arch": kernel.arch, "helpers": kernel.helpers,
             **who, "ratio": round(who["rust"] / who["c"], 4)} for length, who in found.items()]


def transfers(kernel, backend, rows):
    """What a transfer of edu costs, in the form of bench.json. A row: who, length, transfers each
    way, the time that writes took, and reads, how many bytes came back wrong."""
    found = collections.defaultdict(dict)
    for who, length, times, written, read, wrong in rows:
        if int(wrong):
            raise Fail(f"{kernel.arch} {backend}: of the bytes that {who} moved, {wrong} were wrong: "
                       f"see out/{kernel.arch}-{backend}-{kernel.flavour}.log")
        for name, time in (("write", written), ("read", read)):
            found[name, int(length)][who] = round(int(time) / int(times), 1)
    return [{"name": name, "length": length, "backend": backend, "arch": kernel.arch,
             "helpers": kernel.helpers, **who, "ratio": round(who["rust"] / who["c"], 4)}
            for (name, length), who in found.items()]


def speeds(rows, cpus):
    """How often in a second several CPUs have mapped and unmapped, by language: the best of the
    rounds, which follow each other. A row: who, how often, and the time it took one CPU."""
    best = {}
    for start in range(0, len(rows), cpus):
        members = rows[start:start + cpus]
        who = members[0][0]
        times = sum(int(times) for _, times, _ in members)
        speed = times * 1e9 / max(int(time) for _, _, time in members)
        best[who] = max(best.get(who, 0), speed)
    return best


def scaling(kernel, image, files):
    """What more CPUs bring, in the form of bench.json."""
    found, alone = [], 0
    for cpus in CPUS:
        say(f"timing: {kernel.arch} {cpus} CPU{'s' * (cpus > 1)}")
        speed = speeds(boot(kernel, "plain", image, files, "bench_parallel", cpus)["parallel"], cpus)
        alone = alone or speed["c"]
        found.append({"arch": kernel.arch, "helpers": kernel.helpers, "cpus": cpus,
                      "c": round(speed["c"] / alone, 2), "rust": round(speed["rust"] / alone, 2)})
    return found


def disassembly(opened, name):
    """The functions of an object file of the benchmark: symbol to lines of code."""
    path = opened.folder / "drivers/dma-rs/bench" / name
    text = run([f"llvm-objdump-{opened.tools.llvm}", "-d", "-r", "--no-show-raw-insn", path])
    functions = {}
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            functions[match[1]] = current = []
        elif functions and line.strip():
            current.append(line)
    return functions


def sizes_of(opened, name):
    """The functions of an object file of the benchmark: symbol to bytes of code."""
    path = opened.folder / "drivers/dma-rs/bench" / name
    rows = run([f"llvm-nm-{opened.tools.llvm}", "-S", path]).splitlines()
    return {words[3]: int(words[1], 16) for words in map(str.split, rows)
            if len(words) == 4 and words[2] in "tTwW"}


def code(kernel, opened):
    """What the object files say about the hot functions."""
    in_c = {}
    for file in ("memory.o", "ring.o", "queue.o", "copy.o"):
        in_c |= sizes_of(opened, file)
    in_rust, text = sizes_of(opened, "driver.o"), disassembly(opened, "driver.o")
    found = []
    for name, symbol, part in HOT:
        pattern = re.compile(".*".join(map(re.escape, part.split("*"))))
        matches = [symbol for symbol in in_rust if pattern.search(symbol)]
        if symbol not in in_c or not matches:
            raise Fail(f"there is no {symbol} in C, or nothing like {part} in Rust, among the "
                       "functions of drivers/dma-rs/bench: HOT in bench.py must name them")
        panics = max(sum("panic" in line for line in text[one]) for one in matches)
        found.append({
            "name": name, "arch": kernel.arch, "helpers": kernel.helpers, "c": in_c[symbol],
            "rust": max(in_rust[one] for one in matches), "panics": panics})
    return found


def prepare(kernel, options):
    """Builds a kernel. Returns its image, that of the guest's files, and what the object files say."""
    with lock() as lock_fd:
        opened = build.open_build(kernel.arch, options.ksrc, lock_fd, kernel.flavour)
        tools = opened.tools
        if kernel.helpers and not tools.inline_helpers:
            raise Fail(f"make bench needs clang-{tools.rust.llvm}: it counts with C's inline functions inlined "
                       f"into Rust,\nfor which clang must be of the LLVM version that is in rustc "
                       f"{tools.rust.release}. Here is clang-{tools.llvm}.")
        return build.build_image(opened), initramfs.build(opened), code(kernel, opened)


def measure(kernel, options, document):
    """Builds a kernel, boots it, and adds what was counted to the document, after each boot."""
    image, files, functions = prepare(kernel, options)
    document["code"] += functions
    qemu.check(kernel.arch)
    for backend in kernel.backends:
        say(f"counting: {kernel.arch} {backend}"
            + ("" if kernel.helpers else ", helpers not inlined"))
        found = boot(kernel, backend, image, files)
        counted = counts(kernel, backend, found["op"])
        say(table(counted))
        document["counts"] += counted
        document["frames"] += frames(kernel, backend, found["traffic"])
        document["transfers"] += transfers(kernel, backend, found["transfer"])
        document["sizes"] = [{"name": name, "c": int(c), "rust": int(rust)}
                             for name, c, rust in found["size"]]
        save(document)


def measure_drivers(options, document):
    """Adds what drivers cost as a whole."""
    image, files, _ = prepare(DRIVERS, options)
    for backend, (script, cable) in itertools.product(DRIVERS.backends, SCRIPTS.items()):
        say(f"counting: {script}, {DRIVERS.arch} {backend}")
        found = boot(DRIVERS, backend, image, files, script, cable=cable)
        counted = counts(DRIVERS, backend, found["op"])
        say(table(counted))
        document["counts"] += counted
        save(document)


def time_parallel(options, document):
    """Adds what more CPUs bring. Nothing else depends on that: a failure is said and returned."""
    try:
        image, files, _ = prepare(PARALLEL, options)
        document["scaling"] = scaling(PARALLEL, image, files)
    except Fail as error:
        say(f"FAILED: what more CPUs bring could not be timed: {error}")
        return False
    save(document)
    return True


def save(document):
    """Writes what was counted so far."""
    write(RESULTS, (json.dumps(document, indent=1) + "\n").encode())


def label(one):
    """Where something was counted, for people."""
    return (f"{one['arch']} {BACKENDS[one['backend']]}"
            + ("" if one["helpers"] else ", helpers not inlined"))


def grouped(items):
    """Counts by where they were counted, in order."""
    groups = collections.defaultdict(list)
    for one in items:
        groups[label(one)].append(one)
    return groups


def number(value):
    """A count, or a dash."""
    return "-" if value is None else f"{value:.1f}"


def table(items):
    """The table that is printed."""
    lines = []
    for where, members in grouped(items).items():
        lines += ["", where,
                  f"  {'operation':<28}{'C':>10}{'lowest C':>10}{'Rust':>10}{'ratio':>8}"]
        lines += [f"  {one['name']:<28}{number(one['c']):>10}{number(one['lowest']):>10}"
                  f"{number(one['rust']):>10}{one['ratio']:>8.3f}" for one in members]
    return "\n".join(lines)


def figures(document):
    """The figures that Documentation quotes, as RST."""
    lines = [".. SPDX-License-Identifier: GPL-2.0",
             ".. Made by make bench: don't edit.", ""]
    for where, members in grouped(document["counts"]).items():
        lines += [f".. list-table:: {where}: instructions", "   :header-rows: 1", "",
                  "   * - operation", "     - C", "     - lowest C", "     - Rust",
                  "     - Rust / C"]
        for one in members:
            lines += [f"   * - ``{one['name']}``", f"     - {number(one['c'])}",
                      f"     - {number(one['lowest'] or one['c'])}", f"     - {number(one['rust'])}",
                      f"     - {one['ratio']:.3f}"]
        lines.append("")
    lines += [".. list-table:: Frames through an e1000, for each million of instructions",
              "   :header-rows: 1", "", "   * - length", "     - where", "     - C", "     - Rust",
              "     - Rust / C"]
    for one in document["frames"]:
        lines += [f"   * - {one['length']}", f"     - {label(one)}", f"     - {one['c']}",
                  f"     - {one['rust']}", f"     - {one['ratio']:.3f}"]
    lines += ["", ".. list-table:: Transfers of edu: instructions",
              "   :header-rows: 1", "", "   * - transfer", "     - where", "     - C", "     - Rust",
              "     - Rust / C"]
    for one in document["transfers"]:
        lines += [f"   * - {one['name']}, {one['length']} bytes", f"     - {label(one)}",
                  f"     - {one['c']:.0f}", f"     - {one['rust']:.0f}", f"     - {one['ratio']:.3f}"]
    lines += ["", ".. list-table:: Hot functions: bytes of code", "   :header-rows: 1", "",
              "   * - function", "     - machine", "     - C", "     - Rust", "     - panics"]
    for one in document["code"]:
        where = one["arch"] + ("" if one["helpers"] else ", helpers not inlined")
        lines += [f"   * - ``{one['name']}``", f"     - {where}", f"     - {one['c']}",
                  f"     - {one['rust']}", f"     - {one['panics']}"]
    lines += ["", ".. list-table:: Types: bytes", "   :header-rows: 1", "",
              "   * - type", "     - C", "     - Rust"]
    for one in document["sizes"]:
        lines += [f"   * - {one['name']}", f"     - {one['c']}", f"     - {one['rust']}"]
    return "\n".join(lines) + "\n"


def key(one):
    """What makes a count the same as one of another run."""
    return one["arch"], one["helpers"], one["backend"], one["name"]


def slack(one):
    """How much worse than the baseline a count may be: what frames cost is known to a per cent, and
    blocks to some, since it is up to the host's disk how many commands an interrupt finds done."""
    percents = {"interface": 1, "blocks": 5}.get(one["name"].split("/")[0])
    return one["c"] * percents / 100 if percents else SLACK


def worse(items, baseline):
    """Complaints about what became worse. A ratio is compared in instructions: how many more than
    C's Rust executes. So a change of C's part, or of the compiler for both, says nothing."""
    known = {key(one): one["rust"] - one["c"] for one in baseline["counts"]}
    complaints = []
    for one in items:
        before, now = known.get(key(one)), one["rust"] - one["c"]
        if before is not None and now > before + slack(one):
            complaints.append(f"{one['name']} on {label(one)}: Rust - C is {now:.1f} instructions, "
                              f"and was {before:.1f}")
    return complaints


def unknown(items, baseline):
    """What the baseline doesn't have."""
    known = set(map(key, baseline["counts"]))
    return [f"{one['name']} on {label(one)}" for one in items if key(one) not in known]


def check(document):
    """Compares with the committed baseline. Returns the exit status."""
    if not BASELINE.exists():
        raise Fail(f"there is no {BASELINE.relative_to(REPO)}: make it with make bench BASELINE=1")
    baseline = json.loads(BASELINE.read_text())
    for name in unknown(document["counts"], baseline):
        say(f"not in the baseline: {name}")
    complaints = worse(document["counts"], baseline)
    for complaint in complaints:
        say(f"WORSE {complaint}")
    if complaints:
        say(f"{len(complaints)} counts are worse than {BASELINE.relative_to(REPO)} says. If that "
            "is meant to be: make bench BASELINE=1")
    return 1 if complaints else 0


def judge(document, compare, renew):
    """Compares with the committed baseline, then makes this run the baseline, as asked for. One that is
    worse isn't made the baseline. Returns the exit status."""
    if compare and check(document):
        return 1
    if renew:
        write(BASELINE, (json.dumps({"counts": document["counts"]}, indent=1) + "\n").encode())
        write(FIGURES, figures(document).encode())
    return 0


def draw():
    """Writes the page with the charts."""
    with lock():
        python = toolchain.ensure_charts()
    done = subprocess.run([python, HERE / "charts.py", RESULTS, PAGE], env=clean_env(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Fail(f"the charts could not be drawn:\n{done.stdout.strip()}")


def cli():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ksrc", default="",
                        help="your own Linux 7.3 tree; it is copied, never changed")
    parser.add_argument("--check", action="store_true", help="fail if a count became worse")
    parser.add_argument("--baseline", action="store_true",
                        help="make this run the baseline, and what Documentation says; with --check, "
                             "only if no count became worse")
    options = parser.parse_args()

    document = {name: [] for name in ("counts", "frames", "transfers", "scaling", "code", "sizes")}
    for kernel in KERNELS:
        measure(kernel, options, document)
    measure_drivers(options, document)
    timed = time_parallel(options, document)
    draw()
    say(f"\n{RESULTS.relative_to(REPO)}, {PAGE.relative_to(REPO)}")
    return judge(document, options.check, options.baseline) or not timed


if __name__ == "__main__":
    main(cli)
