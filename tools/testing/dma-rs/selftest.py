#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of the runner's own judgement, without a guest: each shows it a log that is wrong."""

import argparse
import contextlib
import dataclasses
import io
import json
import pathlib
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

# pylint: disable=wrong-import-position
import bench
import common
import compile as compile_script
import console
import controls
import floors
import fresh
import kselftest
import misuse
import misuse_rst
import oracle
import qemu
import qemu_configs
import results
import run
import schemata
import series
import series_check
import source
import stages
import toolchain
import tree
import variants
from common import Fail
from selection import Selection

COUNT = "[    9.000000] dma-rs: dma-api errors {}"
ERROR = ("[    1.000000] DMA-API: dma_rs_edu 0000:00:01.0: device driver frees DMA memory with "
         "different size")


def case(name, status):
    """A case of the suite "s"."""
    return results.Case("plain", "s", name, status)


class Oracle(unittest.TestCase):
    """What a log says."""

    def test_offences(self):
        """Among them what no control provokes."""
        for line in ("DMAR: DRHD: handling fault status reg 2",
                     "AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003 address=0x7ff]",
                     "arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: (unassigned sid)",
                     "virtio_iommu virtio0: page fault from EP 8 at 0xfe000 [W]",
                     "INFO: task sh:42 blocked for more than 120 seconds.",
                     "rcu: INFO: rcu_preempt self-detected stall on CPU",
                     "pagealloc: single bit error",
                     "rust_kernel: panicked at rust/kernel/dma.rs:1:",
                     "Kernel panic - not syncing: Attempted to kill init!",
                     "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
                     "BUG: KCSAN: data-race in _RNvNtCs_6kernel3dma4kick / _RNvNtCs_6kernel3dma4reap",
                     "BUG: KCSAN: assert: race in dma_rs_racing_store / dma_rs_racing_store",
                     "** 22 printk messages dropped **",
                     ERROR):
            with self.subTest(line):
                self.assertTrue(oracle.offends(line))

    def test_harmless(self):
        """What a healthy kernel prints."""
        for line in ("DMA-API: preallocated 65536 debug entries",
                     "DMA-API: debugging enabled by kernel config",
                     "DMAR: IOMMU enabled",
                     "kmemleak: 0 new suspected memory leaks",
                     "ok 1 stalled_device"):
            with self.subTest(line):
                self.assertFalse(oracle.offends(line))

    def test_clean(self):
        """Nothing to complain about."""
        self.assertEqual(oracle.judge(["[    1.000000] ok", COUNT.format(0)]), [])

    def test_expected(self):
        """An offence is permitted once."""
        log = ["dma-rs-expect: different size", ERROR, COUNT.format(1)]
        self.assertEqual(oracle.judge(log), [])
        self.assertEqual(oracle.judge([*log[:2], ERROR, log[2]]), [ERROR])

    def test_never_came(self):
        """An expected offence must come."""
        self.assertEqual(oracle.judge(["dma-rs-expect: different size", COUNT.format(0)]),
                         ["expected, but never came: different size"])

    def test_tolerated(self):
        """Only until the end of it."""
        log = ["dma-rs-tolerate: different size", ERROR, "dma-rs-tolerate-end", COUNT.format(0)]
        self.assertEqual(oracle.judge(log), [])
        self.assertEqual(oracle.judge([*log[:3], ERROR, log[3]]), [ERROR])

    def test_count(self):
        """dma-debug prints less than it counts."""
        self.assertEqual(oracle.judge([COUNT.format(1)]),
                         ["dma-debug counted 1 errors, 0 were expected"])
        self.assertEqual(oracle.judge([COUNT.format("")]),
                         ["dma-debug counted no errors, 0 were expected"])
        self.assertEqual(oracle.judge([]), ["the guest did not report dma-debug's error count"])

    def test_races(self):
        """The kernel's own don't count; but those do that we take part in, or cause, or that have no end."""
        def report(race, *stack, end="=" * 66):
            return ["=" * 66, f"[    1.0] BUG: KCSAN: data-race in {race}", "read to 0x1 of 4 bytes by task 1 on cpu 0:",
                    *(f"[    1.0]  {name}+0x1/0x2" for name in stack), "",
                    "[    1.0] write to 0x1 of 4 bytes by interrupt on cpu 1:", "[    1.0]  rcu_core+0x1/0x2",
                    "[    1.0]  asm_sysvec_call_function_single+0x1/0x2", "[    1.0]  _RNvMs_NtNtCs_6kernel3dma+0x1/0x2",
                    "", "[    1.0] CPU: 0 Comm: dma_ring_test", end]
        foreign = report("rcu_core / tick_nohz_idle_enter", "tick_nohz_idle_enter", "usleep_range_state",
                         "_RNvMs_NtNtCs_6kernel3dma4kick")
        strange = report("mas_RNode / trust_store", "mas_RNode")
        self.assertEqual(oracle.judge([*foreign, *strange, COUNT.format(0)]), [])
        for race in (report("rcu_core / dma_map_phys", "dma_map_phys"),
                     report("rcu_core / _RNvXs_NtNtCs_6kernel4sync3arc4drop", "_RNvXs_NtNtCs_6kernel4sync3arc4drop"),
                     report("rcu_core / rust_helper_atomic_read", "rust_helper_atomic_read"),
                     report("rcu_core / complete", "complete", "_RNvMs_NtNtCs_6kernel3dma4kick", "kthread"),
                     report("rcu_core / tick_nohz_idle_enter", "do_idle", end="")):
            with self.subTest(race):
                found = oracle.judge([*foreign, *race, COUNT.format(0)])
                self.assertEqual(found, [race[1]])
                if race[-1]:
                    self.assertEqual(oracle.judge([*race, *foreign, COUNT.format(0)]), [race[1]])

    def test_byte_limits(self):
        """A race of C's that is inlined into a helper, and none with another side."""
        def report(*sides):
            return ["=" * 66, f"[    1.0] BUG: KCSAN: data-race in {' / '.join(sides)}",
                    "read (marked) to 0x1 of 4 bytes by interrupt on cpu 0:", f"[    1.0]  {sides[0]}+0x1/0x2", "",
                    "[    1.0] read-write to 0x1 of 4 bytes by task 1 on cpu 1:", f"[    1.0]  {sides[1]}+0x1/0x2", "",
                    "=" * 66]
        sent = "rust_helper_netdev_tx_sent"
        theirs = report("dql_completed", sent)
        self.assertEqual(oracle.judge([*theirs, COUNT.format(0)]), [])
        for sides in ((sent, sent), ("dql_reset", sent), ("dql_completed", "rust_helper_netdev_tx_reset")):
            ours = report(*sides)
            with self.subTest(sides):
                self.assertEqual(oracle.judge([*theirs, *ours, *theirs, COUNT.format(0)]), [ours[1]])

    def test_contexts(self):
        """A thread that was taken for an interrupt doesn't count; an interrupt does, and what has no end."""
        warning = "[    1.0] WARNING: at complete_all+0x1/0x2, CPU#1: kworker/1"
        def report(*stack, end="[    1.0] ---[ end trace 0000000000000000 ]---"):
            return ["[    1.0] Not in threaded context on PREEMPT_RT as expected", warning,
                    *(f"[    1.0]  {frame}" for frame in stack), end]
        misread = report("complete_all+0x1/0x2 (P)", "device_resume+0x1/0x2")
        self.assertEqual(oracle.judge([*misread, COUNT.format(0)]), [])
        for context in (report("<IRQ>", "complete_all+0x1/0x2", "</IRQ>"),
                        report("complete_all+0x1/0x2", "el1_interrupt+0x1/0x2", "device_resume+0x1/0x2"),
                        report("complete_all+0x1/0x2", "call_on_irq_stack+0x1/0x2"),
                        report("device_resume+0x1/0x2", end=""),
                        misread[1:]):
            with self.subTest(context):
                self.assertEqual(oracle.judge([*misread, *context, COUNT.format(0)]), [warning])
        # Another offence in the middle of it.
        for at in range(1, len(misread)):
            self.assertEqual(oracle.judge([*misread[:at], ERROR, *misread[at:], COUNT.format(0)]), [ERROR])

    def test_no_dma_debug(self):
        """A kernel that is meant to be without."""
        self.assertEqual(oracle.judge([COUNT.format("")], dma_debug=False), [])
        for log in ([COUNT.format(0)], []):
            self.assertEqual(len(oracle.judge(log, dma_debug=False)), 1)


class Console(unittest.TestCase):
    """How a recorded console is read."""

    def read(self, *lines):
        """Writes and reads a log."""
        with tempfile.TemporaryDirectory() as name:
            path = pathlib.Path(name) / "log"
            path.write_text("\n".join(lines))
            return console.read(path)

    def test_torn(self):
        """A record that comes again in full was torn."""
        self.assertEqual(self.read("[    1.000000] DMA-AP", ERROR), [ERROR])

    def test_again(self):
        """A record that comes again at once is one."""
        self.assertEqual(self.read(ERROR, "other", ERROR), ["other", ERROR])

    def test_two(self):
        """Two records are two: their times differ, or much is between them."""
        later = ERROR.replace("1.0", "2.0", 1)
        self.assertEqual(self.read(ERROR, later), [ERROR, later])
        far = [ERROR, *map(str, range(console.WINDOW)), ERROR]
        self.assertEqual(self.read(*far), far)


    def test_header(self):
        """What comes between the first lines of a suite goes before them; the plan stays."""
        first, name, plan = "[ 1.0]     KTAP version 1", "[ 1.2]     # Subtest: s", "[ 1.3]     1..2"
        other, plain = "[ 1.1] other: text", ["[ 0.1] KTAP version 1", "[ 0.2] 1..19"]
        self.assertEqual(console.for_kunit([first, other, other, name, plan]),
                         [other, other, first, name, plan])
        self.assertEqual(console.for_kunit(plain), plain)


class Controls(unittest.TestCase):
    """Whether an oracle that is silent is noticed."""

    BEGINS, ENDED = "dma-rs: control unmap-size begins", "dma-rs: control unmap-size ended"

    def judge(self, *lines, errors=0):
        """The control's status, and complaints about the rest."""
        log = [*lines, COUNT.format(errors)]
        cases, complaints = controls.judge("controls", ["unmap-size"], log)
        self.assertEqual([case.name for case in cases], ["unmap-size"])
        return cases[0].status, complaints

    def test_spoke(self):
        """The oracle said what it must."""
        self.assertEqual(self.judge(self.BEGINS, ERROR, self.ENDED, errors=1), (results.PASSED, []))

    def test_silent(self):
        """Nothing, something else, and what isn't an offence."""
        for line in ("", ERROR.replace("size", "direction"), ERROR.replace("DMA-API", "dma-api")):
            with self.subTest(line):
                self.assertEqual(self.judge(self.BEGINS, line, self.ENDED)[0], results.FAILED)

    def test_outside(self):
        """The right words at the wrong time."""
        self.assertEqual(self.judge(self.BEGINS, self.ENDED, ERROR),
                         (results.FAILED, [ERROR]))

    def test_no_end(self):
        """The guest died of it, or never came to it."""
        self.assertEqual(self.judge(self.BEGINS, ERROR)[0], results.FAILED)
        self.assertEqual(self.judge()[0], results.FAILED)

    def test_count(self):
        """dma-debug counted more than it said."""
        self.assertEqual(self.judge(self.BEGINS, ERROR, self.ENDED, errors=2)[1],
                         ["dma-debug counted 2 errors, 1 were expected"])

    def test_complete(self):
        """Each control is in one variant of each architecture's kernel, and has its words. Kernels of
        their own have some of them again."""
        for arch, known in variants.VARIANTS.items():
            with self.subTest(arch):
                used = [name for variant in known.values() if not variant.flavour for name in variant.controls]
                self.assertEqual(sorted(used), sorted(controls.SAYS))
                self.assertLessEqual({name for variant in known.values() for name in variant.controls}, set(used))


class Choice(unittest.TestCase):
    """Which tests run, and where."""

    def test_controls(self):
        """SUITE= narrows the controls too; none is slow, but for a slow variant's."""
        variant = variants.Variant("", controls=("unmap-size", "warn"))
        for selection, names in (
                (Selection(), ("unmap-size", "warn")), (Selection("controls"), ("unmap-size", "warn")),
                (Selection("contr*.unmap*"), ("unmap-size",)), (Selection("rust_dma*"), ()),
                (Selection(slow=True), ())):
            with self.subTest(selection):
                self.assertEqual(selection.controls(variant), names)
        slow = variants.Variant("", slow=True, controls=("warn",))
        self.assertEqual(Selection(slow=True).controls(slow), ("warn",))

    def test_guest_tests(self):
        """They are slow; SUITE= names them all the same."""
        variant = variants.Variant("", guest_tests=("sweep", "unplug"))
        for selection, names in (
                (Selection(), ()), (Selection(slow=True), ("sweep", "unplug")),
                (Selection("guest"), ("sweep", "unplug")), (Selection("guest.un*"), ("unplug",)),
                (Selection("rust_dma*"), ()), (Selection("rust_dma*", slow=True), ())):
            with self.subTest(selection):
                self.assertEqual(selection.guest_tests(variant), names)

    def test_has_tests(self):
        """Guests that have nothing of it are left out."""
        for selection, names in (
                (Selection(), ["plain", "controls"]), (Selection("controls"), ["controls"]),
                (Selection("guest.suspend"), ["plain"]), (Selection("guest.sweep"), []),
                (Selection("rust_dma*"), ["plain"]), (Selection("*"), ["plain", "controls"]),
                (Selection(slow=True), ["plain"])):
            with self.subTest(selection):
                known = {"plain": variants.Variant("", guest_tests=("suspend",)),
                         "controls": variants.Variant("", controls=("warn",))}
                self.assertEqual([name for name in ("plain", "controls")
                                  if selection.has_tests(known[name])], names)

    def test_kernel_arguments(self):
        """KUnit leaves out what is slow, what isn't, or neither."""
        variant = variants.Variant("", suites="dma_rs_*")
        for selection, words in (
                (Selection(), "kunit.filter_glob=dma_rs_* kunit.filter=speed>slow"),
                (Selection(slow=True), "kunit.filter_glob=dma_rs_* kunit.filter=speed<=slow"),
                (Selection("rust_kvec"), "kunit.filter_glob=rust_kvec"),
                (Selection("guest"), "kunit.enable=0")):
            with self.subTest(selection):
                self.assertEqual(selection.kernel_arguments(variant), words)

    def test_many_globs(self):
        """The kernel's command line takes one."""
        with self.assertRaises(Fail):
            Selection("rust_kvec rust_bitmap")

    def test_slow_variant(self):
        """There all tests are slow."""
        variant = variants.Variant("", slow=True)
        for selection, has, words in (
                (Selection(), False, None), (Selection(slow=True), True, "kunit.filter_glob=*"),
                (Selection("rust_kvec"), True, "kunit.filter_glob=rust_kvec")):
            with self.subTest(selection):
                self.assertEqual(selection.has_tests(variant), has)
                if words:
                    self.assertEqual(selection.kernel_arguments(variant), words)
                    self.assertEqual(selection.missing(variant, {"rust_kvec"}) == [], bool(selection.glob))

    def test_named(self):
        """A slow variant that is named has all its tests. A kernel of its own isn't built for a suite's name."""
        slow, own = (variants.Variant("", slow=True, flavour=flavour, guest_tests=("sweep",)) for flavour in ("", "kcsan"))
        for selection, variant, named, has in (
                (Selection(), slow, True, True), (Selection(), own, True, True), (Selection(), own, False, False),
                (Selection("rust_kvec"), slow, False, True), (Selection("rust_kvec"), own, False, False),
                (Selection("rust_kvec"), own, True, True), (Selection(slow=True), own, False, True)):
            with self.subTest((selection, variant, named)):
                self.assertEqual(selection.has_tests(variant, named), has)
        self.assertEqual(Selection().kernel_arguments(own), "kunit.filter_glob=*")
        self.assertEqual(Selection().guest_tests(own), ("sweep",))

    def test_missing(self):
        """A suite that did not run, unless it was left out."""
        every, devices = variants.Variant(""), variants.Variant("", suites="dma_rs_*")
        seen = set(variants.COMMON_SUITES) - {"rust_kvec", "dma_rs_edu"}
        for selection, variant, names in (
                (Selection(), every, ["dma_rs_edu", "rust_kvec"]),
                (Selection(), devices, ["dma_rs_edu"]),
                (Selection("rust_*"), every, ["rust_kvec"]),
                (Selection("rust_*"), devices, ["rust_kvec"]),
                (Selection(slow=True), every, ["dma_rs_edu"])):
            with self.subTest(selection):
                self.assertEqual(selection.missing(variant, seen), names)

    def test_lacks(self):
        """Suites that this kernel doesn't have, and has besides."""
        variant = variants.Variant("", lacks=("rust_kvec",), adds=("more",))
        self.assertEqual(Selection().missing(variant, set(variants.COMMON_SUITES) - {"rust_kvec", "dma_rs_edu"}),
                         ["dma_rs_edu", "more"])

    def test_flavours(self):
        """Each kernel can be built. What is lacking would be there."""
        for arch in variants.VARIANTS.values():
            for variant in arch.values():
                self.assertIn(variant.flavour, run.build.FRAGMENTS_OF)
                self.assertLessEqual(set(variant.lacks), set(variants.COMMON_SUITES))

    def test_variants(self):
        """VARIANT= is a list of globs."""
        for globs, names in (("swiotlb", ["swiotlb"]), ("iommu-*  plain", ["plain", "iommu-strict", "iommu-lazy"])):
            with self.subTest(globs):
                options = argparse.Namespace(arch="x86_64", variant=globs)
                self.assertEqual(run.chosen(options), names)
        with self.assertRaisesRegex(Fail, "unknown VARIANT 'nothing'"):
            run.chosen(argparse.Namespace(arch="x86_64", variant="plain nothing"))


class Guest(unittest.TestCase):
    """Whether a guest that fails is noticed."""

    def boot(self, script, **limits):
        """Boots a "guest" that is a shell script."""
        with tempfile.TemporaryDirectory() as name, \
                mock.patch.object(qemu, "OUT", pathlib.Path(name)), \
                mock.patch.object(qemu.Guest, "command", lambda *_: ["sh", "-c", script]):
            return qemu.Guest("x86_64", "plain", None, None, None, **limits).boot("test")

    def test_ends(self):
        """By itself, or with an error."""
        self.assertEqual(self.boot("echo hello"), "")
        self.assertEqual(self.boot("exit 3"), "QEMU ended with status 3")

    def test_silent(self):
        """It says nothing."""
        self.assertEqual(self.boot("exec sleep 60", silence=0), "hang: no output for 0 s")

    def test_endless(self):
        """It does not stop talking."""
        self.assertEqual(self.boot("exec yes", total=0), "hang: not finished after 0 s")

    def test_wrong_clock(self):
        """It is booted again, but not for ever."""
        wrong = "echo tsc: PIT calibration deviates from HPET: 65552 2444203; exec sleep 60"
        with tempfile.NamedTemporaryFile() as boots, contextlib.redirect_stdout(io.StringIO()):
            count = f"echo >> {boots.name}; [ $(wc -l < {boots.name}) -gt"
            self.assertEqual(self.boot(f"{count} 2 ] || {{ {wrong}; }}"), "")
            self.assertIn("deviates", self.boot(f"{count} 99 ] || {{ {wrong}; }}"))
            self.assertEqual(len(boots.read()), 3 + qemu.BOOTS)


class Qemu(unittest.TestCase):
    """What is asked of a QEMU before it is started."""

    HELP = """e1000 options:
  addr=<int32>           - Slot and optional function number (default: -1)
  x-pcie-lnksta-dllla=<bool> - on/off (default: true)
"""

    def supported(self, device, script):
        """The device as it is given to a "QEMU" that is a shell script."""
        with tempfile.TemporaryDirectory() as name:
            program = pathlib.Path(name) / "qemu"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
            return qemu.supported(str(program), device)

    def test_supported(self):
        """Only what is marked may be left out, and only where QEMU doesn't know it."""
        for device, given in (
                ("e1000,mitigation?=off,romfile=", "e1000,romfile="),
                ("e1000,addr?=3,romfile=", "e1000,addr=3,romfile="),
                ("e1000,mitigation=off", "e1000,mitigation=off"), ("e1000", "e1000")):
            with self.subTest(device):
                self.assertEqual(self.supported(device, f"cat << END\n{self.HELP}END"), given)

    def test_no_device(self):
        """One message, which says what to do."""
        with self.assertRaisesRegex(Fail, "(?s)has no device e1000: .*not found.*Install a QEMU"):
            self.supported("e1000", """case "$1" in
--version) echo QEMU 0.1 ;;
*) echo "Device 'e1000' not found" >&2; exit 1 ;;
esac""")

    def test_configs(self):
        """What kunit.py is given describes the same machines. If not: make qemuconfigs."""
        self.assertEqual(qemu_configs.stale(), [])


class Toolchain(unittest.TestCase):
    """Which tools are used, on machines that have others."""

    def machine(self, packages, own=None):
        """A Debian machine that offers these packages, and has this rustc."""
        for name, value in (("own_rustc", lambda: own), ("is_debian", lambda: True),
                            ("known_llvms", lambda: [22, 19]), ("install", lambda _: None)):
            self.enterContext(mock.patch.object(toolchain, name, value))
        self.enterContext(mock.patch.object(toolchain.archive, "candidate", lambda name: packages.get(name, "")))
        self.enterContext(mock.patch.object(toolchain.shutil, "which", lambda *_, **__: None))

    def rustc(self, release):
        """Has a rustc say this version."""
        answers = {"--version": f"rustc\nrelease: {release}\nLLVM version: 19.1.7\n", "--print": "/usr\n"}
        self.enterContext(mock.patch.object(toolchain, "run", lambda words, *_: answers[words[1]]))

    def test_packaged(self):
        """The distribution's rustc, if the kernel takes it."""
        self.machine({"rustc": "1.85.0+dfsg3-1"})
        self.rustc("1.85.0")
        self.assertEqual(toolchain.ensure_rust(), toolchain.Rust("1.85.0", 19, pathlib.Path("/usr"), True))

    def test_old(self):
        """Too old, of the distribution or one's own: one message that says what to do."""
        self.machine({"rustc": "1.63.0+dfsg1-2"})
        with self.assertRaisesRegex(Fail, "needs rustc 1.85.* distribution's is 1.63.0.*\n.*rustup"):
            toolchain.ensure_rust()
        self.machine({}, own="/own/rustc")
        self.rustc("1.84.1")
        with self.assertRaisesRegex(Fail, "rustc 1.84.1 .* too old.* rustup update"):
            toolchain.ensure_rust()

    def test_llvm(self):
        """rustc's version, else the newest, if all of it is there."""
        for offered, wanted, chosen in (((19, 22), 19, 19), ((19, 22), 22, 22), ((19, 22), 23, 22),
                                        ((19,), 23, 19)):
            with self.subTest((offered, wanted)):
                self.machine({name.format(version): "1" for version in offered
                              for name in toolchain.LLVM_PACKAGES})
                self.assertEqual(toolchain.choose_llvm(wanted), chosen)
        self.machine({"clang-22": "1"})
        with self.assertRaisesRegex(Fail, "no clang of LLVM 17 or newer .*clang-23, lld-23"):
            toolchain.choose_llvm(23)

    def test_bindgen(self):
        """The one that makes opaque structs isn't taken."""
        for version, llvm, suits in (((0, 71, 1), 19, True), ((0, 71, 1), 22, False), ((0, 72, 1), 22, True),
                                     ((0, 66, 1), 19, False), ((), 19, False)):
            with self.subTest((version, llvm)):
                self.assertEqual(toolchain.suits(version, llvm), suits)


class Compile(unittest.TestCase):
    """Which warnings count."""

    def test_warnings(self):
        """Those about files of ours, or that we patch; and all of objtool's."""
        ours = "rust/kernel/dma/mapping/streaming.rs"
        self.enterContext(mock.patch.object(compile_script.stages, "commits", lambda: []))
        for log, count in (
                (f"warning: unused import\n   --> /tree/{ours}:3:9\n", 1),
                (f"error: unused import\n  --> /tree/{ours}:3:9\n", 1),
                ("warning: unused import\n  --> /tree/rust/kernel/list.rs:3:9\n", 0),
                ("warning: 3 warnings emitted\n\n  CC x.o\n", 0),
                ("/tree/rust/helpers/dma_sim.c:3:9: warning: unused\n", 1),
                ("/tree/include/asm-generic/io.h:3:9: warning: null\n1 warning generated.\n", 0),
                ("clang diag: /tree/include/asm-generic/io.h:3:9: warning: null\n", 0),
                ("rust/kernel.o: warning: objtool: f() falls through to next function g()\n", 1)):
            with self.subTest(log):
                found = compile_script.warnings("  CC a.o\n" + log, pathlib.Path("/tree"))
                self.assertEqual(bool(found), bool(count))


class Fresh(unittest.TestCase):
    """What make fresh refuses before it begins, and that it ends what it began."""

    def test_end(self):
        """What ignores SIGTERM doesn't keep it from cleaning up."""
        def interrupt():
            raise KeyboardInterrupt

        deaf = ["python3", "-c", "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"]
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as name, self.assertRaises(KeyboardInterrupt):
            fresh.watch_namespace(deaf, pathlib.Path(name) / "log", interrupt, 0)
        self.assertLess(time.monotonic() - begun, 30)

    def test_refused(self):
        """An unknown release, no root, no Rust that could be lent."""
        user = mock.patch.object(fresh.os, "geteuid", lambda: 1000)
        root = mock.patch.object(fresh.os, "geteuid", lambda: 0)
        with self.assertRaisesRegex(Fail, "unknown RELEASE 'sid'; known: bookworm, trixie"):
            fresh.check("sid")
        with user, self.assertRaisesRegex(Fail, "needs root: sudo make fresh RELEASE=trixie"):
            fresh.check("trixie")
        with root, mock.patch.multiple(fresh.toolchain, is_debian=lambda: True, install=lambda _: None,
                                       find=lambda _: None), \
                self.assertRaisesRegex(Fail, "could be lent"):
            fresh.check("bookworm")


class Lock(unittest.TestCase):
    """Who waits for the cache is told for whom."""

    def test_waiting(self):
        """The command, the checkout, and since when; nothing once it is free."""
        said = io.StringIO()
        with tempfile.TemporaryDirectory() as name, \
                mock.patch.object(common, "CACHE", pathlib.Path(name)), \
                mock.patch.dict("os.environ", DMA_RS_COMMAND="make something"), \
                contextlib.redirect_stdout(said):
            with common.lock():
                waiter = threading.Thread(target=lambda: contextlib.ExitStack().enter_context(common.lock()))
                waiter.start()
                while "..." not in said.getvalue():
                    waiter.join(0.01)
            waiter.join()
            self.assertRegex(said.getvalue(), rf"^waiting for `make something` in {common.REPO}, "
                                              r"since \d\d:\d\d:\d\d \(process \d+\), which uses \S+ \.\.\.\n$")
            said.truncate(0)
            with common.lock(), common.lock("other"):
                self.assertEqual(said.getvalue(), "")


class Verdict(unittest.TestCase):
    """What becomes of the cases."""

    GUEST = qemu.Guest("x86_64", "plain", variants.Variant(""), None, None)

    def test_guest_cases(self):
        """A test in the guest that failed, and one that never ended."""
        found = run.guest_cases(self.GUEST, ["a", "b"], ["dma-rs: guest test a failed: why"])
        self.assertEqual([(each.name, each.status) for each in found],
                         [("a", results.FAILED), ("guest:plain", results.FAILED)])

    def test_slots(self):
        """Tests that need the same ports share them; one that needs none has none."""
        for tests, slots in ((("sweep",), ()), (("reset", "unplug"), variants.EDU_SLOTS),
                             (("unplug", "rebind", "nic_unplug"),
                              variants.EDU_SLOTS + variants.NIC_SLOTS)):
            with self.subTest(tests):
                self.assertEqual(variants.slots(tests), slots)

    def test_machine(self):
        """Each device of the slots is in one, and the cable has two ends. No QEMU is asked."""
        self.enterContext(mock.patch.object(qemu, "properties", lambda *_: ()))
        guest = dataclasses.replace(self.GUEST, slots=variants.slots(("unplug", "nic_unplug")))
        words = guest.machine_arguments()
        self.assertEqual(sum("bus=port" in word for word in words), 2 * (1 + 7 * 7))
        self.assertEqual(words.count("-netdev"), 0)
        words = dataclasses.replace(guest, cable="/folder").machine_arguments()
        self.assertEqual(words.count("-netdev"), 2)
        self.assertEqual(sum("netdev=" in word for word in words), 2)
        for end in ("/folder/0", "/folder/1"):
            self.assertEqual(sum(f"local.path={end}," in word for word in words), 1)
            self.assertEqual(sum(f"remote.path={end}" in word for word in words), 1)

    def test_counted(self):
        """Failures and skips are shown."""
        cases = [case("a", results.PASSED), case("b", results.FAILED), case("c", results.SKIPPED)]
        self.assertEqual(results.summary(cases), "1 passed, 1 failed, 1 skipped")
        self.assertEqual(results.cell(cases), "1 1 FAILED 1 skip")
        self.assertEqual([line.split()[0] for line in results.misses(cases)], ["FAILED", "SKIPPED"])


class Bench(unittest.TestCase):
    """What is made of counts."""

    KERNEL = bench.Kernel("x86_64", "bench", ("plain",))

    def count(self, rust, c=100, name="op"):
        """A document with one count."""
        rows = [(name, "c", "10", str(c * 10 + 50), str(c * 10 + 70)), (name, "device", "10", "50", "50"),
                (name, "rust", "10", str(rust * 10 + 50), str(rust * 10 + 50))]
        return {"counts": bench.counts(self.KERNEL, "plain", rows)}

    def test_counts(self):
        """What the device of a ring costs isn't counted."""
        one = self.count(90)["counts"][0]
        self.assertEqual((one["c"], one["rust"], one["ratio"], one["lowest"]), (100, 90, 0.9, None))
        self.assertEqual(one["spread"]["c"], 2)

    def test_worse(self):
        """Over an instruction more than before, against C."""
        before = self.count(90)
        for rust, c, complaints in ((90, 100, 0), (91, 100, 0), (92, 100, 1), (92, 102, 0), (90, 98, 1),
                                    (50, 100, 0)):
            with self.subTest((rust, c)):
                self.assertEqual(len(bench.worse(self.count(rust, c)["counts"], before)), complaints)

    def test_worse_interface(self):
        """For a network interface, over a per cent."""
        before = self.count(1000, 1000, "interface/send/60")
        for rust, complaints in ((1009, 0), (1011, 1)):
            with self.subTest(rust):
                now = self.count(rust, 1000, "interface/send/60")["counts"]
                self.assertEqual(len(bench.worse(now, before)), complaints)

    def test_unknown(self):
        """What the baseline doesn't have can't be compared, and is named."""
        counts = self.count(90)["counts"]
        self.assertEqual(bench.worse(counts, {"counts": []}), [])
        self.assertEqual(bench.unknown(counts, {"counts": []}), ["op on x86_64 dma-direct"])
        self.assertEqual(bench.unknown(counts, {"counts": counts}), [])

    def test_judge(self):
        """What is compared is the baseline as it was, not what it becomes; worse counts don't become it."""
        for rust, compare, status, now in ((92, True, 1, 90), (91, True, 0, 91), (92, False, 0, 92)):
            with self.subTest((rust, compare)), tempfile.TemporaryDirectory() as folder:
                baseline = pathlib.Path(folder) / "baseline.json"
                baseline.write_text(json.dumps(self.count(90)))
                with mock.patch.multiple(bench, BASELINE=baseline, REPO=baseline.parent,
                                         FIGURES=baseline.with_suffix(".rst"), say=lambda _: None,
                                         figures=lambda _: ""):
                    self.assertEqual(bench.judge(self.count(rust), compare, True), status)
                self.assertEqual(json.loads(baseline.read_text())["counts"][0]["rust"], now)

    def test_speeds(self):
        """The slowest CPU ends a round; the best round counts."""
        rows = [("c", "100", "50"), ("c", "100", "100"), ("rust", "100", "50"), ("rust", "100", "50"),
                ("c", "100", "400"), ("c", "100", "400")]
        self.assertEqual(bench.speeds(rows, 2), {"c": 2e9, "rust": 4e9})

    def test_lost_frames(self):
        """A speed at which frames are lost is none."""
        rows = [("c", "64", "10", "1000", "0"), ("rust", "64", "9", "1000", "1")]
        with self.assertRaises(Fail):
            bench.frames(self.KERNEL, "plain", rows)


class Misuse(unittest.TestCase):
    """What is said of a program that must not compile, and of its repair."""

    TEXT = """//@revisions: ok bad

//! It is moved, and used.
//!
//! C: It compiles.
//! Shows: Now and then,
//!   with other machines.

pub fn f() {
    one();
    two(); //~[bad] E0382
}
"""
    MOVED = ("E0382", 11)

    @staticmethod
    def diagnostic(code, line, level="error", text="", file="s/p"):
        """As rustc has it in JSON."""
        span = {"file_name": f"/somewhere/{file}.rs", "line_start": line, "is_primary": True, "label": text or None,
                "expansion": None}
        return {"level": level, "code": {"code": code} if code else None, "message": text or "wrong",
                "spans": [span] if line else [], "children": []}

    def judge(self, bad, good=(), text=TEXT, codes=None):
        """Complaints about a program with such diagnostics."""
        codes = codes or (int(bool(bad)), int(bool(good)))
        outputs = {name: (code, [one if isinstance(one, dict) else self.diagnostic(*one) for one in found])
                   for name, code, found in zip(("bad", "ok"), codes, (bad, good))}
        return list(misuse.complaints(misuse.Program("s/p", text), outputs))

    def test_right(self):
        """The error may come twice, after a warning, and with a last word."""
        self.assertEqual(self.judge([self.MOVED]), [])
        self.assertEqual(self.judge([("unused", 9, "warning"), self.MOVED, self.MOVED,
                                     ("", None, "error", "aborting due to 2 previous errors")]), [])

    def test_wrong(self):
        """Another code, another line, another file, one error more, none at all."""
        for bad, complaints in (
                ([("E0505", 11)], ["the mistake isn't found: no E0382 in line 11",
                                   "the mistake has an error that isn't expected: E0505 in line 11"]),
                ([("E0382", 10)], ["the mistake isn't found: no E0382 in line 11",
                                   "the mistake has an error that isn't expected: E0382 in line 10"]),
                ([("E0382", 11, "error", "", "s/q")],
                 ["the mistake isn't found: no E0382 in line 11",
                  "the mistake has an error that isn't expected: E0382 in another file"]),
                ([self.MOVED, ("E0505", 10)], ["the mistake has an error that isn't expected: E0505 in line 10"]),
                ([self.MOVED, ("", 10, "error", "odd")],
                 ["the mistake has an error that isn't expected: odd in line 10"]),
                ([], ["the mistake compiles: no E0382 in line 11"])):
            with self.subTest(bad):
                self.assertEqual(self.judge(bad), complaints)

    def test_repair(self):
        """It compiles, without a warning. A compiler that dies has compiled nothing."""
        self.assertEqual(self.judge([self.MOVED], [("E0308", 10)]),
                         ["the repair doesn't compile cleanly: E0308 in line 10"])
        self.assertEqual(self.judge([self.MOVED], [("unused_mut", 10, "warning")], codes=(1, 0)),
                         ["the repair doesn't compile cleanly: unused_mut in line 10"])
        self.assertEqual(self.judge([self.MOVED], codes=(1, 101)), ["the repair doesn't compile: 101"])

    def test_swapped(self):
        """The mistake is the repair, and the other way round."""
        self.assertEqual(self.judge([], [self.MOVED]),
                         ["the mistake compiles: no E0382 in line 11",
                          "the repair doesn't compile cleanly: E0382 in line 11"])

    def test_annotations(self):
        """Without one nothing is expected; one for the line above; an error without a code."""
        without = self.TEXT.replace(" //~[bad] E0382", "")
        self.assertEqual(self.judge([self.MOVED], text=without),
                         ["no error is expected", "the mistake has an error that isn't expected: E0382 in line 11"])
        self.assertEqual(self.judge([("E0382", 10)], text=self.TEXT.replace("[bad] ", "[bad]^ ")), [])
        lifetime = self.TEXT.replace("E0382", "ERROR: may not live")
        self.assertEqual(self.judge([("", 11, "error", "it may not live long")], text=lifetime), [])
        self.assertEqual(len(self.judge([("E0382", 11, "error", "it may not live long")], text=lifetime)), 2)
        self.assertEqual(len(self.judge([self.MOVED], text=lifetime)), 2)

    def test_form(self):
        """What the runner would overlook."""
        for old, new, complaint in (
                ("//~[bad]", "//~", "an annotation isn't of the form"), ("ok bad", "bad ok", "it needs a line"),
                ("//@rev", "//@check-pass\n//@rev", "doesn't know //@check-pass"), ("! C:", "! D:", "its comment needs")):
            with self.subTest(new):
                found = list(misuse.Program("s/p", self.TEXT.replace(old, new, 1)).form())
                self.assertTrue(any(complaint in one for one in found), found)

    def test_comment(self):
        """What the page says of it."""
        program = misuse.Program("s/p", self.TEXT)
        self.assertEqual(program.title, "It is moved, and used.")
        self.assertEqual(program.fields, {"C": "It compiles.", "Shows": "Now and then, with other machines."})
        says = self.TEXT.replace("//! Shows", "//! Says: use it before\n//! Shows")
        self.assertEqual(self.judge([("E0382", 12, "error", "use it before")], text=says), [])
        self.assertEqual(self.judge([("E0382", 12)], text=says), ["the compiler doesn't say: use it before"])

    def test_instantiated(self):
        """An assertion in the kernel crate, of what the program asks for, directly or not."""
        failed = ("E0080", 7, "error", "too large", "dma")
        note = self.diagnostic("", 11, "note", misuse.INSTANTIATED)
        here = self.TEXT.replace("E0382", "E0080")
        self.assertEqual(self.judge([failed, note], text=here), [])
        self.assertEqual(len(self.judge([failed], text=here)), 2)
        elsewhere = self.TEXT.replace(" //~[bad] E0382", "").replace("\n\n", "\n//@error-in-other-file: too large\n\n", 1)
        self.assertEqual(self.judge([failed], text=elsewhere), [])
        self.assertEqual(len(self.judge([("E0080", 7, "error", "too small", "dma")], text=elsewhere)), 2)

    def test_words(self):
        """The command of a sample, without its files."""
        command = ("savedcmd_a.o := OBJTREE=/b RUST_MODFILE=a rustc --edition=2021 -Zcrate-attr='feature(c,d)' "
                   "--out-dir a/ --emit=dep-info=a.d --emit=obj=a.o /src/a.rs ; ./objtool a.o\n\nsource_a.o := x\n")
        self.assertEqual(misuse.words_of(command), ["rustc", "--edition=2021", "-Zcrate-attr=feature(c,d)"])

    def test_chosen(self):
        """They aren't slow, and are compiled for one architecture, unless they are named."""
        for suite, slow, arch, variant, some in (
                ("", False, "x86_64", "", True), ("misuse", False, "arm64", "plain", True),
                ("misuse.ring/*", False, "x86_64", "", True), ("rust_dma*", False, "x86_64", "", False),
                ("", True, "x86_64", "", False), ("", False, "arm64", "", False), ("", False, "x86_64", "plain", False)):
            with self.subTest((suite, slow, arch, variant)):
                options = argparse.Namespace(arch=arch, variant=variant)
                self.assertEqual(bool(run.programs(options, Selection(suite, slow))), some)
        self.assertTrue(all(program.name.startswith("ring/") for program in Selection("misuse.ring/*").programs()))
        self.assertFalse(Selection("misuse").kunit)

    def test_page(self):
        """The page says what the programs are, and its proofs exist. If not: make misuserst."""
        self.assertFalse(misuse_rst.is_stale())
        for proof in ("ring/nothing", "rust_dma_ring_sim.nothing", "controls.nothing", "guest.nothing", "doc.nothing"):
            self.assertFalse(misuse_rst.is_there(proof), proof)


class Series(unittest.TestCase):
    """What comes with which commit."""

    LATER = stages.Later(files=frozenset({"a/b/late.rs", "a/late.c", "a/late/x.c", "docs/late/x.rst"}),
                         switches=frozenset({"CONFIG_LATE"}), here=frozenset({"a/b/soon.rs", "a/late.rs", "a/soon.c"}))

    def check(self, path, text, expected, original=""):
        """What is left of a file's text."""
        self.assertEqual(stages.without(path, text.encode(), original.encode(), self.LATER).decode(), expected)

    def test_rust(self):
        """A module goes with all that belongs to it, and the list stays one that rustfmt leaves alone."""
        self.check("a/b.rs", "mod early;\n/// Doc.\n#[cfg(X)]\npub(crate) mod late;\nmod soon;\n",
                   "mod early;\nmod soon;\n")
        self.check("a/b.rs", "mod late;\n\npub use self::{\n    late::{\n        A,\n        B, //\n    },\n"
                   "    soon::C,\n    soon::D, //\n};\n", "pub use self::{\n    soon::C,\n    soon::D, //\n};\n")
        self.check("a/b.rs", "pub use self::{\n    soon::{\n        A,\n        B, //\n    },\n    late::C, //\n"
                   "};\nmod late;\n", "pub use self::soon::{\n    A,\n    B, //\n};\n")
        self.check("a/b.rs", "mod late;\n#[cfg(X)]\npub use self::late::{\n    A,\n    B, //\n};\nuse c;\n", "use c;\n")

    def test_crate_root(self):
        """A root's modules lie beside it; those of others in a folder, even if the same name is beside."""
        self.check("a/b/main.rs", "mod soon;\nmod late;\n", "mod soon;\n")
        self.check("a/b.rs", "mod late;\n", "")

    def test_kconfig(self):
        """Entries go with the comment above, and what selects them."""
        self.check("a/Kconfig", "config A\n\tbool\n\tselect LATE\n\n# Why.\nconfig LATE\n\tbool\n\n# B.\n"
                   "config B\n\tbool\n", "config A\n\tbool\n\n# B.\nconfig B\n\tbool\n")
        self.check("a/Kconfig", "config A\n\tbool\n\n# Why.\nconfig LATE\n\tbool\n", "config A\n\tbool\n")

    def test_lists(self):
        """Makefiles, includes, MAINTAINERS, configurations."""
        self.check("a/Makefile", "obj-y += soon.o\nobj-y\t+= late.o\nobj-$(CONFIG_A) += late/\n"
                   "obj-$(CONFIG_LATE) += soon.o\n", "obj-y += soon.o\n")
        self.check("a/all.c", '#include "late.c"\n#include "soon.c"\n', '#include "soon.c"\n')
        self.check("MAINTAINERS", "F:\ta/\nF:\ta/late/\nF:\tdocs/l*/\nF:\ta/*.c\n", "F:\ta/\nF:\tdocs/l*/\nF:\ta/*.c\n")
        self.check("a/.kunitconfig", "CONFIG_A=y\nCONFIG_LATE=y\n", "CONFIG_A=y\n")

    def test_the_kernels_own(self):
        """What the original has is left alone."""
        self.check("MAINTAINERS", "F:\tdocs/\nF:\ta/late/\n", "F:\tdocs/\n", original="F:\tdocs/\n")

    def commit(self, name, *names):
        """A commit that brings something."""
        return stages.Commit(stages.FOLDER / f"{name}.patch", name, "", names, "")

    def test_schedule(self):
        """The better name wins, and each file has one."""
        commits = [self.commit("s/1", "a/"), self.commit("s/2", "a/late.c")]
        self.assertEqual(stages.schedule(commits, ["a/late.c", "a/x"]), {"a/late.c": 1, "a/x": 0})
        for names, paths in ((("a/", "b/"), ["a/x", "b/x", "c/x"]), (("a/x", "a/x"), ["a/x"]),
                             (("a/", "b/"), ["a/x"])):
            with self.subTest(names), self.assertRaises(Fail):
                stages.schedule([self.commit(str(at), name) for at, name in enumerate(names)], paths)

    def test_forms(self):
        """Before a commit that has hunks to a file, the file is without them."""
        def described(number, old, new):
            hunk = f"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-{old}\n+{new}\n end\n" if old else ""
            return stages.Commit(stages.FOLDER / f"s/{number}.patch", "", "", (), hunk)
        commits = [described(0, "", ""), described(1, "one", "two"), described(2, "two", "three")]
        ours = {"x": (b"three\nend\n", 0o644), "y": (b"", 0o644)}
        self.assertEqual([form["x"][0] for form in tree.forms(commits, ours)],
                         [b"one\nend\n", b"two\nend\n", b"three\nend\n"])
        with self.assertRaises(Fail):
            tree.forms(commits, {"x": (b"four\nend\n", 0o644)})

    def test_lock_of_an_ended_git(self):
        """It is in nobody's way."""
        with tempfile.TemporaryDirectory() as name, \
             mock.patch.object(series, "CACHE", pathlib.Path(name)):
            repository = series.Repository(source.Source(pathlib.Path(name, "linux"), "7.3"))
            common.write(repository.copy.home / "base", common.checksum(["7.3", ""]).encode())
            left = repository.folder / ".git/index.lock"
            common.write(left, b"")
            repository.ensure()
            self.assertFalse(left.exists())

    def test_chosen(self):
        """Numbers, ranges and globs."""
        made = [mock.Mock(number=number, commit=mock.Mock()) for number in range(1, 5)]
        for one in made:
            one.commit.name = f"{one.number // 3}-stage/{one.number}"
        for words, expected in (("", "1234"), ("2", "2"), ("3..", "34"), ("..2", "12"), ("2..3 4", "234"), ("1-*", "34")):
            with self.subTest(words):
                found = series_check.chosen(made, words.split())
                self.assertEqual("".join(str(one.number) for one in found), expected)
        with self.assertRaises(Fail):
            series_check.chosen(made, ["9"])


class Kselftest(unittest.TestCase):
    """What the kernel's own tests say, and how two drivers compare."""

    def check(self, text, status, **expected):
        """Asserts the names of the outcomes of some output."""
        found = {name: outcome.name.lower() for name, outcome in kselftest.outcomes(text, status).items()}
        self.assertEqual(found, expected)

    def test_cases(self):
        """In Python and in shell; of cases of the same name the worst counts."""
        self.check("TAP version 13\n1..4\nok 1 a\nnot ok 2 b\nok 3 c # SKIP none\nnot ok 4 d # XFAIL\n", 1,
                   a="passes", b="fails", c="does_not_apply", d="does_not_apply")
        self.check("# ok 1 a\n# Totals: pass:1\n", 0, a="passes")
        self.check("TEST: a    [ OK ]\nTEST: b   [FAIL]\n\twhy\nTEST: c   [SKIP]\n", 1,
                   a="passes", b="fails", c="does_not_apply")
        self.check("ok 1 a\nnot ok 2 a\nok 3 a\n", 1, a="fails")

    def test_status(self):
        """It counts where the cases don't say it."""
        self.check("SKIP: no mausezahn\n", kselftest.NOT_APPLICABLE, all="does_not_apply")
        self.check("", 0, all="passes")
        self.check("", 1, all="fails")
        self.check("ok 1 a\n", 124, a="passes", all="fails")

    def failed(self, theirs, ours):
        """The names of the cases that are worse with ours."""
        cases = kselftest.compared("t", *({name: kselftest.Outcome(int(outcome)) for name, outcome in
                                           (word.split("=") for word in words.split())} for words in (theirs, ours)))
        return [case.name for case in cases if case.status == results.FAILED]

    def test_comparison(self):
        """Only what is worse with ours fails, also a test that dies there."""
        self.assertEqual(self.failed("a=2 b=2 c=0 d=2", "a=2 b=1 c=0 e=2"), ["b", "d"])
        self.assertEqual(self.failed("a=2 b=1", "a=2 all=0"), ["all"])
        self.assertEqual(self.failed("a=2 all=0", "a=2 all=0"), [])
        self.assertEqual(self.failed("a=2", ""), ["tried", "a"])

    def test_left_out(self):
        """What is left out as a whole may be named otherwise; what fails where it doesn't apply with C is worse."""
        self.assertEqual(self.failed("a=2 group-b=1 group-c=0", "a=2 b=1 c=1"), [])
        self.assertEqual(self.failed("a=2 b=1", "a=2 group-b=0"), ["group-b"])

    def test_best(self):
        """The best of some attempts counts."""
        fails, passes = kselftest.Outcome.FAILS, kselftest.Outcome.PASSES
        self.assertEqual(kselftest.best({"a": fails, "b": passes}, {"a": passes, "b": fails}),
                         {"a": passes, "b": passes})
        self.assertEqual(kselftest.best({"a": fails, "b": passes}, {"all": fails}), {"a": fails, "b": passes})
        self.assertEqual(kselftest.best({"all": fails}, {"a": fails}), {"a": fails})
        self.assertEqual(kselftest.best({"all": fails}, {"all": passes}), {"all": passes})
        self.assertEqual(kselftest.best({"all": fails}, {"all": fails}), {"all": fails})


class Floors(unittest.TestCase):
    """What a file imports."""

    @staticmethod
    def found(text, module=("dma", "ring", "memory")):
        """Kind and path of each import."""
        return [(one.kind, "::".join(one.path)) for one in floors.imports("x.rs", text, module)]

    def test_trees(self):
        """Lists, renames and globs."""
        self.assertEqual(self.found("use super::{self, super::{a::B as C, d::*}, //\n};\n"),
                         [("code", "dma::ring"), ("code", "dma::a::B"), ("code", "dma::d::*")])

    def test_paths(self):
        """In code; and of a module that was imported."""
        self.assertEqual(self.found("use crate::dma;\nfn f() { crate::pci::g(dma::Session::h()) }\n"),
                         [("code", "dma"), ("code", "pci::g"), ("code", "dma::Session::h")])
        self.assertEqual(self.found("fn f(dma: u8) { dma::g() } // crate::pci\n"), [])

    def test_kinds(self):
        """Tests, hooks, examples and links."""
        self.assertEqual(self.found("mod tests {\n    use crate::dma::sim;\n}\nuse crate::dma::a;\n"),
                         [("test", "dma::sim"), ("code", "dma::a")])
        self.assertEqual(self.found("fn f() {\n    #[cfg(CONFIG_RUST_DMA_SIM)]\n    super::super::sim::f();\n"
                                    "    super::g();\n}\n"), [("hook", "dma::sim::f"), ("code", "dma::ring::g")])
        self.assertEqual(self.found("/// See [`S`](super::S).\n///\n/// ```\n/// # use kernel::dma::T;\n/// ```\nfn f() {}\n"),
                         [("docs", "dma::ring::S"), ("docs", "dma::T")])

    def test_complaints(self):
        """Down is right, up is wrong; tests may do as they like."""
        def complains(here, there, kind="code"):
            return bool(floors.complaint(here, there, floors.Import("x.rs", 1, kind, ("x",))))
        for here, there, kind in (("session", "mapping", "code"), ("bus", "session", "code"), ("sim", "ring", "code"),
                                  ("mapping", "sim", "hook"), ("ring", "transfer", "code"), ("mapping", "bus", "docs")):
            self.assertFalse(complains(here, there, kind), (here, there))
        for here, there, kind in (("mapping", "session", "code"), ("mapping", "ring", "docs"), ("session", "bus", "code"),
                                  ("mapping", "sim", "code")):
            self.assertTrue(complains(here, there, kind), (here, there))

    def test_circles(self):
        """Also of more than two."""
        self.assertEqual(floors.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}), [("a", "b", "c")])


@dataclasses.dataclass(frozen=True)
class Fault:
    """What schemata.py wants to know of one."""

    old: str
    new: str
    file: str = "a.rs"


class Schemata(unittest.TestCase):
    """Many faults in one kernel."""

    CODE = """
// fn comment() { '
const fn known() -> u8 { 1 }
fn strange<'a>(x: [u8; { 1 }], c: &'a str) -> char where Self: Sized {
    let f = |s: &str| { s == "}\\"" || s == r#"{"# };
    if f(c) { 'a' } else { '\\'' }
}
trait T {
    fn none(&self);
    fn outer(&self) -> fn(u8) -> u8 {
        fn inner(x: u8) -> u8 {
            x + 1
        }
        let _ = '{'; // }
        inner
    }
}
"""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "a.rs").write_text(self.CODE)

    def choose(self, *faults):
        """The faults that can be chosen at run time."""
        return schemata.choose([Fault(old, new) for old, new in faults], self.folder)

    def test_functions(self):
        """Strings, comments, types and declarations don't count."""
        self.assertEqual([(self.CODE[one.start:one.end].split()[0], one.fixed) for one in schemata.functions(self.CODE)],
                         [("1", True), ("let", False), ("fn", False), ("x", False)])

    def test_chosen(self):
        """What is in a body, and can be there with others; what old and new have in common counts for nothing."""
        self.assertEqual(len(self.choose(("{ 1 }\nfn strange", "{ 2 }\nfn strange"))), 0)
        self.assertEqual(len(self.choose(("c: &'a str", "c: &'static str"))), 0)
        self.assertEqual(len(self.choose(("fn inner(x: u8) -> u8 {\n            x", "fn inner(x: u8) -> u8 {\n            9"))), 1)
        self.assertEqual(len(self.choose(("{ 'a' }", "{ 'b' "))), 0)
        self.assertEqual(len(self.choose(("f(c)", "true"), ("'a'", "'b'"), ("x + 1", "x"))), 3)
        self.assertEqual(len(self.choose(("x + 1", "x"), ("'{'", "'}'"))), 1)

    def test_switched(self):
        """Each body once for each fault and once without; complaints are about the one that they are in."""
        chosen = self.choose(("f(c)", "true"), ("'a'", "'b'"), ("x + 1", "x"))
        one = schemata.files(chosen, {"a.rs": self.CODE})["a.rs"]
        self.assertTrue(schemata.balanced(one.text))
        self.assertEqual((one.text.count("if f(c)"), one.text.count("if true"), one.text.count("'b'")), (2, 1, 1))
        lines = one.text.splitlines()
        for words, numbers in (("if true", {1}), ("'b'", {2}), ("trait T", set())):
            place = 1 + next(number for number, line in enumerate(lines) if words in line)
            log = f"error[E1]: no\n  --> {self.folder}/a.rs:{place}:5\n   |\n\nwarning: x\n --> a.rs:1:1\n"
            self.assertEqual(schemata.blamed(log, {"a.rs": one}), numbers)

    def test_c(self):
        """Functions of C, unless they have labels."""
        code = ("struct s x = {\n\t.y = 1,\n};\n\nint f(int i)\n{\n\tif (i)\n\t\treturn 2;\n\treturn 3;\n}\n\n"
                "int g(int i)\n{\n\tif (i)\n\t\tgoto out;\n\ti = 4;\nout:\n\treturn i;\n}\n")
        (self.folder / "a.c").write_text(code)
        chosen = schemata.choose([Fault(old, old + "0", "a.c") for old in ("= 1", "2", "3", "4")], self.folder)
        self.assertEqual([fault.old for fault in chosen.values()], ["2", "3"])
        one = schemata.files(chosen, {"a.c": code})["a.c"]
        self.assertEqual([one.text.count(f"return {value};") for value in (2, 20, 3, 30)], [2, 1, 2, 1])
        place = 1 + next(number for number, line in enumerate(one.text.splitlines()) if "30" in line)
        log = f"{self.folder}/a.c:{place}:5: error: no\na.c:1:1: warning: x\n"
        self.assertEqual(schemata.blamed(log, {"a.c": one}), {2})


if __name__ == "__main__":
    unittest.main()
