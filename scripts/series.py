#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the series: a git commit on the pristine source for each that series/ describes, and mails of
them, a folder for each stage.

Author and sign-off are whoever runs this, as git is configured for the checkout. The repository lies in
the cache; nothing is ever pushed or sent."""

import dataclasses
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import textwrap

import build
import source
import stages
import tree
from common import CACHE, OUT, REPO, Fail, Progress, checksum, clean_env, lock, main, need_space, run, say, write

MAILS = OUT / "series"
BRANCH = "series"
# Of the repository, which a build doesn't need.
LOCK = "series.lock"
SPACE_GIB = 3

# What the user has configured for git is for other repositories; a date of ours makes the commits
# those of the last time, if nothing changed.
SETTINGS = ("gc.auto=0", "core.compression=1", "core.autocrlf=false", "core.hooksPath=/dev/null",
            "advice.detachedHead=false", "commit.gpgSign=false")


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """A commit as git has it. `files` are the folder's content of ours after it, path to bytes and mode."""

    number: int
    commit: stages.Commit
    hash: str
    parent: str
    mail: pathlib.Path
    files: dict


class Repository:
    """A git repository of the pristine source. `copy` is its working tree, in the form of a source."""

    def __init__(self, origin):
        self.source = origin
        self.copy = dataclasses.replace(origin, home=CACHE / "series" / origin.home.name)

    @property
    def folder(self):
        """The working tree."""
        return self.copy.tree

    def git(self, *words, advice="", **kwargs):
        """Runs git there; returns what it says."""
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        return run(["git", "-C", self.folder, *settings, *words], advice, env=git_env(), **kwargs)

    @property
    def base(self):
        """The commit that holds the pristine source."""
        return self.git("rev-parse", "refs/tags/base").strip()

    def ensure(self):
        """Makes the repository, unless it is there."""
        # A git that was ended leaves it, and no other would work here any more.
        (self.folder / ".git/index.lock").unlink(missing_ok=True)
        index = self.source.home / "index.json"
        made_from = checksum([self.source.version, checksum(index.read_bytes()) if index.exists() else ""])
        stamp = self.copy.home / "base"
        if stamp.exists() and stamp.read_text() == made_from:
            return
        need_space(SPACE_GIB, "a git repository of the source")
        stamp.unlink(missing_ok=True)
        progress = Progress(f"making a repository of Linux {self.source.version}")
        progress.show("linking files")
        shutil.rmtree(self.folder / ".git", ignore_errors=True)
        tree.mirror(self.source.tree, self.folder)
        for path in self.source.manifest():
            if (self.source.pristine / path).exists():
                write(self.folder / path, *tree.content_of(self.source.pristine / path))
            else:
                (self.folder / path).unlink(missing_ok=True)
        self.git("init", "--quiet")
        progress.show("adding files")
        # What the kernel ignores may be part of the source, too.
        self.git("add", "--all", "--force", ".")
        self.git("commit", "--quiet", "-m", f"Linux {self.source.version}")
        self.git("tag", "base")
        write(stamp, made_from.encode())
        progress.done()


def author():
    """Name and address of who makes the series."""
    identity = stages.identity()
    if "<" not in identity:
        raise Fail("git doesn't know who you are, and the series needs an author:\n"
                   "    git config user.name 'Your Name'; git config user.email you@example.org")
    return identity


def date():
    """When the checkout was last changed, as git sees it."""
    return run(["git", "-C", REPO, "log", "-1", "--format=%ct +0000"]).strip()


def git_env():
    """The environment for git: nothing of the user's, but for the name."""
    name, address = re.fullmatch(r"(.*) <(.*)>", author()).groups()
    env = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", name), ("EMAIL", address), ("DATE", date()))}
    return clean_env(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", **env)


def message(commit):
    """A commit's message."""
    return f"{commit.subject}\n\n{commit.body}\n\nSigned-off-by: {author()}\n"


def data(content):
    """Some content, for git fast-import."""
    return b"data %d\n" % len(content) + content + b"\n"


def import_stream(base, described):
    """The series in the form that git fast-import takes. Marks are numbers of commits, from 1."""
    who = f"{author()} {date()}\n".encode()
    before = {}
    for number, (commit, files) in enumerate(described, 1):
        yield b"commit refs/heads/" + BRANCH.encode() + b"\nmark :%d\n" % number
        yield b"author " + who + b"committer " + who + data(message(commit).encode())
        yield f"from {base if number == 1 else f':{number - 1}'}\n".encode()
        for path, (content, mode) in files.items():
            if before.get(path) != (content, mode):
                yield f"M 100{mode:o} inline {path}\n".encode() + data(content)
        for path in before.keys() - files.keys():
            yield f"D {path}\n".encode()
        before = files


def commit_all(repository):
    """Makes the commits. Returns them, without their mails."""
    prepared = repository.source
    described = list(tree.after_each(prepared, prepared.manifest()))
    base = repository.base
    marks = repository.folder / ".git/series-marks"
    command = ["git", "-C", repository.folder, "fast-import", "--quiet", "--force",
               f"--export-marks={marks}"]
    done = subprocess.run(command, input=b"".join(import_stream(base, described)), env=git_env(),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Fail(f"git doesn't take the series:\n{done.stdout.decode(errors='replace')}")
    hashes = dict(line.split() for line in marks.read_text().splitlines())
    made, parent = [], base
    for number, (commit, files) in enumerate(described, 1):
        made.append(Made(number, commit, hashes[f":{number}"], parent, None, files))
        parent = made[-1].hash
    check_end(repository, made[-1])
    return made


def check_end(repository, last):
    """The series ends where the prepared tree is, to the byte."""
    expected = tree.final(repository.source, repository.source.manifest())
    if differ := sorted(path for path in expected.keys() | last.files.keys()
                        if expected.get(path) != last.files.get(path)):
        raise Fail("the series doesn't end with what the tree is prepared with:\n    " + "\n    ".join(differ))
    if missing := unmaintained(expected):
        raise Fail("no `F:` line that the series adds to MAINTAINERS is about:\n    " + "\n    ".join(missing))
    changed = set(repository.git("diff", "--name-only", "refs/tags/base", last.hash).splitlines())
    unprepared = [path for path in changed
                  if (repository.source.tree / path).read_bytes() != expected[path][0]]
    if unprepared or changed != {path for path in expected if changes(repository, path, expected[path])}:
        raise Fail("the series doesn't end with what is in the prepared tree:\n    "
                   + "\n    ".join(unprepared or sorted(changed ^ expected.keys())))


def unmaintained(files):
    """Our files that aren't in the entry of ours in MAINTAINERS."""
    added = "".join(commit.diff for commit in stages.commits() if "MAINTAINERS" in commit.touched)
    patterns = re.findall(r"^\+F:\t(\S+)$", added, re.M)
    return sorted(path for path in stages.overlay_paths() if path in files
                  and not any(stages.any_fits(pattern, {path}) for pattern in patterns))


def changes(repository, path, content):
    """Whether a file isn't as it is in the pristine source."""
    original = repository.source.pristine / path
    return not original.exists() or tree.content_of(original) != content


def recipients(prepared, paths):
    """Whom get_maintainer.pl names for some mails: maintainers, and all others."""
    command = ["scripts/get_maintainer.pl", "--roles", "--no-git", "--no-git-fallback", *map(str, paths)]
    rows = [re.fullmatch(r"(.*?) \(([^()]*(?:\(.*\))?[^()]*)\)", row.strip())
            for row in run(command, cwd=prepared.tree).splitlines()]
    found = {row[1]: row[2] for row in rows if row}
    mine = author()
    maintainers = [who for who, role in found.items()
                   if role.startswith(("maintainer", "supporter")) and who != mine]
    return maintainers, [who for who in found if who not in maintainers and who != mine]


def tests():
    """What the last `make test` said, if there was one."""
    lines = []
    for path in sorted(OUT.glob("*-results.json")):
        document = json.loads(path.read_text())
        variants = list(dict.fromkeys(test["variant"] for test in document["tests"]))
        summary = ", ".join(f"{number} {status}" for status, number in document["summary"].items())
        lines += textwrap.wrap(f"{document['run']}: {summary}, on {len(variants)} machines "
                               f"({', '.join(variants)})", 72, subsequent_indent="  ")
    return lines or ["(No results of `make test` are at hand.)"]


def figures(globs):
    """What was counted of the operations that match, in guest instructions."""
    mine, baseline = OUT / "bench.json", REPO / "tools/testing/dma-rs/bench-baseline.json"
    path = mine if mine.exists() else baseline
    rows = [row for row in json.loads(path.read_text())["counts"]
            if (row["backend"], row["arch"], row["helpers"]) == ("plain", "x86_64", True)
            and any(fnmatch.fnmatch(row["name"], glob) for glob in globs)]
    if not rows:
        return ["(No results of `make bench` are at hand.)"]
    def number(value):
        return "-" if value is None else f"{value:.1f}"
    return ["Instructions, x86_64, direct mapping, C's inline functions inlined:", "",
            f"  {'':<26}{'C':>8}{'least C':>9}{'Rust':>8}",
            *(f"  {row['name']:<26}{number(row['c']):>8}{number(row['lowest']):>9}{number(row['rust']):>8}"
              for row in rows)]


def cover_text(stage, version):
    """Subject and text of a stage's cover letter. A line @tests@ or @figures GLOB...@ in it stands for
    results."""
    subject, _, body = (stages.FOLDER / stage / "cover").read_text().partition("\n\n")
    lines = []
    for line in body.strip().splitlines():
        if line == "@tests@":
            lines += tests()
        elif line.startswith("@figures "):
            lines += figures(line.strip("@").split()[1:])
        else:
            lines.append(line.replace("@version@", version))
    return subject.removeprefix("Subject: "), "\n".join(lines)


def write_mails(repository, made, mails_folder):
    """Writes the mails of all stages. Returns the commits with the mail of each, and the cover letters."""
    shutil.rmtree(mails_folder, ignore_errors=True)
    covers = {}
    result = []
    for stage in stages.stages():
        members = [one for one in made if one.commit.stage == stage]
        folder = mails_folder / stage
        has_cover = (stages.FOLDER / stage / "cover").exists()
        # Without a cover letter, they aren't a series: each is for whom it concerns.
        kind = ["--cover-letter", "--thread=shallow"] if has_cover else ["--no-numbered"]
        span = f"{members[0].parent}..{members[-1].hash}"
        written = repository.git("format-patch", "--quiet", "--find-renames", "-o", folder, *kind, span)
        mails = sorted(folder.glob("*.patch"))
        cover, mails = (mails[0], mails[1:]) if has_cover else (None, mails)
        if len(mails) != len(members):
            raise Fail(f"git made {len(mails)} mails of {len(members)} commits:\n{written}")
        result += [dataclasses.replace(one, mail=mail) for one, mail in zip(members, mails)]
        if cover:
            subject, text = cover_text(stage, repository.source.version)
            letter = cover.read_text().replace("*** SUBJECT HERE ***", subject)
            cover.write_text(letter.replace("*** BLURB HERE ***", text))
            covers[stage] = cover
    return result, covers


def address(origin, made, covers):
    """Puts into mails to whom they go: of a stage with a cover letter all to the same."""
    progress = Progress("asking for whom the mails are")
    for stage in stages.stages():
        mails = [one.mail for one in made if one.commit.stage == stage]
        groups = [mails] if stage in covers else [[mail] for mail in mails]
        for group in groups:
            progress.show(stage)
            to, others = recipients(origin, group)
            head = "".join(f"{field}: {', '.join(people)}\n".replace(", ", ",\n\t")
                           for field, people in (("To", to), ("Cc", others)) if people)
            for mail in [*group, *([covers[stage]] if stage in covers else [])]:
                text = mail.read_text()
                at = text.index("\n\n") + 1
                mail.write_text(text[:at] + head + text[at:])
    progress.done()


def overview(repository, made):
    """A line for each commit."""
    lines, stage = [], ""
    for one in made:
        if one.commit.stage != stage:
            stage = one.commit.stage
            members = [other for other in made if other.commit.stage == stage]
            lines.append(f"{stage}  ({volume(repository, members[0].parent, members[-1].hash)})")
        lines.append(f"  {one.number:>3}  {one.hash[:12]}  {one.commit.subject}"
                     f"  ({volume(repository, one.parent, one.hash)})")
    return "\n".join(lines)


def volume(repository, before, after):
    """How much changes between two commits."""
    stat = repository.git("diff", "--shortstat", before, after)
    numbers = {word: int(number) for number, word in re.findall(r"(\d+) (insertion|deletion)", stat)}
    return "".join(f" {sign}{numbers[word]}" for sign, word in (("+", "insertion"), ("-", "deletion"))
                   if word in numbers).strip()


def make(ksrc, mails_folder):
    """Makes commits and mails. Returns the repository, the commits and the cover letters. Call it under
    the lock, and that of the repository."""
    source.precheck(ksrc)
    author()
    repository = Repository(tree.prepare(source.ensure(ksrc)).source)
    repository.ensure()
    return repository, *write_mails(repository, commit_all(repository), mails_folder)


def cli():
    """Command line."""
    parser = build.arguments(__doc__)
    options = parser.parse_args()
    with lock(LOCK), lock():
        repository, made, covers = make(options.ksrc, MAILS)
        address(repository.source, made, covers)
        say(overview(repository, made))
    say(f"\ncommits: branch {BRANCH} of {repository.folder}"
        f"\nmails:   {MAILS.relative_to(REPO)}/, a folder for each stage; look at them, then\n"
        f"         git send-email {MAILS.relative_to(REPO)}/<stage>/*.patch")


if __name__ == "__main__":
    main(cli)
