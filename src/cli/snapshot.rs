//! `cluster snapshot`: saves the cluster to a file, and makes it anew from one.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use backup::About;
use k8s_openapi::jiff::Timestamp;

use crate::control::{self, Line, Request};
use crate::options::{FolderOptions, PassphraseOptions, PathOptions, SnapshotAction, SnapshotOptions};
use crate::{authority, saved};

const PASSPHRASE: &str = "CLUSTER_SNAPSHOT_PASSPHRASE";

pub async fn run(options: SnapshotOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let paths = options.paths.absolute()?;
    match options.action {
        SnapshotAction::Save { file, passphrase, folder } => {
            let passphrase = passphrase.read()?;
            let file = match file {
                // The server writes the file, from wherever it was started.
                Some(file) => std::path::absolute(file)?,
                None => folder.dir(&paths)?.join(name()?),
            };
            save(&paths, Request::Save { file, passphrase }, out).await
        }
        SnapshotAction::List { folder } => Ok(table(out, &backup::list(&folder.dir(&paths)?)?)?),
        SnapshotAction::Restore { file, passphrase } => {
            let about = saved::restore(&paths, &file, &passphrase.read()?).await?;
            let when = when(&about);
            writeln!(out, "restored {} objects as they were on {} at {when}", about.keys, about.server)?;
            writeln!(out, "start `cluster server` now; what other servers and nodes keep of this cluster still fits")?;
            Ok(())
        }
        SnapshotAction::Prune { etcd_snapshot_retention, folder } => {
            let cluster = authority::cluster(&paths)?;
            for gone in backup::prune(&folder.dir(&paths)?, &cluster, etcd_snapshot_retention)? {
                writeln!(out, "removed {}", gone.display())?;
            }
            Ok(())
        }
    }
}

impl PassphraseOptions {
    fn read(&self) -> anyhow::Result<String> {
        let text = match &self.passphrase_file {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => std::env::var(PASSPHRASE).ok().with_context(|| {
                format!(
                    "a snapshot holds the cluster's keys and Secrets and is sealed: name a file that holds its \
                     passphrase with --passphrase-file, or set {PASSPHRASE}"
                )
            })?,
        };
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(line.to_owned()),
            _ => bail!("the passphrase is empty"),
        }
    }
}

impl FolderOptions {
    fn dir(&self, paths: &PathOptions) -> anyhow::Result<PathBuf> {
        Ok(match &self.etcd_snapshot_dir {
            Some(dir) => std::path::absolute(dir)?,
            None => paths.server().join("snapshots"),
        })
    }
}

async fn save(paths: &PathOptions, request: Request, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut said, mut failed) = (Ok(()), None);
    control::ask(&paths.control_socket(), &request, |line| match line {
        Line::Progress(text) => said = writeln!(out, "{text}"),
        Line::Failed(why) => failed = Some(why),
        Line::Images(_) => {}
    })
    .await?;
    said?;
    match failed {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}

/// After this host and the time, so that the names' order is the files'.
fn name() -> anyhow::Result<String> {
    let host = nix::unistd::gethostname()?;
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    Ok(format!("{}-{time}{}", host.to_string_lossy(), backup::SUFFIX))
}

fn when(about: &About) -> String {
    let seconds = i64::try_from(about.created).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

fn table(out: &mut impl Write, found: &[(PathBuf, About)]) -> std::io::Result<()> {
    let width =
        |of: &dyn Fn(&(PathBuf, About)) -> usize, head: &str| found.iter().map(of).max().unwrap_or(0).max(head.len());
    let path = |(path, _): &(PathBuf, About)| path.display().to_string();
    let (paths, servers) = (width(&|one| path(one).len(), "FILE"), width(&|(_, about)| about.server.len(), "SERVER"));
    writeln!(out, "{:paths$}  {:servers$}  {:20}  {:>10}  {:>8}", "FILE", "SERVER", "CREATED", "REVISION", "OBJECTS")?;
    for one in found {
        let about = &one.1;
        let (file, server, when) = (path(one), &about.server, when(about));
        writeln!(out, "{file:paths$}  {server:servers$}  {when:20}  {:>10}  {:>8}", about.revision, about.keys)?;
    }
    Ok(())
}
