# SPDX-License-Identifier: GPL-2.0
"""Many faults in one kernel, of which its command line chooses one: so each costs a boot, and no build.

A function with faults in it gets its body once more for each of them, and a `match` (in C, a `switch`)
on the number that was chosen; without one it does what it did. What isn't in the body of a function
can't be chosen at run time, nor what must be known when the kernel is compiled, nor what is in a
function of C that has labels: such faults are built one by one."""

import dataclasses
import pathlib
import re
import typing

# The number's name on the command line, and what the kernel's files get so that all code can ask for it.
PARAMETER = "dma_rs_mutant"
DEFINITIONS = {
    "kernel/params.c": f"""
unsigned int {PARAMETER};
EXPORT_SYMBOL_GPL({PARAMETER});
core_param({PARAMETER}, {PARAMETER}, uint, 0444);
""",
    "rust/kernel/lib.rs": f"""
#[doc(hidden)]
#[inline]
pub fn {PARAMETER}() -> u32 {{
    unsafe extern "C" {{
        safe static {PARAMETER}: u32;
    }}
    {PARAMETER}
}}
"""}

TOKEN = re.compile(r"""
      //[^\n]* | /\*.*?\*/
    | [bc]?r(?P<hashes>\#*)".*?"(?P=hashes)
    | [bc]?"(?:\\.|[^"\\])*"
    | b?'(?:\\.[^']*|[^\\'])'
    | '\w+
    | \w+
    | \S""", re.S | re.X)
OPENING, CLOSING = "([{", ")]}"

# What may stand between the beginning of a function and the word "fn".
QUALIFIERS = frozenset(("const", "unsafe", "extern", "async", '"C"', "safe"))

# Errors of rustc, and of clang; and places in the former.
ERROR = re.compile(r"^error(\[E\d+\])?: .*?(?=^\s*$|\Z)|^\S+?:\d+:\d+: error: ", re.M | re.S)
PLACE = re.compile(r"^(?: *(?:-->|:::) )?(\S+?):(\d+):\d+(?:$|: error: )", re.M)

# The body of a function in C, and a label in it.
C_BODY = re.compile(r"^\{\n(.*?)^\}$", re.M | re.S)
C_LABEL = re.compile(r"^\w+:$", re.M)


@dataclasses.dataclass(frozen=True)
class Function:
    """Where the body of a function begins and ends, without its braces; and whether it can be there only
    once, and without a choice: the compiler may call it, or it has labels."""

    start: int
    end: int
    fixed: bool


def tokens(text):
    """The tokens of Rust code, but comments: words, and where they begin."""
    for match in TOKEN.finditer(text):
        if not match[0].startswith(("//", "/*")):
            yield match[0], match.start()


def balanced(text):
    """Whether brackets are closed in the order in which they were opened."""
    open_ones = []
    for word, _ in tokens(text):
        if word in OPENING:
            open_ones.append(word)
        elif word in CLOSING and (not open_ones or OPENING.index(open_ones.pop()) != CLOSING.index(word)):
            return False
    return not open_ones


def closing(words, number):
    """The number of the token that closes what the token `number` opens."""
    depth = 0
    for at in range(number, len(words)):
        depth += (words[at][0] in OPENING) - (words[at][0] in CLOSING)
        if depth == 0:
            return at
    return len(words) - 1


def functions(text):
    """The functions in a file that have a body; inner ones come after those that they are in."""
    words = list(tokens(text))
    found = []
    for number, (word, _) in enumerate(words[:-1]):
        if word != "fn" or not re.match(r"[\w$]", words[number + 1][0]):
            continue
        at = number + 1
        while at < len(words) and words[at][0] not in "{;":
            at = closing(words, at) + 1 if words[at][0] in "([" else at + 1
        if at < len(words) and words[at][0] == "{":
            before = number - 1
            while before >= 0 and words[before][0] in QUALIFIERS:
                before -= 1
            const = any(word == "const" for word, _ in words[before + 1:number])
            found.append(Function(words[at][1] + 1, words[closing(words, at)][1], const))
    return found


def functions_in_c(text):
    """As `functions`, for C as the kernel has it: their braces stand at the beginning of a line."""
    return [Function(body.start(1), body.end(1), bool(C_LABEL.search(body[1]))) for body in C_BODY.finditer(text)]


@dataclasses.dataclass(frozen=True)
class Language:
    """How to find functions, and to put a choice into a file: what comes at its beginning; and of a choice
    the beginning, what is before and after a case, and before the last one."""

    functions: typing.Callable
    declaration: str
    choice: str
    case: str
    end: str
    otherwise: str


LANGUAGES = {
    ".rs": Language(functions, "", f"match ::kernel::{PARAMETER}() {{", "\n{} => {{", "}", "\n_ => {"),
    ".c": Language(functions_in_c, f"extern unsigned int {PARAMETER};\n", f"switch ({PARAMETER}) {{",
                   "\ncase {}: {{", "} break;", "\ndefault: {"),
}


def language_of(file):
    """The language of a file, if its functions can have a choice."""
    return LANGUAGES.get(pathlib.PurePath(file).suffix)


def difference(mutant, text):
    """What a fault changes in a file: from where to where, and what comes there."""
    old, new = mutant.old, mutant.new
    start = text.index(old)
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return start + same, start + len(old) - tail, new[same:len(new) - tail]


def body_with(mutant, text):
    """The function that a fault is in, and its body with the fault; or None, if it isn't in one."""
    start, end, new = difference(mutant, text)
    around = [function for function in language_of(mutant.file).functions(text)
              if function.start <= start and end <= function.end]
    if not around or around[-1].fixed:
        return None
    function = around[-1]
    body = text[function.start:start] + new + text[end:function.end]
    return (function, body) if balanced(body) else None


@dataclasses.dataclass(frozen=True)
class Switched:
    """A file with faults to choose from: its text, and which lines are there for which: first line, last
    line, the numbers of the faults. Errors outside of a fault's own lines may be of any in the function."""

    text: str
    lines: list

    def blamed(self, line):
        """The numbers of those faults that an error in a line may be due to."""
        around = [(last - first, numbers) for first, last, numbers in self.lines if first <= line <= last]
        return min(around)[1] if around else ()


def switched(text, mutants):
    """A file with all of these faults in it, which `mutants` gives by their numbers."""
    bodies = {}
    language = language_of(next(iter(mutants.values())).file)
    for number, mutant in mutants.items():
        function, body = body_with(mutant, text)
        bodies.setdefault(function, {})[number] = body
    # What is in another function's body goes there first, and changes where that one ends.
    result, at, lines = [language.declaration], 0, []
    for function in sorted(bodies, key=lambda function: function.start):
        if function.start < at:
            raise ValueError("a function with faults is in another one")
        result += [text[at:function.start], language.choice]
        whole = first = "".join(result).count("\n") + 1
        for number, body in bodies[function].items():
            result += [language.case.format(number), body, language.end]
            last = "".join(result).count("\n") + 1
            lines.append((first + 1, last, (number,)))
            first = last
        result += [language.otherwise, text[function.start:function.end], "} }"]
        lines.append((whole, "".join(result).count("\n") + 1, tuple(bodies[function])))
        at = function.end
    result.append(text[at:])
    return Switched("".join(result), lines)


def choose(mutants, folder):
    """Those of some faults that can be chosen at run time, by number from 1 on. Of two functions with
    faults of which one is in the other, one alone can."""
    found, taken = {}, {}
    for mutant in mutants:
        if not language_of(mutant.file):
            continue
        place = body_with(mutant, (folder / mutant.file).read_text())
        others = taken.setdefault(mutant.file, set())
        if place and all(place[0] == other or place[0].end < other.start or other.end < place[0].start
                         for other in others):
            others.add(place[0])
            found[len(found) + 1] = mutant
    return found


def files(mutants, texts):
    """The files with all of some faults, which come by their numbers: path to Switched. `texts` are the
    files without them."""
    by_file = {}
    for number, mutant in mutants.items():
        by_file.setdefault(mutant.file, {})[number] = mutant
    return {file: switched(texts[file], some) for file, some in by_file.items()}


def blamed(log, made):
    """The numbers of the faults that the compiler complains about, by its words; all that are in the
    same function, where that's all that is known."""
    found = set()
    for error in ERROR.finditer(log):
        for path, line in PLACE.findall(error[0]):
            for file, one in made.items():
                if path.endswith(file):
                    found.update(one.blamed(int(line)))
    return found
