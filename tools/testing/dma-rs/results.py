# SPDX-License-Identifier: GPL-2.0
"""Test results: read from kunit.py, shown as a table, written as JSON and JUnit XML."""

import collections
import dataclasses
import json
import xml.etree.ElementTree as ET

from common import OUT

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
KUNIT_STATUS = {"PASS": PASSED, "SKIP": SKIPPED}


@dataclasses.dataclass(frozen=True)
class Case:
    """One test in one boot."""

    variant: str
    suite: str
    name: str
    status: str
    detail: str = ""


def from_kunit(variant, group):
    """The cases in what `kunit.py parse --json` wrote."""
    def walk(node, path):
        for test in node["test_cases"]:
            suite, *rest = (*path, test["name"])
            yield Case(variant, suite, "/".join(rest) or suite, KUNIT_STATUS.get(test["status"], FAILED))
        for child in node["sub_groups"]:
            yield from walk(child, (*path, child["name"]))

    return list(walk(group, ()))


def count(cases):
    """How many passed, failed and skipped."""
    tally = collections.Counter(case.status for case in cases)
    return {status: tally[status] for status in (PASSED, FAILED, SKIPPED)}


def summary(cases):
    """The line that ends every run."""
    return ", ".join(f"{number} {status}" for status, number in count(cases).items())


def cell(cases):
    """A table cell: how many passed, and what did not."""
    tally = count(cases)
    text = str(tally[PASSED]) if cases else "-"
    text += f" {tally[FAILED]} FAILED" if tally[FAILED] else ""
    return text + (f" {tally[SKIPPED]} skip" if tally[SKIPPED] else "")


def table(cases):
    """Suites by variants."""
    variants = list(dict.fromkeys(case.variant for case in cases))
    suites = list(dict.fromkeys(case.suite for case in cases))
    rows = [["suite", *variants]]
    for suite in suites:
        rows.append([suite, *(cell([case for case in cases if (case.suite, case.variant) == (suite, variant)])
                              for variant in variants)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def misses(cases):
    """A line for each that did not pass: what it is, and where."""
    return [f"{case.status.upper()} {case.suite}.{case.name} on {case.variant}"
            for case in cases if case.status != PASSED]


def write_json(title, cases):
    """out/<title>-results.json"""
    document = {"run": title, "summary": count(cases), "tests": [dataclasses.asdict(case) for case in cases]}
    (OUT / f"{title}-results.json").write_text(json.dumps(document, indent=1) + "\n")


def write_junit(title, cases):
    """out/<title>-junit.xml"""
    root = ET.Element("testsuites", name="dma-rs")
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case.variant, case.suite].append(case)
    for (variant, suite), members in groups.items():
        tally = count(members)
        node = ET.SubElement(root, "testsuite", name=f"{title}.{variant}.{suite}", tests=str(len(members)),
                             failures=str(tally[FAILED]), skipped=str(tally[SKIPPED]))
        for case in members:
            test = ET.SubElement(node, "testcase", classname=f"{title}.{variant}.{suite}", name=case.name)
            if case.status != PASSED:
                printable = "".join(char for char in case.detail if char.isprintable() or char == "\n")
                ET.SubElement(test, "failure" if case.status == FAILED else "skipped").text = printable
    ET.indent(root)
    ET.ElementTree(root).write(OUT / f"{title}-junit.xml", encoding="utf-8", xml_declaration=True)
