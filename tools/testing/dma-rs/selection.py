# SPDX-License-Identifier: GPL-2.0
"""Which tests are to run, of those that a variant has.

Without a name: all that aren't slow. Tests of the guest's user space are all slow, of KUnit's those
that say so, and in a slow variant all are. By name: all that bear it, slow or not. A slow variant
that is named itself has all its tests."""

import dataclasses
import fnmatch

import controls
import misuse
import variants
from common import Fail

GUEST_SUITE = "guest"


@dataclasses.dataclass(frozen=True)
class Selection:
    """What the user asked for: a glob of names (suite or suite.test), and whether slow tests are to
    run instead of the others."""

    glob: str = ""
    slow: bool = False
    # Of those that are named only what isn't slow.
    quick: bool = False

    def __post_init__(self):
        # KUnit would take what comes after the first for something else, and run that one only.
        if len(self.glob.split()) > 1:
            raise Fail(f"SUITE={self.glob!r}: one glob at a time, please")

    @property
    def parts(self):
        """Globs of suites and of their tests."""
        suite, _, test = self.glob.partition(".")
        return suite or "*", test or "*"

    def names_only(self, suite):
        """Whether this names a suite that isn't one of KUnit's, and nothing else."""
        return self.parts[0] == suite

    @property
    def kunit(self):
        """Whether KUnit's tests are to run."""
        return not any(map(self.names_only, (GUEST_SUITE, controls.SUITE, misuse.SUITE)))

    def of(self, suite, tests):
        """Those of a suite's tests that are named."""
        suites, names = self.parts
        if not fnmatch.fnmatch(suite, suites):
            return ()
        return tuple(name for name in tests if fnmatch.fnmatch(name, names))

    def guest_tests(self, variant):
        """A variant's tests of the guest's user space, by the names of their scripts."""
        wanted = self.slow or self.glob or variant.slow
        return self.of(GUEST_SUITE, variant.guest_tests) if wanted else ()

    def programs(self):
        """The programs that must not compile."""
        names = () if self.slow else self.of(misuse.SUITE, [program.name for program in misuse.programs()])
        return [program for program in misuse.programs() if program.name in names]

    def controls(self, variant):
        """What is to go wrong in a variant."""
        return () if self.slow and not variant.slow else self.of(controls.SUITE, variant.controls)

    def has_tests(self, variant, named=False):
        """Whether a variant may have any, which the user has named or not. A kernel of its own takes
        long to build: not for the name of a suite alone."""
        if not named and not self.slow and (variant.flavour or variant.slow and not self.glob):
            return False
        if variant.controls:
            return bool(self.controls(variant))
        return self.kunit or bool(self.guest_tests(variant))

    def kernel_arguments(self, variant):
        """What KUnit must be told."""
        if not self.kunit:
            return "kunit.enable=0"
        words = [f"kunit.filter_glob={self.glob or variant.suites}"]
        if self.slow and not variant.slow:
            words.append("kunit.filter=speed<=slow")
        elif self.quick or not self.slow and not self.glob and not variant.slow:
            words.append("kunit.filter=speed>slow")
        return " ".join(words)

    def title(self, name):
        """What a variant's boot is called."""
        return f"{name}-slow" if self.slow else name

    def missing(self, variant, seen):
        """The suites that must run, and are not among those that were seen."""
        some = self.slow and not variant.slow
        required = (*(variants.SLOW_SUITES if some else variants.COMMON_SUITES), *variant.adds)
        globs = self.parts[0], "*" if self.glob else variant.suites
        return [suite for suite in required if suite not in variant.lacks and
                all(fnmatch.fnmatch(suite, glob) for glob in globs) and suite not in seen]
