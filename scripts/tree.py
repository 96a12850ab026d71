# SPDX-License-Identifier: GPL-2.0
"""Puts the overlay and the patches into a kernel tree, touching only files whose content changes."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile

from common import REPO, Fail, checksum, clean_env, run, write

OVERLAY = ("rust", "drivers", "samples", "Documentation", "tools")
PATCHES = REPO / "patches"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A tree that holds our files. The digests change when its content does."""

    source: object
    digest: str
    kconfig_digest: str


def overlay_paths():
    """Our files at their in-tree paths: what git knows or would add."""
    names = run(["git", "-C", REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                 "--", *OVERLAY], "The overlay must be a git checkout.")
    return sorted({name for name in names.split("\0") if name and (REPO / name).is_file()})


def series():
    """The patches, in the order in which they apply."""
    path = PATCHES / "series"
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split("#")[0].strip() for line in lines]
    return [PATCHES / name for name in names if name]


def touched_by(patch):
    """The files that a patch changes."""
    try:
        text = patch.read_text(errors="replace")
    except FileNotFoundError:
        raise Fail(f"patches/series names {patch.name}, but there is no such file.") from None
    return set(re.findall(r"^(?:---|\+\+\+) [ab]/(\S+)", text, re.M))


def patched(source, manifest, overlay):
    """Applies the patches to pristine copies in a scratch folder; returns the resulting files."""
    result = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        for patch in series():
            for path in touched_by(patch) - result.keys():
                base = REPO / path if path in overlay else source.base(path, manifest)
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                if base.exists():
                    shutil.copy(base, scratch / path)
                result[path] = None
            done = subprocess.run(
                ["patch", "-p1", "--fuzz=0", "--batch", "--forward", "--no-backup-if-mismatch",
                 "--reject-file=-", "-d", name, "-i", patch],
                env=clean_env(), text=True, errors="replace", stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                raise Fail(f"patches/{patch.name} does not apply to Linux {source.version}:\n"
                           + re.sub(r"^", "    ", done.stdout.strip(), flags=re.M)
                           + "\nThe tree was left as it was. Refresh the patch for this version.")
        return {path: content_of(scratch / path) for path in result if (scratch / path).exists()}


def content_of(path):
    """A file's bytes and mode."""
    return path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644


def prepare(source):
    """Brings the tree up to date with the checkout. Call it under the lock.

    The manifest names every path that may hold our content before any of them is written, so
    that an interrupted run is repaired by the next one."""
    old = source.manifest()
    overlay = overlay_paths()
    files = {path: content_of(REPO / path) for path in overlay}
    files.update(patched(source, old, set(overlay)))
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
