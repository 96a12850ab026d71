# SPDX-License-Identifier: GPL-2.0
"""Reads a recorded console as the kernel meant it.

When a WARN takes the serial console over from the printing thread, the record that was just being
printed is printed again from its start. What was there before of it, all or a part, is dropped here:
otherwise one line looks like two, and a torn one like something else."""

import re

STAMPED = re.compile(r"\[ *\d+\.\d+\] .")

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
