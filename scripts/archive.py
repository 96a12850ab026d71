# SPDX-License-Identifier: GPL-2.0
"""Single packages from the Debian archive, unpacked into the cache and never installed.

apt does the work, with package lists of our own, so the machine's apt set-up stays as it is. The
mirror is the one that the machine itself uses."""

import functools
import os
import pathlib
import re
import shutil
import tempfile
import time

from common import CACHE, Fail, Progress, run, say, succeeds, tail, watch

SUITES = ("trixie-backports", "trixie")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STATE = CACHE / "apt"
DOWNLOADS = CACHE / "downloads"


def as_root(command):
    """`command` with the rights that installing needs, or the advice to run it by hand."""
    if os.geteuid() == 0:
        return command
    if succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n", "--"] + command
    raise Fail("this needs root, and sudo asks for a password. Run this, then try again:\n"
               f"    sudo {' '.join(command)}")


@functools.cache
def machine_sources():
    """Label and address of each archive of Debian's that the machine's own apt set-up has."""
    query = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
             "Created-By: Packages"]
    rows = run(query).splitlines()
    if not rows:
        update()
        rows = run(query).splitlines()
    split = [row.split("|", 2) for row in rows]
    return {label: uri for origin, label, uri in split if origin == "Debian"}


@functools.cache
def update():
    """Has the machine's own apt fetch its package lists, once."""
    say("running apt-get update")
    run(as_root(["apt-get", "update"]), "Check the network and the machine's apt sources.")


def candidate(package):
    """The version of a package that the machine's own apt would install, or has; "" if none."""
    machine_sources()
    found = re.search(r"^ *Candidate: (\S+)$", run(["apt-cache", "policy", package]), re.M)
    return found[1] if found and found[1] != "(none)" else ""


def machine_mirror():
    """The Debian mirror of the machine's own apt set-up."""
    mirror = machine_sources().get("Debian")
    if mirror:
        return mirror
    raise Fail("apt knows no Debian mirror on this machine, so the kernel source cannot be fetched.\n"
               "Set KSRC to an unpacked Linux 7.3 source tree, and `rustup component add rust-src`.")


def options():
    """apt options that point it at our private state."""
    native = run(["dpkg", "--print-architecture"]).strip()
    architectures = sorted({native, "amd64", "arm64"}, key=lambda name: name != native)
    return [
        "-o", f"Dir::Etc::SourceList={STATE}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={STATE}/lists", "-o", f"Dir::Cache={STATE}/cache",
        "-o", f"APT::Architectures={','.join(architectures)}", "-o", "APT::Sandbox::User=root",
        "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3",
    ]


def refresh():
    """Fetches the package lists, at most once an hour."""
    if not shutil.which("apt-get"):
        raise Fail("this machine has no apt. Set KSRC to an unpacked Linux 7.3 source tree, and\n"
                   "`rustup component add rust-src`.")
    stamp = STATE / "fresh"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < 3600:
        return
    mirror = machine_mirror()
    say("fetching package lists")
    for folder in ("lists/partial", "cache/archives/partial"):
        (STATE / folder).mkdir(parents=True, exist_ok=True)
    lines = [f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in SUITES]
    (STATE / "sources.list").write_text("".join(lines))
    run(["apt-get", *options(), "-o", "APT::Update::Error-Mode=any", "update"],
        "Is the network up, and does the machine's Debian mirror work?")
    stamp.touch()


def versions(package):
    """The versions that the archive offers, newest first."""
    refresh()
    rows = run(["apt-cache", *options(), "madison", package]).splitlines()
    return [row.split("|")[1].strip() for row in rows if row.count("|") == 2]


def download(package, version):
    """Returns the package's file, fetched if it is not in the cache yet."""
    refresh()
    target = DOWNLOADS / f"{package.replace(':', '_')}_{version}.deb"
    if target.exists():
        return target
    details = run(["apt-cache", *options(), "show", f"{package}={version}"]).splitlines()
    size = next(int(line.split()[1]) for line in details if line.startswith("Size:"))
    progress = Progress(f"downloading {package} {version}")
    DOWNLOADS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as name:
        folder = pathlib.Path(name)

        def tick():
            have = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            progress.show(f"{have / 1e6:.1f} of {size / 1e6:.1f} MB")

        if watch(["apt-get", *options(), "download", f"{package}={version}"], folder / "log", tick,
                 cwd=folder):
            raise Fail(f"could not download {package}:\n{tail(folder / 'log')}\n"
                       "Check the network and try again.")
        next(folder.glob("*.deb")).rename(target)
    progress.done(f"{size / 1e6:.1f} MB")
    return target


def unpack(package, version, folder):
    """Unpacks a package into `folder` without installing it."""
    run(["dpkg", "-x", download(package, version), folder],
        f"Remove {DOWNLOADS} and try again.")
