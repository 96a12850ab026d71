# SPDX-License-Identifier: GPL-2.0
"""Negative controls: an oracle that never speaks may be asleep.

The guest misbehaves on purpose, one control after the other (drivers/dma-rs/controls/controls.c),
and its log says where each begins and ends. A control passes if an oracle spoke in between: a line
that is an offence, and that says what went wrong."""

import re

import oracle
import results

SUITE = "controls"
MARK = re.compile(r"dma-rs: control (\S+) (begins|ended)")

# What is expected of the oracle, by the control.
SAYS = {name: re.compile(pattern) for name, pattern in {
    "unbind-mapped": r"DMA-API: .* device driver has pending DMA allocations while released",
    "unmap-direction": r"DMA-API: .* frees DMA memory with different direction",
    "unmap-size": r"DMA-API: .* frees DMA memory with different size",
    "unmap-device": r"DMA-API: .* tries to free DMA memory it has not allocated",
    "unmap-twice": r"DMA-API: .* tries to free DMA memory it has not allocated",
    "unmap-failed": r"DMA-API: .* tries to free an invalid DMA memory address",
    "unmap-coherent": r"DMA-API: .* frees DMA memory with wrong function",
    "free-size": r"DMA-API: .* frees DMA memory with different size",
    "map-unchecked": r"DMA-API: .* failed to check map error",
    "map-stack": r"DMA-API: .* maps memory from stack",
    "sync-unmapped": r"DMA-API: .* tries to sync DMA memory it has not allocated",
    "sync-beyond": r"DMA-API: .* tries to sync DMA memory it has not allocated",
    "sync-direction": r"DMA-API: .* syncs DMA memory with different direction",
    "read-unmapped": r"DMAR: \[DMA Read|arm-smmu-v3 .* event: F_TRANSLATION",
    "write-unmapped": r"DMAR: \[DMA Write|arm-smmu-v3 .* event: F_TRANSLATION",
    "write-freed": r"pagealloc: memory corruption",
    "use-freed": r"KASAN: slab-use-after-free",
    "use-beyond": r"KASAN: slab-out-of-bounds",
    "forget-memory": r"kmemleak: \d+ new suspected",
    "index-beyond": r"UBSAN: array-index-out-of-bounds",
    "delete-twice": r"WARNING: .*__list_del_entry_valid",
    "use-scatterlist": r"kernel BUG",
    "warn": r"WARNING: .*\bwarn\b",
    "read-null": r"\bOops\b",
    "read-wild": r"general protection fault|Unable to handle kernel",
    "sleep-atomic": r"BUG: sleeping function called from invalid context",
    "lock-irq": r"inconsistent lock state",
    "lock-order": r"possible circular locking",
    "free-queued": r"ODEBUG: free active .* work_struct",
    "stall-rcu": r"detected expedited stalls",
}.items()}


def split(lines):
    """Sorts a log: the lines of each control, the controls that ended, and the lines of none."""
    blocks, ended, outside, current = {}, set(), [], None
    for line in lines:
        if match := MARK.search(line):
            if match[2] == "ended":
                ended.add(match[1])
                current = None
            else:
                current = blocks.setdefault(match[1], [])
        else:
            (outside if current is None else current).append(line)
    return blocks, ended, outside


def complaint(name, blocks, ended):
    """What is wrong with a control, if anything."""
    if name not in ended:
        return "it did not end" if name in blocks else "it did not begin"
    offences = [line.strip() for line in blocks.get(name, ()) if oracle.offends(line)]
    if any(SAYS[name].search(line) for line in offences):
        return ""
    return "\n".join([f"no oracle said: {SAYS[name].pattern}", "what they said:",
                      *(offences or ["nothing"])])


def judge(variant, wanted, lines):
    """Returns the cases of the controls, and complaints about the rest of the log."""
    blocks, ended, outside = split(lines)
    cases = []
    for name in wanted:
        text = complaint(name, blocks, ended)
        status = results.FAILED if text else results.PASSED
        cases.append(results.Case(variant, SUITE, name, status, text))
    provoked = sum("DMA-API:" in line and oracle.offends(line)
                   for block in blocks.values() for line in block)
    return cases, oracle.judge(outside, provoked)
