//! Where in the text something is, and complaints that point there.

use std::fmt;

/// A position counted in characters from the start of the expression.
pub type Offset = u32;

/// Complaints beyond this many are only counted (upstream: `maxErrorsToReport`).
const ISSUES_MAX: usize = 100;
/// A longer line is not repeated below its complaint (upstream: `maxSnippetLength`).
const SNIPPET_BYTES_MAX: usize = 16_384;

/// One complaint about an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    pub message: String,
}

/// Why an expression does not compile. [`fmt::Display`] is what clients see upstream: each complaint with its line
/// and a caret below the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors {
    pub issues: Vec<Issue>,
    text: String,
}

impl std::error::Error for CompileErrors {}

/// Collects complaints about one text.
pub(crate) struct Issues<'t> {
    text: &'t str,
    found: Vec<(Offset, String)>,
}

impl<'t> Issues<'t> {
    pub fn new(text: &'t str) -> Issues<'t> {
        Issues { text, found: Vec::new() }
    }

    pub fn report(&mut self, at: Offset, message: impl Into<String>) {
        self.found.push((at, message.into()));
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn into_errors(self) -> CompileErrors {
        let mut issues: Vec<Issue> = Vec::new();
        let more = self.found.len().saturating_sub(ISSUES_MAX);
        for (at, message) in self.found.into_iter().take(ISSUES_MAX) {
            let (line, column) = place(self.text, at);
            issues.push(Issue { line, column, message });
        }
        issues.sort_by_key(|issue| (issue.line, issue.column));
        if more > 0 {
            issues.push(Issue { line: 0, column: 0, message: format!("{more} more errors were truncated") });
        }
        CompileErrors { issues, text: self.text.to_owned() }
    }
}

/// Line and column, both from 1.
fn place(text: &str, at: Offset) -> (u32, u32) {
    let (mut line, mut column) = (1, 1);
    for character in text.chars().take(at as usize) {
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line, column)
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            if issue.line == 0 {
                return out.write_str(&issue.message);
            }
            write!(out, "ERROR: <input>:{}:{}: {}", issue.line, issue.column, issue.message)?;
            let Some(line) = self.text.split('\n').nth(issue.line as usize - 1) else { continue };
            if self.text.is_empty() || line.len() > SNIPPET_BYTES_MAX {
                continue;
            }
            write!(out, "\n | {}\n | ", line.replace('\t', " "))?;
            let before = issue.column as usize - 1;
            let mut characters = line.chars();
            for character in characters.by_ref().take(before) {
                out.write_str(if character.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
            }
            let wide = characters.next().is_some_and(|character| character.len_utf8() > 1);
            out.write_str(if wide { "\u{ff3e}" } else { "^" })?;
        }
        Ok(())
    }
}
