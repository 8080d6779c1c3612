//! `cluster image`: looks after the images on this node.

use std::io::Write;

use anyhow::{Context, bail};

use crate::control::{self, Line, Listed, Request};
use crate::options::{ImageAction, ImageOptions};

pub async fn run(options: ImageOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let socket = options.paths.control_socket();
    let (requests, word) = match options.action {
        ImageAction::List => (vec![Request::List], ""),
        ImageAction::Pull { image } => (vec![Request::Pull { image }], "pulled "),
        ImageAction::Remove { images } => {
            (images.into_iter().map(|image| Request::Remove { image }).collect(), "removed ")
        }
        ImageAction::Import { files } => {
            let mut requests = Vec::new();
            for file in files {
                // The node reads the file, from wherever it was started.
                let file = std::fs::canonicalize(&file).with_context(|| format!("cannot open {}", file.display()))?;
                requests.push(Request::Import { file });
            }
            (requests, "imported ")
        }
    };
    for request in requests {
        let is_list = matches!(request, Request::List);
        let mut failed = None;
        let mut written = Ok(());
        control::ask(&socket, &request, |line| match line {
            Line::Progress(text) => written = writeln!(out, "{text}"),
            Line::Failed(why) => failed = Some(why),
            Line::Images(images) if is_list => written = table(out, &images),
            Line::Images(images) => {
                for image in images {
                    written = writeln!(out, "{word}{}", name(&image));
                }
            }
        })
        .await?;
        written?;
        if let Some(why) = failed {
            bail!(why);
        }
    }
    Ok(())
}

fn table(out: &mut impl Write, images: &[Listed]) -> std::io::Result<()> {
    let width = images.iter().map(|image| name(image).len()).max().unwrap_or(0).max("IMAGE".len());
    writeln!(out, "{:width$}  {:12}  {:>9}", "IMAGE", "ID", "SIZE")?;
    for image in images {
        let id = image.id.trim_start_matches("sha256:");
        let mib = image.bytes as f64 / (1024.0 * 1024.0);
        writeln!(out, "{:width$}  {:12}  {mib:>5.1} MiB", name(image), id.get(..12).unwrap_or(id))?;
    }
    Ok(())
}

fn name(image: &Listed) -> String {
    if image.names.is_empty() { image.id.clone() } else { image.names.join(",") }
}
