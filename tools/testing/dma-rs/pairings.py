#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Has the kernel's own driver and ours, at both ends of a cable, carry pings of each length and hundreds of
megabytes, in all four pairings: initramfs/pairings.sh says how."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "scripts"))

# pylint: disable=wrong-import-position
import build
import console
import oracle
import results
import run
import userspace
from common import OUT, main, say

HERE = pathlib.Path(__file__).resolve().parent
PAIRINGS = ("pairing_c_c", "pairing_rust_c", "pairing_c_rust", "pairing_rust_rust")


def cli():
    """Command line."""
    options = build.arguments(__doc__).parse_args()
    guest = userspace.prepare(options.ksrc)
    say(f"carrying frames in {len(PAIRINGS)} pairings")
    guest, ended = userspace.boot(guest, "pairings", "pairings", HERE, OUT)
    lines = console.read(guest.log)
    cases = [*run.guest_cases(guest, PAIRINGS, lines), run.check("log", guest, oracle.judge(lines)),
             run.check("boot", guest, [ended] if ended else [])]
    run.explain(cases, guest.arch)
    results.write_json("pairings", cases)
    say("\n".join([*results.misses(cases), results.summary(cases)]))
    return 0 if all(case.status == results.PASSED for case in cases) else 1


if __name__ == "__main__":
    main(cli)
