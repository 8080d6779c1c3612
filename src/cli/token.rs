//! `cluster token`: prints the token with which nodes join.

use anyhow::Context;

use crate::authority::token_path;
use crate::options::PathOptions;

pub fn run(paths: &PathOptions, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let path = token_path(paths);
    let token = pki::read_secret(&path)?.with_context(|| {
        format!("{} is missing: has `cluster server` run here with this --data-dir?", path.display())
    })?;
    Ok(write!(out, "{token}")?)
}
