# SPDX-License-Identifier: GPL-2.0
"""The pristine kernel source: the archive's newest 7.3, or a copy of the user's own tree."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil

import archive
from common import CACHE, Fail, Progress, new_directory, need_space, run, write

SERIES = "7.3"
SPACE_GIB = 12


@dataclasses.dataclass(frozen=True)
class Source:
    """A kernel tree in the cache. `tree` is worked in; `pristine` keeps the original of each file
    that we replaced there, and `manifest` lists what we put into it."""

    home: pathlib.Path
    version: str

    @property
    def tree(self):
        """Where to build from."""
        return self.home / "tree"

    @property
    def pristine(self):
        """Originals of replaced files."""
        return self.home / "pristine"

    def manifest(self):
        """Our files in the tree: path to checksum."""
        path = self.home / "manifest.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def save_manifest(self, manifest):
        """Records what we put into the tree."""
        write(self.home / "manifest.json", json.dumps(manifest, indent=0).encode())

    def base(self, path, manifest):
        """Where the unchanged version of `path` lies (it need not exist)."""
        return (self.pristine if path in manifest else self.tree) / path


def version_of(tree):
    """The version that a kernel tree claims; refuses what isn't the series we are made for."""
    try:
        head = (tree / "Makefile").read_text()[:1000]
        parts = [re.search(rf"^{key} = *(\d*)", head, re.M).group(1)
                 for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    except (OSError, AttributeError):
        raise Fail(f"{tree} is not a Linux source tree: it has no top-level kernel Makefile.") from None
    version = ".".join(parts)
    if ".".join(parts[:2]) != SERIES:
        raise Fail(f"{tree} is Linux {version}, but this overlay is made for {SERIES}.\n"
                   f"Point KSRC at a {SERIES} tree, or leave it out to use the packaged source.")
    return version


def cached_sources():
    """The packaged sources that were unpacked before."""
    return [home for home in CACHE.glob(f"linux-{SERIES}*") if not home.name.endswith(".partial")]


def precheck(ksrc):
    """Finds what would fail later, before anything long starts."""
    known = cached_sources()
    if ksrc:
        version_of(pathlib.Path(ksrc).resolve())
        known = list(CACHE.glob("ksrc-*"))
    if not known:
        need_space(SPACE_GIB, "building from nothing")


def from_archive(update):
    """The newest source package, unpacked once. Only asks the archive when it must."""
    cached = cached_sources()
    if cached and not update:
        return max(cached, key=lambda home: [int(part) for part in re.findall(r"\d+", home.name)])
    package = f"linux-source-{SERIES}"
    offered = archive.versions(package)
    if not offered:
        raise Fail(f"the Debian archive offers no {package} (looked in: {', '.join(archive.SUITES)}).\n"
                   f"Set KSRC to an unpacked Linux {SERIES} source tree.")
    home = CACHE / f"linux-{offered[0].split('-')[0]}"
    if home.exists():
        return home
    with new_directory(home) as folder:
        archive.unpack(package, offered[0], folder / "deb")
        progress = Progress(f"unpacking {home.name}")
        tarball = next((folder / "deb/usr/src").glob("*.tar.xz"))
        (folder / "tree").mkdir()
        run(["tar", "-xf", tarball, "-C", folder / "tree", "--strip-components=1"],
            f"Remove {archive.DOWNLOADS} and try again.")
        shutil.rmtree(folder / "deb")
        version_of(folder / "tree")
        progress.done()
    return home


def files_of(tree):
    """The source files of the user's tree: what git knows or would add, else everything."""
    if (tree / ".git").exists():
        names = run(["git", "-C", tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        return [name for name in names.split("\0") if name]
    if (tree / ".config").exists() or (tree / "include/config").exists():
        raise Fail(f"{tree} has been built in, so its files cannot be told from build products.\n"
                   "Run `make mrproper` there, or point KSRC at a git checkout.")
    return [os.path.relpath(os.path.join(folder, name), tree)
            for folder, _, names in os.walk(tree) for name in names]


def snapshot(tree):
    """Brings our copy of the user's tree up to date; never writes to the tree itself."""
    version = version_of(tree)
    key = hashlib.sha256(str(tree).encode()).hexdigest()[:8]
    source = Source(CACHE / f"ksrc-{tree.name}-{key}", version)
    index_path = source.home / "index.json"
    old = json.loads(index_path.read_text()) if index_path.exists() else {}
    source.tree.mkdir(parents=True, exist_ok=True)
    manifest = source.manifest()
    new = {}
    progress = Progress(f"copying {tree}")
    for name in files_of(tree):
        origin = tree / name
        try:
            status = os.lstat(origin)
        except FileNotFoundError:
            continue
        new[name] = [status.st_mtime_ns, status.st_size, status.st_mode]
        if old.get(name) != new[name]:
            target = source.base(name, manifest)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy(origin, target, follow_symlinks=False)
            progress.show(name)
    for name in old.keys() - new.keys():
        source.base(name, manifest).unlink(missing_ok=True)
    if new != old:
        write(index_path, json.dumps(new).encode())
        progress.done(f"{len(new)} files")
    return source


def ensure(ksrc=None, update=False):
    """The source to build: `ksrc` if given, else the archive's. Call it under the lock."""
    if ksrc:
        return snapshot(pathlib.Path(ksrc).resolve())
    home = from_archive(update)
    return Source(home, version_of(home / "tree"))
