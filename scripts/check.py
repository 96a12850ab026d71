#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Static checks of our own files: format, lints, documentation, kernel style."""

import concurrent.futures
import dataclasses
import os
import re

import build
import stages
from common import REPO, Fail, lock, main, run, say

RUSTDOC = REPO / "scripts/rustdoc-kernel.sh"


def rustfmt(opened):
    """rustfmt, with the kernel's settings."""
    files = [path for path in stages.all_paths() if path.endswith(".rs")]
    unformatted(opened, files, REPO)
    return f"{len(files)} files"


def checkpatch(opened):
    """checkpatch --strict, over our files in the tree, those beside it, and the commits."""
    unfit = (".dtb", ".json")
    names = [path for path in stages.overlay_paths() if not path.endswith(unfit)]
    apart = [REPO / path for path in stages.all_paths()
             if stages.is_apart(path) and not path.endswith(unfit)]
    commits = [commit.path for commit in stages.commits() if commit.diff]
    cpus = os.cpu_count()
    files = [*names, *map(str, apart)]
    # Without a tree it doesn't ask for each file, for a second, whether its maintainers have given up.
    runs = [["--no-tree", "-f", *files[first::cpus]] for first in range(min(cpus, len(files)))]
    # `make series` adds the sign-off, and MAINTAINERS is dealt with by a commit.
    runs += [["--ignore=MISSING_SIGN_OFF,FILE_PATH_CHANGES", *map(str, commits)]]
    command = ["scripts/checkpatch.pl", "--strict", "--terse", "--show-types", "--no-summary"]
    with concurrent.futures.ThreadPoolExecutor(cpus) as pool:
        tree_folder = opened.prepared.source.tree
        for done in [pool.submit(run, command + words, cwd=tree_folder) for words in runs]:
            done.result()
    return f"{len(names) + len(apart)} files, {len(commits)} commits"


def clippy(opened):
    """clippy over the kernel crate and our drivers, in a build folder of its own."""
    opened.tools.rust_tool("clippy-driver")
    opened = dataclasses.replace(opened, flavour="clippy")
    build.configure(opened)
    folders = [folder + "/" for folder in ("drivers/dma-rs", "samples/rust")
               if (opened.prepared.source.tree / folder).is_dir()]
    build.compile_kernel(opened, ["CLIPPY=1", "prepare", *folders], "linting")
    return "no warnings"


def rustdoc(opened):
    """rustdoc over the kernel crate; warnings count where they point to our files."""
    build.configure(opened)
    document(opened, set(stages.overlay_paths()))
    return str(opened.folder / "Documentation/output/rust/rustdoc/kernel/index.html")


def document(opened, ours):
    """Runs rustdoc over the kernel crate in a configured build folder. Fails where it warns of our files."""
    build.compile_kernel(opened, ["rustdoc", f"RUSTDOC={RUSTDOC}"], "documenting")
    lines = opened.log.read_text(errors="replace").splitlines()
    found = [f"{lines[at - 1]}\n    {line.strip()}" for at, line in enumerate(lines)
             if (match := re.match(r" +--> (?:\S*/tree/)?([^:]+):\d", line)) and match[1] in ours]
    if found:
        raise Fail("rustdoc has warnings about our files:\n    " + "\n    ".join(found))


def unformatted(opened, files, folder):
    """Runs rustfmt with the kernel's settings over files in a folder; fails if one isn't formatted."""
    settings = opened.prepared.source.tree / ".rustfmt.toml"
    if files:
        run([opened.tools.rust_tool("rustfmt"), "--check", "--color=never", "--config-path", settings, *files],
            "Format them with: rustfmt --config-path " + str(settings), cwd=folder)


CHECKS = {check.__name__: check for check in (rustfmt, checkpatch, clippy, rustdoc)}


def cli():
    """Command line."""
    parser = build.arguments(__doc__)
    parser.add_argument("check", choices=CHECKS)
    options = parser.parse_args()
    with lock() as lock_fd:
        opened = build.open_build(options.arch, options.ksrc, lock_fd)
        say(f"{options.check}: clean ({CHECKS[options.check](opened)})")


if __name__ == "__main__":
    main(cli)
