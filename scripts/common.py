# SPDX-License-Identifier: GPL-2.0
"""What the scripts share: messages, child processes, the cache and its lock."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
OUT = REPO / "out"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "dma-rs"

# Set by an outer make, or by a user's habits; none may reach our own children.
LEAKY_VARIABLES = (
    "MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES MAKEFILES ARCH CROSS_COMPILE O V W C KSRC SUITE "
    "VARIANT SLOW MUTANT CHECK BASELINE COMMITS CHECKS KEEP CC LLVM RUSTC BINDGEN CLIPPY LOCALVERSION KBUILD_OUTPUT "
    "KCONFIG_CONFIG KCONFIG_ALLCONFIG RUSTFLAGS KRUSTFLAGS KCFLAGS"
).split()


class Fail(Exception):
    """An error that the user can act on; the text says what to do."""


def say(text):
    """One line of progress, at once."""
    print(text, flush=True)


def clean_env(**extra):
    """The caller's environment without what would change a build behind our back."""
    env = {key: value for key, value in os.environ.items() if key not in LEAKY_VARIABLES}
    env.update(LC_ALL="C", **extra)
    return env


def run(command, advice="", **kwargs):
    """Runs `command` quietly and returns its output; a failure shows the end of the output."""
    kwargs.setdefault("env", clean_env())
    done = subprocess.run(
        [str(word) for word in command], text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines()
        # apt marks what matters in a long output.
        lines = [line for line in lines if line.startswith("E: ")] or lines
        text = "\n".join("    " + line for line in lines[-12:])
        raise Fail(f"`{command[0]} ... {command[-1]}` failed:\n{text}\n{advice}".rstrip())
    return done.stdout


def watch(command, log, tick, end=subprocess.Popen.terminate, **kwargs):
    """Runs a long `command` with its output in the file `log`, calls `tick` twice a second, and
    returns the exit status. The command ends when we do, by `end`."""
    kwargs.setdefault("env", clean_env())
    with open(log, "wb") as output:
        child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=subprocess.STDOUT, **kwargs)
    try:
        while True:
            try:
                return child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                tick()
    finally:
        if child.poll() is None:
            end(child)
            child.wait()


def tail(log, lines=12):
    """The end of a log file, indented."""
    text = log.read_text(errors="replace").strip().splitlines()[-lines:]
    return "\n".join("    " + line for line in text)


def succeeds(command):
    """Whether `command` can be run and says yes."""
    try:
        return not subprocess.run(
            command, env=clean_env(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def terminate(*_):
    """Ends the script, and lets it clean up, however often it is told to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main(function):
    """Runs a script's main function; every expected failure becomes one message."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        sys.exit(function())
    except Fail as error:
        print(f"\nerror: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted; the next run continues from here", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            print(f"\nerror: the disk that holds {error.filename or CACHE} is full", file=sys.stderr)
        else:
            print(f"\nerror: {error}", file=sys.stderr)
    sys.exit(1)


def checksum(value):
    """A short name for some content: bytes, or anything that JSON can express."""
    return hashlib.sha256(value if isinstance(value, bytes) else json.dumps(value).encode()).hexdigest()


@contextlib.contextmanager
def lock(name="lock"):
    """Only one command at a time works in the cache, or in the part of it that `name` stands for.
    Yields the lock's file descriptor, which a long-running child should inherit: the lock then
    outlives us for as long as the child does. The file says who has the lock."""
    CACHE.mkdir(parents=True, exist_ok=True)
    # Not truncated: what is in there was written by whoever has the lock.
    with open(CACHE / name, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for {file.read().strip() or 'another build'}, which uses {CACHE} ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        write_holder(file)
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


def write_holder(file):
    """Says in a lock's file who has it: the command, its checkout, and since when."""
    command = os.environ.get("DMA_RS_COMMAND") or " ".join(map(os.path.basename, sys.argv[:2]))
    file.truncate(0)
    file.write(f"`{command}` in {REPO}, since {time.strftime('%H:%M:%S')} (process {os.getpid()})\n")
    file.flush()


@contextlib.contextmanager
def new_directory(path):
    """Fills `path` through path.partial: it appears complete, or not at all."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def write(path, data, mode=0o644):
    """Writes `data` (bytes) to `path` at once, and only if it differs. Returns whether it did."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.chmod(mode)
    partial.rename(path)
    return True


def need_space(gib, what):
    """Fails early rather than in the middle of `what`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free / 2**30
    if free < gib:
        raise Fail(
            f"{what} needs about {gib} GiB, but only {free:.1f} GiB are free where {CACHE} lies.\n"
            "Make room, or set XDG_CACHE_HOME to a directory on a larger disk."
        )


class Progress:
    """A status line: redrawn on a terminal, one line every few seconds elsewhere."""

    def __init__(self, label):
        self.label = label
        self.start = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.next = self.start + (0 if self.terminal else 10)

    def elapsed(self):
        """Time since the start, for people."""
        seconds = int(time.monotonic() - self.start)
        return f"{seconds // 60}:{seconds % 60:02}"

    def show(self, text):
        """Shows `text` if the last one is old enough."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + (0.2 if self.terminal else 15)
        line = f"{self.label}: {text} [{self.elapsed()}]"
        print(f"\r{line:<78.78}" if self.terminal else line, end="" if self.terminal else "\n", flush=True)

    def done(self, text="done"):
        """Ends the status line."""
        line = f"{self.label}: {text} [{self.elapsed()}]"
        print(f"\r{line:<78.78}" if self.terminal else line, flush=True)
