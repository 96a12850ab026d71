# SPDX-License-Identifier: GPL-2.0
"""Judges a kernel log: finds what KUnit itself does not notice.

A test that misbehaves on purpose prints "dma-rs-expect: <text>" first: the next offending line
that contains <text> is then permitted, once, and must come. A test that makes other code of the
kernel stumble prints "dma-rs-tolerate: <text>": such lines are permitted until it prints
"dma-rs-tolerate-end"."""

import re

# Each line that matches one of these is an offence. controls.py provokes each of them, but for what
# our kernels can't print as they are configured and booted (AMD-Vi, virtio_iommu, hung tasks), for
# lines that were lost, of which any may have been one of these, and for panics: one of the kernel's ends
# the guest, which is noticed too, one of Rust's is a BUG.
OFFENCES = [re.compile(pattern) for pattern in (
    r"DMA-API:",
    r"DMAR:.*\b[Ff]ault\b",
    r"AMD-Vi: Event logged",
    r"arm-smmu.*(\bevent:? (0x|[A-Z]_)|EVTQ overflow|\bfault\b)",
    r"virtio_iommu.*\bfault\b",
    r"\bWARNING:",
    r"\bBUG\b[: ]",
    r"KASAN:",
    r"UBSAN:",
    r"ODEBUG:",
    r"pagealloc: (memory corruption|single bit error)",
    r"possible circular locking|inconsistent lock state|lockdep is turned off",
    r"\bstall(s|ed)? (on|detected)|detected (expedited )?stalls",
    r"blocked for more than \d+ seconds",
    r"\bOops\b",
    r"Kernel panic",
    r"rust_kernel: panicked",
    r"Unable to handle kernel",
    r"general protection fault",
    r"kmemleak: [1-9]\d* new suspected",
    r"\*\* \d+ printk messages dropped \*\*",
)]

# Lines that look like offences and are none. "disabled" is not among them: an oracle that is off
# sees nothing. "Mapped at" explains an offence that was printed before.
HARMLESS = re.compile(r"DMA-API: (preallocated \d+ debug entries|debugging enabled by kernel config|"
                      r"dma_debug_entry pool grown|Mapped at:)")

# Looked at strictly, the kernel has data races of its own, also in what we call: of timers, say. Reports
# have a stack for each access, and end with a line of "=". In one about us a function is in Rust, where
# names begin with "_R", or is about DMA: one that races, or its caller.
RACE = re.compile(r"BUG: KCSAN: ")
RACE_ACCESS = re.compile(r" to 0x[0-9a-f]+ of \d+ bytes by ")
RACE_END = re.compile(r"={60}")
RACE_FRAMES = 2
OURS = re.compile(r"dma|\b_R|\brust_")
# C's dql_queued() is inlined into a helper of ours. It adds to a count that dql_completed() reads at
# any time, whatever driver limits the bytes in its queue.
NOT_OURS = re.compile(r"data-race in dql_completed / rust_helper_netdev_tx_sent$")

# complete_all() asks whether its CPU handles an interrupt before it disables interrupts. On arm64 that
# takes three instructions: a thread that moves to another CPU between them reads of the one that it
# left. If it had been asked in an interrupt, the stack would say so.
MISREADS = "WARNING: at complete_all+"
IN_INTERRUPT = "Not in threaded context on PREEMPT_RT as expected"
INTERRUPT = re.compile(r"<IRQ>|\bel1_interrupt\b|\bcall_on_irq_stack\b")
TRACE_END = "---[ end trace "

EXPECT = "dma-rs-expect: "
TOLERATE = "dma-rs-tolerate: "
TOLERATE_END = "dma-rs-tolerate-end"
ERROR_COUNT = re.compile(r"dma-rs: dma-api errors (\S*)")


def offends(line):
    """Whether a line is what a healthy kernel does not print."""
    return any(offence.search(line) for offence in OFFENCES) and not HARMLESS.search(line)


def foreign_races(lines):
    """The numbers of the lines where data races are reported that nothing of ours takes part in."""
    found, start, ours, frames = set(), None, False, 0
    for number, line in enumerate(lines):
        if RACE.search(line):
            start, ours, frames = number, bool(OURS.search(line)), 0
            if NOT_OURS.search(line):
                found.add(number)
                start = None
        elif start is not None and RACE_END.search(line):
            found |= set() if ours else {start}
            start = None
        elif start is not None and RACE_ACCESS.search(line):
            frames = RACE_FRAMES
        elif frames:
            frames -= 1
            ours = ours or bool(OURS.search(line))
    return found


def misread_contexts(lines):
    """The numbers of the lines that warn of an interrupt, although a thread ran."""
    found, warned, at = set(), False, None
    for number, line in enumerate(lines):
        if IN_INTERRUPT in line:
            warned = True
        elif warned and at is None and MISREADS in line:
            at = number
        elif warned and INTERRUPT.search(line):
            warned, at = False, None
        elif at is not None and TRACE_END in line:
            found.add(at)
            warned, at = False, None
    return found


def judge(lines, dma_errors=0, dma_debug=True):
    """Returns complaints about a log, in order; none if it is clean. `dma_errors` is how many
    errors of dma-debug were permitted elsewhere; without `dma_debug` the kernel doesn't have it."""
    complaints, expected, tolerated, counted = [], [], [], None
    foreign = foreign_races(lines) | misread_contexts(lines)
    for number, line in enumerate(lines):
        if EXPECT in line:
            expected.append(line.split(EXPECT, 1)[1].strip())
        elif TOLERATE in line:
            tolerated.append(line.split(TOLERATE, 1)[1].strip())
        elif TOLERATE_END in line:
            tolerated.clear()
        elif match := ERROR_COUNT.search(line):
            counted = match[1]
        elif number not in foreign and offends(line) and not any(text in line for text in tolerated):
            permit = next((text for text in expected if text in line), None)
            if permit is None:
                complaints.append(line.strip())
            else:
                expected.remove(permit)
                dma_errors += "DMA-API:" in line
    complaints += [f"expected, but never came: {text}" for text in expected]
    if counted is None:
        complaints.append("the guest did not report dma-debug's error count")
    elif not dma_debug and counted:
        complaints.append("the kernel has dma-debug, and should not")
    elif dma_debug and counted != str(dma_errors):
        complaints.append(f"dma-debug counted {counted or 'no'} errors, {dma_errors} were expected")
    return complaints
