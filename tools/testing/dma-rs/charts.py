#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draws what is in bench.json: one page that needs nothing else. Run by bench.py, with a Python
that has matplotlib."""

import html
import io
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams["svg.hashsalt"] = "dma-rs"
matplotlib.rcParams["svg.fonttype"] = "none"

# pylint: disable=wrong-import-position
import matplotlib.pyplot as plt

PAGE = """<!DOCTYPE html>
<html lang="en-GB">
<meta charset="utf-8">
<title>DMA in C and in Rust, counted</title>
<style>
body {{ font: 16px sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }}
th, td {{ padding: 0.1em 0.8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left; font-family: monospace }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>DMA in C and in Rust, counted</h1>
<p>Instructions that the guest's CPU executes for each time that something is done, with QEMU's
<code>-icount shift=0</code>. Ratios below 1 mean that Rust needs fewer than C.</p>
{body}
</html>
"""


def where(one):
    """Where something was counted."""
    return f"{one['arch']} {one['backend']}" + ("" if one["helpers"] else ", helpers not inlined")


def svg(figure):
    """A figure as a part of a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue().split("?>", 1)[1].split(">", 1)[1]


def ratios(items):
    """Rust against C, with the line at 1."""
    figure, axes = plt.subplots(figsize=(10, 0.28 * len(items) + 1))
    names = [one["name"] for one in items]
    colours = ["tab:green" if one["ratio"] <= 1 else "tab:red" for one in items]
    bars = axes.barh(names, [one["ratio"] for one in items], color=colours)
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("Rust / C")
    axes.invert_yaxis()
    return svg(figure)


def absolute(items):
    """How many instructions, in all three ways."""
    figure, axes = plt.subplots(figsize=(10, 0.45 * len(items) + 1))
    for shift, (column, title) in enumerate((("c", "C"), ("lowest", "lowest C"), ("rust", "Rust"))):
        axes.barh([at + 0.27 * (shift - 1) for at in range(len(items))],
                  [one[column] or 0 for one in items], height=0.25, label=title)
    axes.set_yticks(range(len(items)), [one["name"] for one in items])
    axes.set_xlabel("instructions")
    axes.legend()
    axes.invert_yaxis()
    return svg(figure)


def frames(items):
    """Frames through a NIC."""
    figure, axes = plt.subplots(figsize=(10, 0.5 * len(items) + 1))
    for shift, (column, title) in enumerate((("c", "C"), ("rust", "Rust"))):
        bars = axes.barh([at + 0.4 * (shift - 0.5) for at in range(len(items))],
                         [one[column] for one in items], height=0.38, label=title)
        axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_yticks(range(len(items)), [f"{where(one)}, {one['length']} bytes" for one in items])
    axes.set_xlabel("frames for each million of instructions")
    axes.legend()
    axes.invert_yaxis()
    return svg(figure)


def speed(items):
    """What more CPUs bring."""
    figure, axes = plt.subplots(figsize=(10, 4))
    cpus = [one["cpus"] for one in items]
    for column, title in (("c", "C"), ("rust", "Rust")):
        axes.plot(cpus, [one[column] for one in items], marker="o", label=title)
    axes.set_xticks(cpus)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("CPUs")
    axes.set_ylabel("speed, against C on one CPU")
    axes.legend()
    return svg(figure)


def lengths(items):
    """The cost against the number of descriptors of a ring."""
    figure, axes = plt.subplots(figsize=(10, 4))
    for kind, middle in (("post_reap", "post_reap/batch-32"), ("receive", "receive/recycle")):
        points = {256: one for one in items if one["name"] == middle}
        points.update((int(one["name"].rsplit("-", 1)[1]), one) for one in items
                      if one["name"].startswith(f"{kind}/ring-"))
        for column, style in (("c", "--"), ("rust", "-")):
            axes.plot(sorted(points), [points[size][column] for size in sorted(points)],
                      marker="o", linestyle=style,
                      label=f"{kind}, {'C' if column == 'c' else 'Rust'}")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("descriptors")
    axes.set_ylabel("instructions for each frame")
    axes.legend()
    return svg(figure)


def table(items):
    """The figures themselves."""
    rows = "".join(
        f"<tr><td>{html.escape(one['name'])}"
        + "".join(f"<td>{'-' if value is None else format(value, '.1f')}"
                  for value in (one["c"], one["lowest"], one["rust"]))
        + f"<td>{one['ratio']:.3f}" for one in items)
    return f"<table><tr><th>operation<th>C<th>lowest C<th>Rust<th>Rust / C{rows}</table>"


def cli():
    """Command line: bench.json, and the page to write."""
    source, page = map(pathlib.Path, sys.argv[1:])
    document = json.loads(source.read_text())
    items = document["counts"]
    body = []
    for place in dict.fromkeys(map(where, items)):
        members = [one for one in items if where(one) == place]
        body += [f"<h2>{html.escape(place)}</h2>", "<h3>Ratios</h3>", ratios(members),
                 "<h3>Instructions</h3>", absolute(members), "<h3>Lengths of rings</h3>",
                 lengths(members), "<h3>Figures</h3>", table(members)]
    body += ["<h2>Frames that an e1000 sends to itself</h2>", frames(document["frames"]),
             "<h2>Mapping and unmapping on several CPUs, by the wall clock</h2>",
             speed(document["scaling"]) if document["scaling"] else "<p>Not timed."]
    page.write_text(PAGE.format(body="\n".join(body)))


if __name__ == "__main__":
    cli()
