//! The process's own socket for `cluster image`, `cluster snapshot` and `cluster status`: one request a connection, answered by lines of
//! progress and an end. Only root can open it. Both directions are JSON lines.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use client::Client;
use images::Images;
use k8s_openapi::api::core::v1::{Namespace, Node};
use serde::{Deserialize, Serialize};
use task::Shutdown;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::saved::Saver;

const REQUEST_BYTES_MAX: u64 = 64 * 1024;
const PROGRESS_QUEUED_MAX: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    Import {
        file: PathBuf,
    },
    Pull {
        image: String,
    },
    Remove {
        image: String,
    },
    List,
    Status,
    /// `file` is absolute.
    Save {
        file: PathBuf,
        passphrase: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    Progress(String),
    Images(Vec<Listed>),
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    pub names: Vec<String>,
    pub id: String,
    pub bytes: u64,
}

/// What requests are answered from.
#[derive(Clone)]
pub struct Answering {
    pub client: Client,
    /// None in a server that was started with `--disable-agent`.
    pub node: Option<AnsweringNode>,
    /// None in an agent.
    pub saver: Option<Saver>,
}

#[derive(Clone)]
pub struct AnsweringNode {
    pub name: String,
    pub images: Images,
}

/// Starts serving the socket, until `shutdown`.
pub fn start(socket: PathBuf, answering: Answering, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    task::restarting("control", shutdown.clone(), move || serve(socket.clone(), answering.clone(), stop.clone()));
}

async fn serve(socket: PathBuf, answering: Answering, shutdown: Shutdown) -> anyhow::Result<()> {
    // Left by a process that was killed.
    std::fs::remove_file(&socket).ok();
    let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted?.0,
        };
        let answering = answering.clone();
        task::spawn("control", async move {
            if let Err(error) = answer(stream, answering).await {
                tracing::debug!(%error, "a client of the control socket went away");
            }
        });
    }
}

async fn answer(mut stream: UnixStream, answering: Answering) -> anyhow::Result<()> {
    let (read, mut write) = stream.split();
    let mut text = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut text).await?;
    let (progress, mut lines) = mpsc::channel::<String>(PROGRESS_QUEUED_MAX);
    let work = async {
        match serde_json::from_str(&text) {
            Ok(request) => carry_out(&answering, request, progress).await,
            Err(error) => Err(anyhow::anyhow!("the request is malformed: {error}")),
        }
    };
    tokio::pin!(work);
    let mut ended = None;
    loop {
        let line = tokio::select! {
            biased;
            Some(text) = lines.recv() => Line::Progress(text),
            outcome = &mut work, if ended.is_none() => {
                ended = Some(outcome);
                continue;
            }
            else => break,
        };
        send(&mut write, &line).await?;
    }
    match ended {
        Some(Ok(listed)) => send(&mut write, &Line::Images(listed)).await,
        Some(Err(error)) => send(&mut write, &Line::Failed(format!("{error:#}"))).await,
        None => Ok(()),
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), line: &Line) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(write.write_all(&bytes).await?)
}

async fn carry_out(
    answering: &Answering,
    request: Request,
    progress: mpsc::Sender<String>,
) -> anyhow::Result<Vec<Listed>> {
    let images = || {
        let node = answering.node.as_ref().map(|node| &node.images);
        node.context("no node runs here: the server was started with --disable-agent")
    };
    match request {
        Request::Save { file, passphrase } => {
            let saver = answering.saver.as_ref().context("no server runs here, and an agent has nothing to save")?;
            progress.send(format!("saving to {}", file.display())).await.ok();
            let about = saver.save(&file, &passphrase).await?;
            let said = format!("saved revision {}: {} objects, {} bytes", about.revision, about.keys, about.bytes);
            progress.send(said).await.ok();
            Ok(Vec::new())
        }
        Request::Status => {
            let Some(AnsweringNode { name, .. }) = &answering.node else {
                let _: Namespace = answering.client.get("", "default").await?;
                progress.send("the API server is Ready; no node runs here".to_owned()).await.ok();
                return Ok(Vec::new());
            };
            let node: Node = answering.client.get("", name).await?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            if ready.is_none_or(|ready| ready.status != "True") {
                let why = ready.and_then(|ready| ready.message.clone()).unwrap_or_default();
                bail!("node {name} is not Ready: {why}");
            }
            progress.send(format!("node {name} is Ready")).await.ok();
            Ok(Vec::new())
        }
        Request::List => Ok(images()?.list().iter().map(|image| listed(image)).collect()),
        Request::Import { file } => {
            let images = images()?;
            progress.send(format!("importing {}", file.display())).await.ok();
            Ok(images.import(&file).await?.iter().map(|image| listed(image)).collect())
        }
        Request::Remove { image } => {
            let images = images()?;
            let found = images.get(&image).with_context(|| format!("there is no image {image}"))?;
            images.remove(&image).await?;
            Ok(vec![listed(&found)])
        }
        Request::Pull { image } => {
            let pulled = images()?
                .pull(&image, None, move |step| {
                    // Progress that nobody reads fast enough is left out.
                    let text = format!("{} {} of {} bytes", step.layer, step.done_bytes, step.total_bytes);
                    progress.try_send(text).ok();
                })
                .await?;
            Ok(vec![listed(&pulled)])
        }
    }
}

fn listed(image: &images::Image) -> Listed {
    Listed { names: image.repo_tags.clone(), id: image.id.clone(), bytes: image.size_bytes }
}

/// Sends a request to the node that runs with `socket`, and hands every line of the answer to `each`.
pub async fn ask(socket: &Path, request: &Request, mut each: impl FnMut(Line)) -> anyhow::Result<()> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!("cannot reach cluster at {}: is `cluster server` or `cluster agent` running here?", socket.display())
    })?;
    let (read, mut write) = stream.into_split();
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        each(serde_json::from_str(&line)?);
    }
    Ok(())
}
