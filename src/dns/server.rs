//! Sockets, and the zone kept up to date.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use client::{Client, Scope};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use parking_lot::{Mutex, RwLock};
use task::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::answer::{self, Domain, Parsed, Request, Resolution};
use crate::forward::Forwarder;
use crate::zone::Zone;

/// Room in the kernel for questions that come faster than they are read: one greedy client must not make it drop others'.
const BURST_BYTES: usize = 4 * 1024 * 1024;
/// Questions that wait for other name servers.
const FORWARDED_MAX: usize = 1024;
/// Of one client.
const FORWARDED_PER_CLIENT_MAX: usize = 128;
const CONNECTIONS_MAX: usize = 256;
const CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// A connection on which nothing is asked is closed.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Answers on their way into one connection.
const CONNECTION_ANSWERS_MAX: usize = 32;
const QUERY_BYTES_MAX: usize = 4096;
const TCP_BYTES_MAX: usize = u16::MAX as usize;
/// An error of the socket itself, such as exhausted memory, is not met with a hot loop.
const SOCKET_ERROR_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// `--cluster-domain`, usually `cluster.local`.
    pub cluster_domain: String,
    /// Names the servers for everything outside the cluster; read again when it changes.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster's domain {0:?} is not a domain name")]
    Domain(String),
    #[error("listening for DNS on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("a task of the name server died")]
    Died,
}

/// Serves names until `shutdown`. Names outside the cluster are served at once, the cluster's as soon as they are known.
pub async fn run(config: DnsConfig, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    let addresses: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
    let domain = Domain::new(&config.cluster_domain, addresses.clone())
        .ok_or_else(|| Error::Domain(config.cluster_domain.clone()))?;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let server = Arc::new(Server {
        domain,
        zone: RwLock::new(Zone::new(since_epoch.as_secs() as u32)),
        synced: AtomicBool::new(false),
        forwarder: Arc::new(Forwarder::new(config.resolv_conf, addresses)),
        turn: AtomicUsize::new(0),
        forwarded: Arc::new(Slots::new(FORWARDED_MAX, FORWARDED_PER_CLIENT_MAX)),
        connections: Arc::new(Slots::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX)),
    });
    // Whatever ends, ends the others.
    let stop = shutdown.child_token();
    let _guard = stop.clone().drop_guard();
    let mut tasks = Vec::new();
    for address in config.listen {
        let failed = |source| Error::Listen { address, source };
        let udp = Arc::new(UdpSocket::bind(address).await.map_err(failed)?);
        if setsockopt(&udp, RcvBufForce, &BURST_BYTES).is_err() {
            tracing::debug!(address = %address, "the queue for questions has the kernel's own size");
        }
        // A port chosen by the kernel is the same for both.
        let local = udp.local_addr().map_err(failed)?;
        let tcp = TcpListener::bind(local).await.map_err(failed)?;
        tracing::info!(address = %local, domain = %config.cluster_domain, "serving DNS");
        tasks.push(task::spawn("dns-udp", until(stop.clone(), server.clone().serve_udp(udp))));
        tasks.push(task::spawn("dns-tcp", until(stop.clone(), server.clone().serve_tcp(tcp))));
    }
    tasks.push(task::spawn("dns-zone", until(stop.clone(), server.follow(client))));
    let (_, _, _) = futures::future::select_all(tasks).await;
    if shutdown.is_cancelled() { Ok(()) } else { Err(Error::Died) }
}

async fn until(stop: Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

struct Server {
    domain: Domain,
    zone: RwLock<Zone>,
    /// All Services and EndpointSlices are in the zone.
    synced: AtomicBool,
    forwarder: Arc<Forwarder>,
    /// Counts answers, so that each begins with another address.
    turn: AtomicUsize,
    forwarded: Arc<Slots>,
    connections: Arc<Slots>,
}

/// What to do about a packet.
enum Handled {
    Reply(Vec<u8>),
    /// It has to be asked elsewhere: everything, or what is behind an alias.
    Ask(Box<Ask>),
    Nothing,
}

struct Ask {
    request: Box<Request>,
    resolution: Resolution,
    /// Held until it is answered.
    slot: Slot,
}

/// How an answer travels.
#[derive(Debug, Clone, Copy)]
enum Transport {
    Udp,
    Tcp,
}

impl Server {
    async fn follow(self: Arc<Self>, client: Client) {
        let services = client.informer::<Service>(Scope::all());
        let slices = client.informer::<EndpointSlice>(Scope::all());
        services.synced().await;
        slices.synced().await;
        let (mut services, mut slices) = (services.subscribe(), slices.subscribe());
        loop {
            {
                // All that is there goes in at once.
                let mut zone = self.zone.write();
                while let Some(change) = services.try_next() {
                    zone.service_changed(&change.key, change.new);
                }
                while let Some(change) = slices.try_next() {
                    zone.slice_changed(&change.key, change.old.as_deref(), change.new);
                }
            }
            self.synced.store(true, Ordering::Release);
            tokio::select! {
                change = services.next() => self.zone.write().service_changed(&change.key, change.new),
                change = slices.next() => {
                    self.zone.write().slice_changed(&change.key, change.old.as_deref(), change.new);
                }
            }
        }
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; QUERY_BYTES_MAX];
        loop {
            let (len, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "receiving a DNS query");
                    tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
                    continue;
                }
            };
            let packet = buffer.get(..len).unwrap_or_default();
            match self.handle(packet, peer.ip(), Transport::Udp) {
                Handled::Nothing => {}
                // A full send buffer loses the answer, as the network might: nobody waits for this client.
                Handled::Reply(reply) => drop(socket.try_send_to(&reply, peer)),
                Handled::Ask(ask) => {
                    let (server, socket) = (self.clone(), socket.clone());
                    task::spawn("dns-forward", async move {
                        if let Some(reply) = server.ask(*ask, Transport::Udp).await {
                            drop(socket.send_to(&reply, peer).await);
                        }
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "accepting a DNS connection");
                    tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
                    continue;
                }
            };
            let Some(slot) = self.connections.take(peer.ip()) else { continue };
            let server = self.clone();
            task::spawn("dns-connection", async move {
                let _slot = slot;
                server.serve_connection(stream, peer.ip()).await;
            });
        }
    }

    /// Answers go out as they are ready, which need not be the order of the questions.
    async fn serve_connection(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        let (mut reader, mut writer) = stream.into_split();
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(CONNECTION_ANSWERS_MAX);
        let read = async move {
            while let Ok(Ok(packet)) = timeout(CONNECTION_IDLE_MAX, read_framed(&mut reader)).await {
                match self.handle(&packet, peer, Transport::Tcp) {
                    Handled::Nothing => break,
                    Handled::Reply(reply) => {
                        if sender.send(reply).await.is_err() {
                            break;
                        }
                    }
                    Handled::Ask(ask) => {
                        let (server, sender) = (self.clone(), sender.clone());
                        task::spawn("dns-forward", async move {
                            if let Some(reply) = server.ask(*ask, Transport::Tcp).await {
                                // The client may have gone meanwhile.
                                drop(sender.send(reply).await);
                            }
                        });
                    }
                }
            }
        };
        let write = async move {
            while let Some(reply) = receiver.recv().await {
                let Ok(len) = u16::try_from(reply.len()) else { break };
                let mut framed = Vec::with_capacity(reply.len() + 2);
                framed.extend_from_slice(&len.to_be_bytes());
                framed.extend_from_slice(&reply);
                if !matches!(timeout(WRITE_MAX, writer.write_all(&framed)).await, Ok(Ok(()))) {
                    break;
                }
            }
        };
        tokio::join!(read, write);
    }

    /// Answers what can be answered at once.
    fn handle(&self, packet: &[u8], peer: IpAddr, transport: Transport) -> Handled {
        let request = match answer::parse(packet) {
            Parsed::Request(request) => request,
            Parsed::Refused(message) => return reply(message.to_vec().ok()),
            Parsed::Ignored => return Handled::Nothing,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let zone = self.zone.read();
        let resolution = answer::resolve(&request.query, &self.domain, &zone, turn);
        let needs_others = match &resolution {
            Resolution::Elsewhere => true,
            _ if !self.synced.load(Ordering::Acquire) => {
                return reply(encode(&request.response(ResponseCode::ServFail), &request, transport));
            }
            Resolution::Alias { .. } => request.query.query_type() != RecordType::CNAME,
            _ => false,
        };
        if !needs_others {
            let message = answer::respond(&request, resolution, &self.domain, &zone);
            return reply(encode(&message, &request, transport));
        }
        drop(zone);
        match self.forwarded.take(peer) {
            Some(slot) => Handled::Ask(Box::new(Ask { request, resolution, slot })),
            None => reply(encode(&request.response(ResponseCode::ServFail), &request, transport)),
        }
    }

    /// Asks elsewhere. The bytes of the answer.
    async fn ask(&self, ask: Ask, transport: Transport) -> Option<Vec<u8>> {
        let Ask { request, resolution, slot } = ask;
        let message = match resolution {
            Resolution::Alias { record, target } => {
                let mut message = request.response(ResponseCode::NoError);
                message.answers.push(*record);
                self.add_behind_alias(&mut message, &request, target).await;
                message
            }
            _ => self.forwarder.respond(&request).await,
        };
        drop(slot);
        encode(&message, &request, transport)
    }

    /// The records of the name that a Service stands for, which may be another Service's.
    async fn add_behind_alias(&self, message: &mut Message, request: &Request, target: hickory_proto::rr::Name) {
        let mut query = request.query.clone();
        query.set_name(target.clone());
        let here = answer::resolve(&query, &self.domain, &self.zone.read(), self.turn.fetch_add(1, Ordering::Relaxed));
        match here {
            Resolution::Elsewhere => match self.forwarder.ask(request, &target).await {
                Some((found, _)) => {
                    message.metadata.response_code = found.metadata.response_code;
                    message.answers.extend(found.answers.iter().cloned());
                }
                None => message.metadata.response_code = ResponseCode::ServFail,
            },
            Resolution::Records { answers, .. } => message.answers.extend(answers),
            // An alias of an alias is the client's to follow: the chain may be a circle.
            Resolution::Alias { record, .. } => message.answers.push(*record),
            Resolution::NoData => {}
            Resolution::NoSuchName => message.metadata.response_code = ResponseCode::NXDomain,
        }
    }
}

fn reply(bytes: Option<Vec<u8>>) -> Handled {
    bytes.map_or(Handled::Nothing, Handled::Reply)
}

fn encode(message: &Message, request: &Request, transport: Transport) -> Option<Vec<u8>> {
    match transport {
        Transport::Udp => answer::encode(message, request.udp_bytes_max()),
        Transport::Tcp => answer::encode(message, TCP_BYTES_MAX),
    }
}

async fn read_framed(reader: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let len = usize::from(reader.read_u16().await?);
    if len > QUERY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut packet = vec![0; len];
    reader.read_exact(&mut packet).await?;
    Ok(packet)
}

/// A bounded number of things under way, in all and per client.
struct Slots {
    max: usize,
    per_client_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One of them; given back when dropped.
struct Slot {
    slots: Arc<Slots>,
    client: IpAddr,
}

impl Slots {
    fn new(max: usize, per_client_max: usize) -> Self {
        Self { max, per_client_max, taken: Mutex::default() }
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Option<Slot> {
        let mut taken = self.taken.lock();
        let own = taken.by_client.get(&client).copied().unwrap_or(0);
        if taken.all >= self.max || own >= self.per_client_max {
            return None;
        }
        taken.all += 1;
        taken.by_client.insert(client, own + 1);
        Some(Slot { slots: self.clone(), client })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_client.get_mut(&self.client).map(|own| {
            *own = own.saturating_sub(1);
            *own
        });
        if left == Some(0) {
            taken.by_client.remove(&self.client);
        }
    }
}
