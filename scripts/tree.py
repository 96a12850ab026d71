# SPDX-License-Identifier: GPL-2.0
"""Puts our files and the hunks of series/ into a kernel tree, touching only files whose content changes."""

import dataclasses
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

import stages
from common import REPO, Fail, checksum, clean_env, write


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A tree that holds our files. The digests change when its content does."""

    source: object
    digest: str
    kconfig_digest: str


def patched(source, manifest, series, ours):
    """Applies the hunks to files of the kernel, of one commit after the other, to pristine copies in a
    scratch folder. Yields for each commit the files that were patched so far."""
    result = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        for commit in series:
            paths = commit.touched - ours
            for path in paths - result.keys():
                base = source.base(path, manifest)
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                if base.exists():
                    shutil.copy(base, scratch / path)
            if paths and (complaint := apply(commit.hunks(paths), scratch)):
                raise Fail(f"{commit.path.relative_to(REPO)} does not apply to Linux {source.version}:\n"
                           f"{complaint}\nThe tree was left as it was. Refresh the patch for this version.")
            result = result | {path: content_of(scratch / path) for path in paths}
            yield result


def forms(series, ours):
    """What our files look like after each commit, as far as later ones have hunks to them: these are
    taken back. A list of path to bytes and mode."""
    result = []
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        now = {path: ours[path] for commit in series for path in commit.touched & ours.keys()}
        for path, (data, mode) in now.items():
            write(scratch / path, data, mode)
        for commit in reversed(series):
            result.insert(0, now)
            paths = commit.touched & ours.keys()
            if paths and (complaint := apply(commit.hunks(paths), scratch, "--reverse")):
                raise Fail(f"{commit.path.relative_to(REPO)}: its hunks to files of ours aren't in them as they "
                           f"are now:\n{complaint}\nRefresh them.")
            now = now | {path: content_of(scratch / path) for path in paths}
    return result


def apply(diff, folder, *options):
    """Applies hunks to the files in a folder. Returns what is wrong with that."""
    done = subprocess.run(
        ["patch", "-p1", "--fuzz=0", "--batch", *(options or ("--forward",)), "--no-backup-if-mismatch",
         "--reject-file=-", "-d", folder],
        input=diff, env=clean_env(), text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return re.sub(r"^", "    ", done.stdout.strip(), flags=re.M) if done.returncode else ""


def content_of(path):
    """A file's bytes and mode."""
    return path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644


def contents(source, manifest):
    """What trees are made of: the commits; with which our files come; their content, path to bytes and
    mode; and the patched files after each commit."""
    series = stages.commits()
    scheduled = stages.schedule(series, stages.overlay_paths())
    ours = {path: content_of(REPO / path) for path in scheduled}
    if clashes := [f"{commit.name}: {path}" for number, commit in enumerate(series)
                   for path in commit.touched & ours.keys() if scheduled[path] >= number]:
        raise Fail("these hunks are for files of ours that aren't there before, and can be changed themselves:"
                   "\n    " + "\n    ".join(clashes))
    return series, scheduled, ours, list(patched(source, manifest, series, ours.keys()))


def final(source, manifest):
    """Our files and the patched ones, as they are in the end: path to bytes and mode."""
    _, _, ours, states = contents(source, manifest)
    return ours | states[-1]


def after_each(source, manifest):
    """Yields each commit with our files and the patched ones as they are after it."""
    series, scheduled, ours, states = contents(source, manifest)
    originals = {path: original.read_bytes() for path in states[-1]
                 if (original := source.base(path, manifest)).exists()}
    for number, (commit, state, form) in enumerate(zip(series, states, forms(series, ours))):
        later = stages.later(series, scheduled, number)
        there = {path: form.get(path, ours[path]) for path in later.here} | state
        yield commit, {path: (stages.without(path, data, originals.get(path, b""), later), mode)
                       for path, (data, mode) in there.items()}


def prepare(source):
    """Brings the tree up to date with the checkout. Call it under the lock.

    The manifest names every path that may hold our content before any of them is written, so
    that an interrupted run is repaired by the next one."""
    old = source.manifest()
    files = final(source, old)
    new = {path: checksum(data) for path, (data, _) in sorted(files.items())}

    for path in new.keys() - old.keys():
        original, kept = source.tree / path, source.pristine / path
        if original.exists():
            write(kept, *content_of(original))
        else:
            kept.unlink(missing_ok=True)
    source.save_manifest({**old, **new})
    for path, (data, mode) in files.items():
        write(source.tree / path, data, mode)
    for path in old.keys() - new.keys():
        if (source.pristine / path).exists():
            write(source.tree / path, *content_of(source.pristine / path))
        else:
            (source.tree / path).unlink(missing_ok=True)
    source.save_manifest(new)

    index = source.home / "index.json"
    kconfig = {path: value for path, value in new.items() if "/Kconfig" in path}
    origin = checksum(index.read_bytes()) if index.exists() else source.version
    return Prepared(source, checksum([origin, new]), checksum([origin, kconfig]))


def mirror(origin, copy):
    """Makes the folder `copy` equal to `origin`. New files are hard links, since nothing ever writes
    into a file of a tree, only a new one in its place. What an earlier run left there with another
    content gets the right one with a new time stamp, so that make builds it again."""
    copy.mkdir(parents=True, exist_ok=True)
    wanted = {entry.name: entry for entry in os.scandir(origin)}
    found = {entry.name: entry for entry in os.scandir(copy)}
    for name, entry in found.items():
        if name not in wanted or kind(entry) != kind(wanted[name]):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry)
            else:
                os.unlink(entry)
            found[name] = None
    for name, entry in wanted.items():
        if entry.is_dir(follow_symlinks=False):
            mirror(pathlib.Path(entry), copy / name)
        elif not found.get(name):
            os.link(entry, copy / name, follow_symlinks=False)
        elif found[name].inode() != entry.inode():
            put(pathlib.Path(entry), copy / name)


def kind(entry):
    """Whether something is a file, a folder or a link."""
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def put(origin, target):
    """Gives `target` what is in `origin`."""
    if origin.is_symlink():
        target.unlink()
        os.link(origin, target, follow_symlinks=False)
    else:
        write(target, *content_of(origin))
