# SPDX-License-Identifier: GPL-2.0
"""Reads a recorded console as the kernel meant it.

When a WARN takes the serial console over from the printing thread, the record that was just being
printed is printed again from its start. What was there before of it, all or a part, is dropped here:
otherwise one line looks like two, and a torn one like something else."""

import re

STAMPED = re.compile(r"\[ *\d+\.\d+\] .")

# A suite announces itself in two lines: this one, and its name; for all suites it is the plan.
HEADER = "KTAP version 1"
SECOND = re.compile(r"\] *(# Subtest: |1\.\.\d+$)")

# No record has as many lines.
WINDOW = 8


def read(path):
    """The lines of a log."""
    lines = path.read_text(errors="replace").splitlines()
    return [line for number, line in enumerate(lines)
            if not (STAMPED.match(line) and printed_again(line, lines[number + 1:number + 1 + WINDOW]))]


def printed_again(line, following):
    """Whether a line, or the rest of it too, comes once more with the same time stamp."""
    return any(other.startswith(line) for other in following)


def for_kunit(lines):
    """The lines as kunit.py can read them: it wants a suite's two first lines together, but what
    something else in the kernel prints may come in between."""
    kept, waiting = [], False
    for line in lines:
        if waiting and STAMPED.match(line) and not SECOND.search(line):
            kept.insert(-1, line)
        else:
            kept.append(line)
            waiting = line.endswith(HEADER)
    return kept
