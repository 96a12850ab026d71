#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks litmus/*.litmus: what the orders that are argued in rust/kernel/dma/ forbid must be forbidden by
the kernel's memory model, and be allowed where a barrier is left out.

With herd7 in PATH that asks it, with the model in the tree. Else it asks a small model checker of our
own, which knows as much of the model as these tests need (see litmus/README.rst), after it has shown
on the kernel's own tests that it agrees with what is said there."""

import argparse
import dataclasses
import itertools
import pathlib
import re
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

# pylint: disable=wrong-import-position
import source
from common import Fail, lock, main, run, say

FOLDER = HERE / "litmus"
RESULT = re.compile(r"^ \* Result: (Never|Sometimes|Always)( DATARACE)?$", re.M)
FIRST_COMMENT = re.compile(r"\(\*.*?\*\)", re.S)


class Unknown(Exception):
    """Something in a test that our own checker doesn't know."""


@dataclasses.dataclass(frozen=True)
class Event:
    """An access to memory ("R" or "W"), or a fence ("F", with its kind as location)."""

    thread: int
    number: int
    kind: str
    place: str
    value: int
    # "plain", "once", "acquire", "release", "init"; of fences "".
    mark: str
    # The loads whose values decide about the value, and about whether this happens.
    data: frozenset = frozenset()
    ctrl: frozenset = frozenset()


@dataclasses.dataclass
class Test:
    """A litmus test, taken apart."""

    name: str
    init: dict
    threads: list
    condition: str
    negated: bool


# Parsing: a thread becomes a list of statements, as tuples.

TOKEN = re.compile(r"\s*(//[^\n]*|/\*.*?\*/|[A-Za-z_]\w*|\d+|==|!=|&&|\|\||/\\|\\/|[-+*&|^!=(){};,<>:~])", re.S)


def tokens(text):
    """The words of C code."""
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise Unknown(f"{text[at:at + 20]!r}")
        if not match[1].startswith(("//", "/*")):
            found.append(match[1])
        at = match.end()
    return found


class Parser:
    """Reads statements and expressions from words."""

    def __init__(self, words):
        self.words = words
        self.at = 0
        # What the expression that is being read loads, into registers without a name.
        self.loads = []

    def peek(self):
        """The next word, or ""."""
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self, *wanted):
        """Takes the next word, which must be one of these if any are given."""
        word = self.peek()
        if not word or wanted and word not in wanted:
            raise Unknown(f"{word or 'the end'!r} instead of {' or '.join(wanted)}")
        self.at += 1
        return word

    def block(self):
        """Statements in braces, or one."""
        if self.peek() != "{":
            return self.statement()
        self.take("{")
        found = []
        while self.peek() != "}":
            found += self.statement()
        self.take("}")
        return found

    def statement(self):
        """One statement: its loads, and a tuple, if it is more than a declaration."""
        self.loads, outer = [], self.loads
        found = self.plain_statement()
        loads, self.loads = self.loads, outer
        return loads + found

    def plain_statement(self):
        """One statement, without what it loads."""
        word = self.take()
        if word == "int":
            word = self.take()
            if self.peek() == ";":
                self.take()
                return []
        if word == "if":
            self.take("(")
            condition = self.expression()
            self.take(")")
            then = self.block()
            other = []
            if self.peek() == "else":
                self.take()
                other = self.block()
            return [("if", condition, then, other)]
        if word in ("smp_mb", "smp_wmb", "smp_rmb"):
            self.take("(")
            self.take(")")
            self.take(";")
            return [("fence", word[4:])]
        if word in ("WRITE_ONCE", "smp_store_release"):
            self.take("(")
            if word == "WRITE_ONCE":
                self.take("*")
            place = self.take()
            self.take(",")
            value = self.expression()
            self.take(")")
            self.take(";")
            return [("store", place, value, "once" if word == "WRITE_ONCE" else "release")]
        if word == "*":
            place = self.take()
            self.take("=")
            value = self.expression()
            self.take(";")
            return [("store", place, value, "plain")]
        if not re.fullmatch(r"[A-Za-z_]\w*", word) or self.take("=") != "=":
            raise Unknown(word)
        value = self.expression()
        self.take(";")
        return [("set", word, value)]

    def load(self, place, mark):
        """A load. Returns the register."""
        self.loads.append(("load", f"{len(self.loads)} at {self.at}", place, mark))
        return self.loads[-1][1]

    def expression(self):
        """Sums and comparisons of numbers and registers, up to what can't be a part of it."""
        left = self.primary()
        while self.peek() in ("+", "-", "==", "!=", "&", "|", "&&", "||", "<", ">"):
            left = (self.take(), left, self.primary())
        return left

    def primary(self):
        """A number, a register, a load, or something in parentheses."""
        word = self.take()
        if word == "(":
            inner = self.expression()
            self.take(")")
            return inner
        if word == "!":
            return ("==", self.primary(), 0)
        if word == "*":
            return self.load(self.take(), "plain")
        if word == "READ_ONCE":
            self.take("(")
            self.take("*")
            place = self.take()
            self.take(")")
            return self.load(place, "once")
        if word == "smp_load_acquire":
            self.take("(")
            place = self.take()
            self.take(")")
            return self.load(place, "acquire")
        if word.isdigit():
            return int(word)
        if not re.fullmatch(r"[A-Za-z_]\w*", word) or self.peek() == "(":
            raise Unknown(word)
        return word


def parse(text):
    """Takes a litmus test apart."""
    text = FIRST_COMMENT.sub("", text, count=1)
    head = re.match(r"\s*C\s+(\S+)\s*\{(.*?)\}", text, re.S)
    if not head:
        raise Unknown("no head")
    init = {}
    for words in head[2].split(";"):
        if match := re.fullmatch(r"(?:int\s+)?\*?(\w+)\s*=\s*(\d+)", words.strip()):
            init[match[1]] = int(match[2])
        elif words.strip():
            raise Unknown(words.strip())
    rest = text[head.end():]
    threads = []
    while match := re.match(r"\s*P(\d+)\s*\([^)]*\)[^{]*(?=\{)", rest):
        parser = Parser(tokens(rest[match.end():rest.index("\n}", match.end()) + 2]))
        threads.append(parser.block())
        rest = rest[rest.index("\n}", match.end()) + 2:]
    tail = re.search(r"(~?exists)\s*\((.*)\)", re.sub(r"\(\*.*?\*\)", "", rest, flags=re.S), re.S)
    if not tail:
        raise Unknown("no condition")
    return Test(head[1], init, threads, tail[2].strip(), tail[1].startswith("~"))


# What a thread may do: every load may return any value, memory decides later.

@dataclasses.dataclass
class Trace:
    """One way through a thread."""

    events: list
    registers: dict
    # The loads that each register's value comes from.
    sources: dict


def evaluate(expression, trace):
    """The value of an expression, and the loads that it comes from."""
    if isinstance(expression, int):
        return expression, frozenset()
    if isinstance(expression, str):
        return trace.registers.get(expression, 0), trace.sources.get(expression, frozenset())
    operator, left, right = expression
    (a, from_a), (b, from_b) = evaluate(left, trace), evaluate(right, trace)
    value = {"+": a + b, "-": a - b, "==": int(a == b), "!=": int(a != b), "&": a & b, "|": a | b,
             "&&": int(bool(a and b)), "||": int(bool(a or b)), "<": int(a < b), ">": int(a > b)}[operator]
    return value, from_a | from_b


def walk(statements, trace, thread, domain, ctrl):
    """All ways to go on from a trace through these statements."""
    if not statements:
        return [trace]
    first, *rest = statements
    number = len(trace.events)
    found = []
    if first[0] == "if":
        value, sources = evaluate(first[1], trace)
        for inner in walk(first[2 if value else 3], trace, thread, domain, ctrl | sources):
            found += walk(rest, inner, thread, domain, ctrl)
        return found
    if first[0] == "set":
        value, sources = evaluate(first[2], trace)
        after = Trace(trace.events, {**trace.registers, first[1]: value}, {**trace.sources, first[1]: sources})
        return walk(rest, after, thread, domain, ctrl)
    if first[0] == "fence":
        event = Event(thread, number, "F", first[1], 0, "")
        return walk(rest, Trace([*trace.events, event], trace.registers, trace.sources), thread, domain, ctrl)
    if first[0] == "store":
        value, sources = evaluate(first[2], trace)
        event = Event(thread, number, "W", first[1], value, first[3], sources, ctrl)
        return walk(rest, Trace([*trace.events, event], trace.registers, trace.sources), thread, domain, ctrl)
    for value in domain:
        event = Event(thread, number, "R", first[2], value, first[3], frozenset(), ctrl)
        after = Trace([*trace.events, event], {**trace.registers, first[1]: value},
                      {**trace.sources, first[1]: frozenset([(thread, number)])})
        found += walk(rest, after, thread, domain, ctrl)
    return found


# Relations are sets of pairs of events.

def seq(first, *others):
    """Composition."""
    for other in others:
        after = {}
        for a, b in other:
            after.setdefault(a, []).append(b)
        first = {(a, c) for a, b in first for c in after.get(b, ())}
    return first


def same(events):
    """The identity on some events."""
    return {(event, event) for event in events}


def closure(relation):
    """The transitive closure."""
    while True:
        more = relation | seq(relation, relation)
        if more == relation:
            return relation
        relation = more


def acyclic(relation):
    """Whether it has no cycle."""
    return all(a != b for a, b in closure(relation))


class Execution:
    """Events with the stores that loads read (rf) and the order of stores to each place (co), and what
    tools/memory-model/linux-kernel.cat makes of them: that without RMW, locks, RCU and pointers."""

    # The names and the order are the model's.
    # pylint: disable=too-many-instance-attributes

    def __init__(self, events, rf, co):
        self.events, self.rf, self.co = events, rf, co
        self.memory = [event for event in events if event.kind != "F"]
        self.id = same(self.memory)
        self.marked = same(event for event in self.memory if event.mark != "plain")
        self.plain = same(event for event in self.memory if event.mark == "plain")
        self.writes = same(event for event in self.memory if event.kind == "W")
        self.reads = same(event for event in self.memory if event.kind == "R")
        everything = {(a, b) for a in events for b in events}
        self.po = {(a, b) for a, b in everything
                   if a.thread == b.thread and a.number < b.number and a.mark != "init"}
        self.int = {(a, b) for a, b in everything if a.thread == b.thread}
        self.loc = {(a, b) for a, b in everything if a.kind != "F" != b.kind and a.place == b.place}
        self.ext = everything - self.int
        self.fr = {(b, c) for a, b in rf for d, c in co if a == d}
        self.order()

    def fencerel(self, kind):
        """What is before and after a fence of that kind."""
        fences = same(event for event in self.events if event.kind == "F" and event.place == kind)
        return seq(self.po, fences, self.po)

    def maybe(self, relation):
        """Reflexive."""
        return relation | self.id

    def star(self, relation):
        """Reflexive and transitive."""
        return self.maybe(closure(relation))

    def order(self):
        """The relations of the model."""
        acquire = same(event for event in self.memory if event.mark == "acquire")
        release = same(event for event in self.memory if event.mark == "release")
        by_name = {(event.thread, event.number): event for event in self.memory if event.mark != "init"}
        dep = {(by_name[name], event) for event in self.memory for name in event.data}
        ctrl = {(by_name[name], event) for event in self.memory for name in event.ctrl}
        rfi = self.rf & self.int
        carry = self.star(seq(dep, rfi))
        dep, ctrl = seq(carry, dep), seq(carry, ctrl)

        acq_po = seq(acquire, self.po, self.id)
        self.po_rel = seq(self.id, self.po, release)
        self.rmb = seq(self.reads, self.fencerel("rmb"), self.reads)
        self.wmb = seq(self.writes, self.fencerel("wmb"), self.writes)
        self.strong = seq(self.id, self.fencerel("mb"), self.id)
        self.nonrw = self.strong | self.po_rel | acq_po
        self.fence = self.nonrw | self.wmb | self.rmb

        overwrite = self.co | self.fr
        to_w = seq(dep | ctrl, self.writes) | (overwrite & self.int)
        to_r = seq(dep, self.marked, rfi)
        ppo = to_r | to_w | (self.fence & self.int)
        rfe = self.rf & self.ext
        cumul = seq(self.marked,
                    seq(self.maybe(seq(rfe, self.marked)), self.strong | self.po_rel) | self.wmb, self.marked)
        self.cumul = self.star(cumul)
        prop = seq(self.marked, self.maybe(overwrite & self.ext), self.cumul, self.marked, self.maybe(rfe),
                   self.marked)
        self.hb = seq(self.marked, ppo | rfe | ((prop - self.id) & self.int), self.marked)
        self.pb = seq(prop, self.strong, self.star(self.hb), self.marked)

    def is_consistent(self):
        """Whether the model allows it."""
        po_loc = self.po & self.loc
        return (acyclic(po_loc | self.rf | self.co | self.fr) and acyclic(self.hb) and acyclic(self.pb)
                and not self.incoherent())

    def visibility(self):
        """What is seen of plain accesses: (ww-vis, wr-vis, rw-xbstar)."""
        xbstar = self.star(self.hb | self.pb)
        vis = seq(self.cumul, self.maybe(self.rf & self.ext), self.marked,
                  seq(self.strong, self.marked, xbstar) | (xbstar & self.int))
        rmb = seq(self.reads, self.fencerel("rmb"), self.id)
        to_rmb = seq(self.id, self.fencerel("rmb"), self.reads)
        w_pre = seq(self.marked, self.maybe(self.fence))
        r_pre = seq(self.marked, self.maybe(self.nonrw | rmb))
        w_post = seq(self.maybe(self.fence), self.marked)
        r_post = seq(self.maybe(self.nonrw | to_rmb), self.marked)
        return (self.fence | seq(self.strong, xbstar, w_pre) | seq(w_post, vis, w_pre),
                self.fence | seq(self.strong, xbstar, r_pre) | seq(w_post, vis, r_pre),
                self.fence | seq(r_post, xbstar, w_pre))

    def pre_race(self):
        """Accesses of two threads, of which one is plain."""
        plain = {event for event, _ in self.plain}
        return {(a, b) for a, b in self.ext & self.loc
                if a in plain or (b in plain and a.mark != "init")}

    def incoherent(self):
        """Plain accesses that see what they can't."""
        ww_vis, wr_vis, rw_xbstar = self.visibility()
        back = [{(b, a) for a, b in relation} for relation in (rw_xbstar, wr_vis, ww_vis)]
        return self.pre_race() & (self.rf & back[0] | self.fr & back[1] | self.co & back[2])

    def races(self):
        """Accesses that race."""
        ww_vis, wr_vis, rw_xbstar = self.visibility()
        marked = {event for event, _ in self.marked}
        pre = self.pre_race()
        ww = {(a, b) for a, b in pre & self.co
              if not ((a, b) in ww_vis and (a in marked or (a, b) in rw_xbstar)
                      and (b in marked or (a, b) in wr_vis))}
        wr = {(a, b) for a, b in pre & seq(self.maybe(self.co), self.rf)
              if (a, b) not in wr_vis and (b, a) not in rw_xbstar}
        return ww | wr | ((pre & self.fr) - rw_xbstar)


def numbers(code):
    """All numbers in statements and expressions: what memory may hold."""
    if isinstance(code, (list, tuple)):
        return set().union(*map(numbers, code))
    return {code} if isinstance(code, int) else set()


def executions(test):
    """All executions that the model allows, with the registers at the end and the memory."""
    domain = sorted({0, *test.init.values(), *numbers(test.threads)})
    ways = [walk(statements, Trace([], {}, {}), thread, domain, frozenset())
            for thread, statements in enumerate(test.threads)]
    for traces in itertools.product(*ways):
        events = [event for trace in traces for event in trace.events]
        places = sorted({event.place for event in events if event.kind != "F"} | set(test.init))
        init = [Event(-1, number, "W", place, test.init.get(place, 0), "init")
                for number, place in enumerate(places)]
        events += init
        writes = {place: [event for event in events if event.kind == "W" and event.place == place
                          and event.mark != "init"] for place in places}
        reads = [event for event in events if event.kind == "R"]
        sources = [[event for event in events if event.kind == "W" and event.place == read.place
                    and event.value == read.value] for read in reads]
        for chosen in itertools.product(*sources):
            for orders in itertools.product(*(itertools.permutations(writes[place]) for place in places)):
                co = set()
                for first, order in zip(init, orders):
                    row = [first, *order]
                    co |= {(a, b) for i, a in enumerate(row) for b in row[i + 1:]}
                found = Execution(events, set(zip(chosen, reads)), co)
                if found.is_consistent():
                    last = {place: (order[-1] if order else first).value
                            for place, first, order in zip(places, init, orders)}
                    yield found, [trace.registers for trace in traces], last


def holds(condition, registers, memory):
    """Whether a condition holds at the end of an execution."""
    def value(match):
        if match[1] is not None:
            return str(registers[int(match[1])].get(match[2], 0) == int(match[3]))
        return str(memory.get(match[2], 0) == int(match[3]))

    text = re.sub(r"(?:(\d+):)?(\w+)=(\d+)", value, condition)
    text = text.replace("/\\", " and ").replace("\\/", " or ").replace("~", " not ")
    if not re.fullmatch(r"(\s|True|False|and|or|not|[()])*", text):
        raise Unknown(condition)
    return eval(text, {"__builtins__": {}})  # pylint: disable=eval-used


def own_verdict(text):
    """What our own checker says of a test, in the words of a "Result:" line."""
    test = parse(text)
    seen, races = set(), False
    for found, registers, memory in executions(test):
        seen.add(bool(holds(test.condition, registers, memory)))
        races = races or bool(found.races())
    word = {frozenset([True]): "Always", frozenset([False]): "Never"}.get(frozenset(seen), "Sometimes")
    return word + (" DATARACE" if races else "")


def herd_verdict(model, path):
    """What herd7 says of a test."""
    said = run(["herd7", "-conf", "linux-kernel.cfg", path], cwd=model)
    match = re.search(r"^Observation \S+ (Never|Sometimes|Always)\b", said, re.M)
    if not match:
        raise Fail(f"herd7 says of {path.name}:\n{said}")
    return match[1] + (" DATARACE" if re.search(r"^Flag data-race$", said, re.M) else "")


def expected(text):
    """What a test says of itself."""
    match = RESULT.search(text)
    return match[1] + (match[2] or "") if match else ""


def agrees(model):
    """Shows that our own checker says of the kernel's own tests what they say. Returns how many it
    knows."""
    known = 0
    for path in sorted((model / "litmus-tests").glob("*.litmus")):
        text = path.read_text()
        try:
            verdict = own_verdict(text)
        except Unknown:
            continue
        if expected(text) and verdict != expected(text):
            raise Fail(f"the checker is wrong about the kernel's own {path.name}: {verdict}")
        known += bool(expected(text))
    if known < 15:
        raise Fail(f"the checker knows only {known} of the kernel's own tests in {model}")
    return known


def cli():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--ksrc", default="", help="your own Linux 7.3 tree; it is copied, never changed")
    options = parser.parse_args()
    source.precheck(options.ksrc)
    with lock():
        model = source.ensure(options.ksrc).tree / "tools/memory-model"
    paths = sorted(FOLDER.glob("*.litmus"))
    herd = shutil.which("herd7")
    if herd:
        say(f"asking {herd}")
    else:
        say(f"no herd7 here: asking our own checker, which agrees with {agrees(model)} of the kernel's own tests")
    bad = 0
    for path in paths:
        text = path.read_text()
        verdict = herd_verdict(model, path) if herd else own_verdict(text)
        is_good = verdict == expected(text)
        bad += not is_good
        say(f"  {path.stem:<34} {verdict}{'' if is_good else f', BUT EXPECTED: {expected(text)}'}")
    say(f"\n{len(paths) - bad} passed, {bad} failed, 0 skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    main(cli)
