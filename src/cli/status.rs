//! `cluster status`: says whether the node on this machine is Ready, or the API server where there is to be no node.

use std::io::Write;

use anyhow::bail;

use crate::control::{self, Line, Request};
use crate::options::PathOptions;

/// An error, and so an exit status that is not 0, unless it is Ready.
pub async fn run(paths: &PathOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let mut said = Ok(());
    let mut problem = None;
    control::ask(&paths.control_socket(), &Request::Status, |line| match line {
        Line::Progress(text) => said = writeln!(out, "{text}"),
        Line::Failed(why) => problem = Some(why),
        Line::Images(_) => {}
    })
    .await?;
    said?;
    match problem {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}
