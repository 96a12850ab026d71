// SPDX-License-Identifier: GPL-2.0

//! Who called the DMA API, for reports.

use crate::{
    bindings,
    fmt, //
};

/// Enough to get out of the DMA API and the abstractions above it.
const DEPTH: usize = 16;

/// How many callers a report names.
const SHOWN: usize = 4;

/// As long as any symbol (`KSYM_NAME_LEN`).
const LINE: usize = 512;

/// The callers of a call, the innermost first.
#[derive(Clone, Copy)]
pub(super) struct Site {
    frames: [usize; DEPTH],
    len: usize,
}

impl Site {
    /// Remembers who called.
    #[inline(never)]
    pub(super) fn here() -> Self {
        let mut frames = [0; DEPTH];

        // CAST: `DEPTH` is small.
        // SAFETY: `frames` has room for that many.
        let len = unsafe { bindings::stack_trace_save(frames.as_mut_ptr(), DEPTH as u32, 1) };

        // CAST: Not more than `DEPTH`.
        Self {
            frames,
            len: len as usize,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = 0;

        for frame in &self.frames[..self.len] {
            let mut line = [0_u8; LINE];

            // SAFETY: `line` has room for `LINE` bytes, `frame` is one entry.
            let len = unsafe {
                bindings::stack_trace_snprint(line.as_mut_ptr().cast(), LINE, frame, 1, 0)
            };
            // CAST: The length of what was written is not negative; more than fits is cut.
            let line = line[..(len as usize).min(LINE)].trim_ascii();
            // Without the offset, which says nothing to a person.
            let symbol = line.split(|&byte| byte == b'+').next().unwrap_or(line);

            if symbol.starts_with(b"dma_") || is_ours(symbol) {
                continue;
            }

            if shown > 0 {
                f.write_str(", called by ")?;
            }

            write_symbol(f, symbol)?;
            shown += 1;

            if shown == SHOWN {
                break;
            }
        }

        Ok(())
    }
}

/// Whether a symbol is of the abstractions, not of who uses them.
fn is_ours(symbol: &[u8]) -> bool {
    let mut names = Names::of(symbol);

    if names.next() != Some(b"kernel") {
        return false;
    }

    match names.next() {
        Some(b"scatterlist") => true,
        Some(b"dma") => match names.next() {
            Some(b"streaming" | b"Coherent" | b"CoherentHandle") => true,
            Some(b"sim") => matches!(names.next(), Some(b"bus" | b"ops" | b"site")),
            _ => false,
        },
        _ => false,
    }
}

/// Writes the names in a mangled Rust symbol, joined as in a path; other symbols as they are.
fn write_symbol(f: &mut fmt::Formatter<'_>, symbol: &[u8]) -> fmt::Result {
    let mut names = Names::of(symbol);

    f.write_str(ascii(names.next().unwrap_or(symbol)))?;

    for name in names {
        write!(f, "::{}", ascii(name))?;
    }

    Ok(())
}

/// Symbols are ASCII.
fn ascii(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("?")
}

/// The names in a mangled Rust symbol (v0), in order; none in another one.
///
/// Types of the language and constants are left out, and what was named before is not repeated.
struct Names<'s>(&'s [u8]);

impl<'s> Names<'s> {
    fn of(symbol: &'s [u8]) -> Self {
        Self(symbol.strip_prefix(b"_R").unwrap_or_default())
    }
}

impl<'s> Iterator for Names<'s> {
    type Item = &'s [u8];

    fn next(&mut self) -> Option<&'s [u8]> {
        while let [first, tail @ ..] = self.0 {
            self.0 = match first {
                // A disambiguator or a back reference: up to the underscore.
                b's' | b'B' => {
                    let end = tail.iter().position(|&byte| byte == b'_')?;

                    &tail[end + 1..]
                }
                b'1'..=b'9' => {
                    let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
                    let len = digits.clone().fold(0, |len: usize, &digit| {
                        len.saturating_mul(10).saturating_add((digit - b'0').into())
                    });
                    let name = &self.0[digits.count()..];
                    let name = name.strip_prefix(b"_").unwrap_or(name);
                    let (name, rest) = name.split_at(len.min(name.len()));

                    self.0 = rest;
                    return Some(name);
                }
                _ => tail,
            };
        }

        None
    }
}
