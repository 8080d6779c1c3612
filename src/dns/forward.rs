//! Names that are not the cluster's: asked of the machine's own name servers.
//!
//! A server that does not answer is not waited for: the next one is asked as well after a moment, and one that failed
//! lately is asked last. Equal questions that are under way at once are one question, which also ends a loop of name
//! servers that ask each other: the question that comes back waits for itself, and both time out.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::{BoxFuture, Shared};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::answer::{Request, UDP_BYTES_MAX};
use crate::cache::{Cache, Question};
use crate::resolv;

/// One server has this long. Stub resolvers give up after 5 s by default and should have our answer before.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// All servers together.
const QUESTION_MAX: Duration = Duration::from_millis(4500);
/// After this long without an answer the next server is asked as well.
const PATIENCE: Duration = Duration::from_millis(500);
/// A server that failed is asked last for this long.
const DISTRUST: Duration = Duration::from_secs(10);
/// How often the list of servers is looked at, at most.
const RESOLV_CONF_LOOK: Duration = Duration::from_secs(5);
const PACKET_BYTES_MAX: usize = 4096;

type Answer = Option<Arc<Message>>;

pub(crate) struct Forwarder {
    resolv_conf: PathBuf,
    /// Where this server listens: never asked.
    own: Vec<IpAddr>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    under_way: HashMap<Question, Shared<BoxFuture<'static, Answer>>>,
    failed: HashMap<SocketAddr, Instant>,
    servers: Vec<SocketAddr>,
    looked: Option<Instant>,
    read: Option<SystemTime>,
}

impl Forwarder {
    pub fn new(resolv_conf: PathBuf, own: Vec<IpAddr>) -> Self {
        Self { resolv_conf, own, state: Mutex::default() }
    }

    /// The response to a request. `name` is what is asked for, if not the request's own name.
    pub async fn respond(self: &Arc<Self>, request: &Request) -> Message {
        match self.ask(request, request.query.name()).await {
            Some((answer, age)) => adopt(request, &answer, age),
            None => request.response(ResponseCode::ServFail),
        }
    }

    /// What is known elsewhere of `name`, for the request's type, and how old that is.
    pub async fn ask(self: &Arc<Self>, request: &Request, name: &Name) -> Option<(Arc<Message>, Duration)> {
        let question = Question {
            name: name.to_lowercase(),
            record_type: request.query.query_type(),
            dnssec_ok: request.edns.is_some_and(|(_, dnssec_ok)| dnssec_ok),
            checking_disabled: request.checking_disabled,
        };
        let asked = {
            let mut state = self.state.lock();
            if let Some(known) = state.cache.get(&question, Instant::now()) {
                return Some(known);
            }
            let ask = || self.clone().question(question.clone()).boxed().shared();
            state.under_way.entry(question.clone()).or_insert_with(ask).clone()
        };
        asked.await.map(|answer| (answer, Duration::ZERO))
    }

    async fn question(self: Arc<Self>, question: Question) -> Answer {
        let answer = timeout(QUESTION_MAX, self.ask_servers(&question)).await.ok().flatten().map(Arc::new);
        let mut state = self.state.lock();
        state.under_way.remove(&question);
        if let Some(answer) = &answer {
            state.cache.put(question, answer.clone(), Instant::now());
        }
        answer
    }

    /// The first good answer; the last bad one, if there is no good one.
    async fn ask_servers(&self, question: &Question) -> Option<Message> {
        let servers = self.servers().await;
        let mut waiting = servers.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut bad = None;
        // Who was asked and has not answered.
        let mut silent = Vec::new();
        loop {
            if attempts.is_empty() {
                let server = waiting.next()?;
                silent.push(server);
                attempts.push(attempt(server, question));
            }
            let patience = sleep(PATIENCE);
            tokio::select! {
                Some((server, outcome)) = attempts.next() => match outcome {
                    Ok(message) if is_good(&message) => {
                        silent.retain(|other| *other != server);
                        let mut state = self.state.lock();
                        state.failed.remove(&server);
                        // They had a head start.
                        state.failed.extend(silent.into_iter().map(|other| (other, Instant::now())));
                        return Some(message);
                    }
                    outcome => {
                        tracing::debug!(%server, name = %question.name, ?outcome, "a name server gave no answer");
                        self.state.lock().failed.insert(server, Instant::now());
                        silent.retain(|other| *other != server);
                        bad = outcome.ok().or(bad);
                        match waiting.next() {
                            Some(server) => {
                                silent.push(server);
                                attempts.push(attempt(server, question));
                            }
                            None if attempts.is_empty() => return bad,
                            None => {}
                        }
                    }
                },
                () = patience => {
                    if let Some(server) = waiting.next() {
                        silent.push(server);
                        attempts.push(attempt(server, question));
                    }
                }
            }
        }
    }

    /// The machine's name servers, the trusted ones first. The file is read again when it changed.
    async fn servers(&self) -> Vec<SocketAddr> {
        let now = Instant::now();
        let look = {
            let mut state = self.state.lock();
            let due = state.looked.is_none_or(|looked| now.duration_since(looked) >= RESOLV_CONF_LOOK);
            if due {
                state.looked = Some(now);
            }
            due
        };
        if look {
            self.read_servers().await;
        }
        let state = self.state.lock();
        let mut servers = state.servers.clone();
        let is_distrusted = |server: &SocketAddr| {
            state.failed.get(server).is_some_and(|failed| now.saturating_duration_since(*failed) < DISTRUST)
        };
        servers.sort_by_key(is_distrusted);
        servers
    }

    async fn read_servers(&self) {
        let modified = tokio::fs::metadata(&self.resolv_conf).await.and_then(|metadata| metadata.modified()).ok();
        if modified.is_some() && self.state.lock().read == modified {
            return;
        }
        let servers = match tokio::fs::read_to_string(&self.resolv_conf).await {
            Ok(text) => resolv::servers(&text, &self.own),
            Err(error) => {
                tracing::warn!(path = %self.resolv_conf.display(), %error, "no name servers for names outside the cluster");
                Vec::new()
            }
        };
        tracing::info!(?servers, "name servers for names outside the cluster");
        let mut state = self.state.lock();
        state.failed.retain(|server, _| servers.contains(server));
        state.servers = servers;
        state.read = modified;
    }
}

/// Another server's answer as ours to this request.
fn adopt(request: &Request, answer: &Message, age: Duration) -> Message {
    let mut response = request.response(answer.metadata.response_code);
    response.metadata.authentic_data = answer.metadata.authentic_data;
    response.answers = answer.answers.clone();
    response.authorities = answer.authorities.clone();
    response.additionals = answer.additionals.clone();
    let age_seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    let records = response.answers.iter_mut().chain(&mut response.authorities).chain(&mut response.additionals);
    for record in records {
        record.ttl = record.ttl.saturating_sub(age_seconds);
        if record.name == *request.query.name() {
            record.name = request.query.name().clone();
        }
    }
    response
}

fn is_good(message: &Message) -> bool {
    matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn attempt(server: SocketAddr, question: &Question) -> (SocketAddr, io::Result<Message>) {
    let deadline = Instant::now() + ATTEMPT_MAX;
    let asked = async {
        let answer = over_udp(server, question).await?;
        if answer.metadata.truncation { over_tcp(server, question).await } else { Ok(answer) }
    };
    let outcome = timeout_at(deadline, asked).await;
    (server, outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
}

/// A socket of its own, and thus a random port, for each question: harder to guess for who would like to answer it.
async fn over_udp(server: SocketAddr, question: &Question) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let (id, packet) = question_packet(question)?;
    socket.send(&packet).await?;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..len).and_then(|packet| Message::from_vec(packet).ok());
        if let Some(answer) = answer.filter(|answer| answers(answer, id, question)) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, packet) = question_packet(question)?;
    let len = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(&packet);
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(len)];
    stream.read_exact(&mut packet).await?;
    let answer = Message::from_vec(&packet).map_err(io::Error::other)?;
    if answers(&answer, id, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn question_packet(question: &Question) -> io::Result<(u16, Vec<u8>)> {
    let id = rand::random();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.checking_disabled;
    message.add_query(Query::query(question.name.clone(), question.record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    edns.set_dnssec_ok(question.dnssec_ok);
    message.set_edns(edns);
    message.to_vec().map(|packet| (id, packet)).map_err(io::Error::other)
}

/// Whether this is the answer to just that question.
fn answers(answer: &Message, id: u16, question: &Question) -> bool {
    answer.metadata.id == id
        && answer.metadata.message_type == MessageType::Response
        && match answer.queries.as_slice() {
            [query] => query.name() == &question.name && query.query_type() == question.record_type,
            // Some servers repeat no question when they refuse it.
            _ => !is_good(answer),
        }
}
