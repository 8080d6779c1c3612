//! The node's network as a whole: started, asked for pods' links, told of peers, torn down.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv4Net};

use crate::address::Addresses;
use crate::config::{
    Names, NetworkConfig, Peer, PodAddresses, PodAttach, gateway_address, gateway_mac, only_ipv4, vtep_mac,
};
use crate::netlink::route::{Link, Route, Rtnetlink, VxlanLink};
use crate::nft::{Connection, Family, Table, Watch};
use crate::overlay::{Entries, host, own_address};
use crate::pod::{Label, Plug};
use crate::sysctl::Before;
use crate::{Error, masquerade, pod, sysctl};

/// What VXLAN, UDP, IP and Ethernet headers take from each packet.
const OVERLAY_BYTES: u32 = 50;
/// Behind every route that somebody made on purpose.
const SERVICE_ROUTE_METRIC: u32 = 100_000;

/// This node's part of the pod network. Clones are the same network. Dropping it changes nothing in the kernel.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    pod_cidr: Ipv4Net,
    cluster_cidr: Ipv4Net,
    gateway: Ipv4Addr,
    node_ip: Ipv4Addr,
    mtu: u32,
    bridge: u32,
    vxlan: u32,
    state: Mutex<State>,
}

/// What only one thread at a time works with.
#[derive(Debug)]
struct State {
    netlink: Rtnetlink,
    addresses: Addresses,
}

impl Network {
    /// Brings the node's network up in the calling thread's network namespace. What is there already and right is not
    /// touched: pods that run keep their links, addresses and connections.
    pub async fn start(config: NetworkConfig) -> Result<Self, Error> {
        blocking(move || Inner::start(config)).await.map(|inner| Self { inner: Arc::new(inner) })
    }

    /// Gives a pod its link and addresses. Asked again for the same pod, it gives the same answer.
    pub async fn attach(&self, pod: PodAttach) -> Result<PodAddresses, Error> {
        let inner = self.inner.clone();
        blocking(move || inner.attach(&pod)).await
    }

    /// Takes a pod's link and addresses away. A pod that has none is no error.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        blocking(move || inner.detach(&id)).await
    }

    /// The ids of all pods with a link, for finding those that nobody knows any more.
    pub async fn attached(&self) -> Result<Vec<(String, IpAddr)>, Error> {
        let inner = self.inner.clone();
        blocking(move || {
            let labels = labels(&mut inner.state().netlink, inner.bridge)?;
            Ok(labels.into_iter().map(|label| (label.id, IpAddr::V4(label.ip))).collect())
        })
        .await
    }

    /// Makes `peers` the nodes whose pods are reached through the overlay. This node among them is passed over.
    pub async fn set_peers(&self, peers: Vec<Peer>) -> Result<(), Error> {
        let inner = self.inner.clone();
        blocking(move || {
            let entries = Entries::wanted(&peers, inner.vxlan, inner.pod_cidr);
            entries.apply(&mut inner.state().netlink, inner.vxlan).map_err(failed("updating the overlay's peers"))
        })
        .await
    }

    /// Puts an address on the bridge, for a server of this process that pods of this node reach there.
    pub async fn add_local_address(&self, ip: IpAddr) -> Result<(), Error> {
        let inner = self.inner.clone();
        blocking(move || {
            let address = host(ipv4(ip)?);
            inner.state().netlink.add_address(inner.bridge, address).map_err(failed("adding a local address"))
        })
        .await
    }

    pub async fn remove_local_address(&self, ip: IpAddr) -> Result<(), Error> {
        let inner = self.inner.clone();
        blocking(move || {
            let address = host(ipv4(ip)?);
            inner.state().netlink.delete_address(inner.bridge, address).map_err(failed("removing a local address"))
        })
        .await
    }

    /// Puts the node's packet-filter table back whenever somebody else removes it, until `shutdown`.
    pub async fn keep(&self, shutdown: task::Shutdown) -> Result<(), Error> {
        let inner = self.inner.clone();
        let mut watch = Watch::open(&inner.names.node_table)?;
        let mut table = inner.table();
        loop {
            // The first time as well: it may have gone before the watch began.
            let (kept, own) = blocking(move || {
                let mut filter = Connection::open()?;
                table.doubt();
                filter.sync(&mut table)?;
                Ok((table, filter.port()?))
            })
            .await?;
            table = kept;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                removed = watch.removed(own) => removed?,
            }
            tracing::warn!("another program removed the node's packet-filter table; it is put back");
        }
    }

    /// The address that other nodes reach this one at.
    pub fn node_ip(&self) -> IpAddr {
        IpAddr::V4(self.inner.node_ip)
    }

    /// The bridge's address: pods' next hop, and where they reach this host.
    pub fn gateway(&self) -> IpAddr {
        IpAddr::V4(self.inner.gateway)
    }

    pub fn pod_cidr(&self) -> IpNet {
        IpNet::V4(self.inner.pod_cidr)
    }

    /// Of pods' links, in bytes.
    pub fn mtu(&self) -> u32 {
        self.inner.mtu
    }

    pub fn names(&self) -> &Names {
        &self.inner.names
    }
}

/// Removes every link, route, address and packet-filter table that is ours by name, and sets the node's settings back.
/// Pods lose their network. What is not there is no error.
pub async fn teardown(names: Names) -> Result<(), Error> {
    blocking(move || {
        let mut netlink = Rtnetlink::open().map_err(failed("opening rtnetlink"))?;
        let mut before = Before::default();
        if let Some(bridge) = netlink.link(&names.bridge).map_err(failed("looking for the bridge"))? {
            before = Before::parse(&bridge.alias);
            for link in ports(&mut netlink, bridge.index)? {
                netlink.delete_link(&link.name).map_err(failed("removing a pod's link"))?;
            }
        }
        // Their addresses and routes go with them.
        netlink.delete_link(&names.bridge).map_err(failed("removing the bridge"))?;
        netlink.delete_link(&names.vxlan).map_err(failed("removing the overlay"))?;
        let mut filter = Connection::open()?;
        for table in [&names.node_table, &names.service_table] {
            for family in [Family::Ipv4, Family::Ipv6] {
                filter.delete_table(family, table)?;
            }
        }
        before.restore()
    })
    .await
}

/// The address of the link that the default route leaves from, or of the link with address `wanted`.
pub async fn node_address(wanted: Option<IpAddr>) -> Result<IpAddr, Error> {
    blocking(move || {
        let mut netlink = Rtnetlink::open().map_err(failed("opening rtnetlink"))?;
        underlay(&mut netlink, wanted).map(|(_, ip)| IpAddr::V4(ip))
    })
    .await
}

impl Inner {
    fn start(config: NetworkConfig) -> Result<Self, Error> {
        let pod_cidr = only_ipv4("the node's pod network", &config.pod_cidrs)?.trunc();
        let cluster_cidr = only_ipv4("the cluster's pod network", &config.cluster_cidrs)?.trunc();
        let names = config.names;
        let mut netlink = Rtnetlink::open().map_err(failed("opening rtnetlink"))?;
        let (underlay, node_ip) = underlay(&mut netlink, config.node_ip)?;
        let mtu = config.mtu.unwrap_or_else(|| underlay.mtu.saturating_sub(OVERLAY_BYTES));

        let bridge = bridge(&mut netlink, &names.bridge, pod_cidr, mtu)?;
        sysctl::set_node()?;
        let wanted = VxlanLink { vni: config.vxlan.vni, port: config.vxlan.port, local: node_ip };
        let vxlan = overlay(&mut netlink, &names.vxlan, wanted, pod_cidr, mtu)?;
        for name in [&names.bridge, &names.vxlan] {
            sysctl::set(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
            // Answers to translated packets may take another way than the packets did.
            sysctl::set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
        }
        for service_cidr in &config.service_cidrs {
            if let IpNet::V4(service_cidr) = service_cidr {
                let route = Route {
                    destination: service_cidr.trunc(),
                    gateway: None,
                    source: None,
                    link: bridge,
                    onlink: false,
                    metric: SERVICE_ROUTE_METRIC,
                };
                netlink.set_route(&route).map_err(failed("routing Service addresses"))?;
            }
        }
        Connection::open()?.sync(&mut node_table(&names, pod_cidr, cluster_cidr))?;

        for link in ports(&mut netlink, bridge)?.iter().filter(|link| Label::parse(&link.alias).is_none()) {
            tracing::info!(link = link.name, "removing what is left of an interrupted attach");
            netlink.delete_link(&link.name).map_err(failed("removing a pod's link"))?;
        }
        let held = labels(&mut netlink, bridge)?;
        tracing::info!(%node_ip, %pod_cidr, mtu, link = underlay.name, pods = held.len(), "pod network is up");
        let addresses = Addresses::new(pod_cidr, held.into_iter().map(|label| (label.ip, label.id)));
        let gateway = gateway_address(pod_cidr);
        let state = Mutex::new(State { netlink, addresses });
        Ok(Self { names, pod_cidr, cluster_cidr, gateway, node_ip, mtu, bridge, vxlan, state })
    }

    fn attach(&self, pod: &PodAttach) -> Result<PodAddresses, Error> {
        pod::check(pod)?;
        let mut state = self.state();
        let ip = match state.addresses.allocate(&pod.id) {
            Err(Error::AddressesExhausted { .. }) => {
                // A link goes with its pod's namespace, also when nobody detaches it.
                let present = labels(&mut state.netlink, self.bridge)?;
                state.addresses.retain(|id| present.iter().any(|label| label.id == id));
                state.addresses.allocate(&pod.id)?
            }
            other => other?,
        };
        let plug = Plug { bridge: self.bridge, mtu: self.mtu, ip, gateway: self.gateway };
        if let Err(error) = pod::plug(&mut state.netlink, pod, plug) {
            state.addresses.release(&pod.id);
            return Err(error);
        }
        Ok(PodAddresses {
            ips: vec![IpAddr::V4(ip)],
            gateways: vec![IpAddr::V4(self.gateway)],
            host_interface: pod::host_name(&pod.id),
        })
    }

    fn detach(&self, id: &str) -> Result<(), Error> {
        let mut state = self.state();
        state.netlink.delete_link(&pod::host_name(id)).map_err(failed("removing a pod's link"))?;
        state.addresses.release(id);
        Ok(())
    }

    fn table(&self) -> Table {
        node_table(&self.names, self.pod_cidr, self.cluster_cidr)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each use leaves the state whole: a panic in one does not spoil it for the next.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn node_table(names: &Names, pod_cidr: Ipv4Net, cluster_cidr: Ipv4Net) -> Table {
    let mut table = Table::new(Family::Ipv4, names.node_table.clone());
    table.set("node", Some(Arc::new(masquerade::rules(pod_cidr, cluster_cidr))));
    table
}

/// The link and address that the node has towards other nodes.
fn underlay(netlink: &mut Rtnetlink, wanted: Option<IpAddr>) -> Result<(Link, Ipv4Addr), Error> {
    let addresses = netlink.addresses().map_err(failed("listing addresses"))?;
    let (index, ip) = match wanted {
        Some(wanted) => {
            let wanted_ip = ipv4(wanted)?;
            let found = addresses.iter().find(|(_, address)| address.addr() == wanted_ip);
            (found.ok_or(Error::NoSuchAddress(wanted))?.0, wanted_ip)
        }
        None => {
            let routes = netlink.routes().map_err(failed("listing routes"))?;
            let default = routes.iter().filter(|route| route.destination.prefix_len() == 0);
            let default = default.min_by_key(|route| route.metric).ok_or(Error::NoDefaultRoute)?;
            let first = || addresses.iter().find(|(index, _)| *index == default.link).map(|(_, net)| net.addr());
            (default.link, default.source.or_else(first).ok_or(Error::NoDefaultRoute)?)
        }
    };
    let links = netlink.links().map_err(failed("listing links"))?;
    let link = links.into_iter().find(|link| link.index == index).ok_or(Error::NoSuchAddress(IpAddr::V4(ip)))?;
    Ok((link, ip))
}

/// Makes the bridge what it shall be. Returns its index.
fn bridge(netlink: &mut Rtnetlink, name: &str, pod_cidr: Ipv4Net, mtu: u32) -> Result<u32, Error> {
    let failed = |what| failed_on(what, "bridge", name);
    let mac = gateway_mac(pod_cidr);
    if netlink.link(name).map_err(failed("looking for"))?.is_none() {
        netlink.add_bridge(name, mac, mtu).map_err(failed("making"))?;
    }
    let link = found(netlink, name, "bridge")?;
    // Before they are changed: who is killed in between has changed nothing that is forgotten.
    let before = Before::parse(&link.alias).remember();
    if link.alias != before.text() {
        netlink.set_alias(link.index, &before.text()).map_err(failed("labelling"))?;
    }
    let address = Ipv4Net::new_assert(gateway_address(pod_cidr), pod_cidr.prefix_len());
    settle(netlink, &link, mac, mtu).map_err(failed("configuring"))?;
    for (_, stale) in netlink
        .addresses()
        .map_err(failed("listing addresses of"))?
        .into_iter()
        // Those with a whole prefix are local addresses, which have their own owners.
        .filter(|(index, other)| *index == link.index && *other != address && other.prefix_len() < 32)
    {
        netlink.delete_address(link.index, stale).map_err(failed("removing an address of"))?;
    }
    netlink.add_address(link.index, address).map_err(failed("addressing"))?;
    netlink.set_up(link.index).map_err(failed("starting"))?;
    Ok(link.index)
}

/// Makes the overlay device what it shall be. Returns its index.
fn overlay(netlink: &mut Rtnetlink, name: &str, wanted: VxlanLink, pod_cidr: Ipv4Net, mtu: u32) -> Result<u32, Error> {
    let failed = |what| failed_on(what, "overlay", name);
    let mac = vtep_mac(pod_cidr);
    let present = netlink.link(name).map_err(failed("looking for"))?;
    let fits = present.as_ref().is_some_and(|link| link.vxlan == Some(wanted));
    if present.is_some() && !fits {
        // The node's address or the port changed. A device keeps what it was made with.
        netlink.delete_link(name).map_err(failed("replacing"))?;
    }
    if !fits {
        netlink.add_vxlan(name, mac, mtu, wanted).map_err(failed("making"))?;
    }
    let link = found(netlink, name, "vxlan")?;
    settle(netlink, &link, mac, mtu).map_err(failed("configuring"))?;
    let address = own_address(pod_cidr);
    for (_, stale) in netlink
        .addresses()
        .map_err(failed("listing addresses of"))?
        .into_iter()
        .filter(|(index, other)| *index == link.index && *other != address)
    {
        netlink.delete_address(link.index, stale).map_err(failed("removing an address of"))?;
    }
    netlink.add_address(link.index, address).map_err(failed("addressing"))?;
    netlink.set_up(link.index).map_err(failed("starting"))?;
    Ok(link.index)
}

fn found(netlink: &mut Rtnetlink, name: &str, kind: &'static str) -> Result<Link, Error> {
    match netlink.link(name).map_err(failed_on("looking for", kind, name))? {
        Some(link) if link.kind == kind => Ok(link),
        Some(link) => Err(Error::Config {
            what: "a link with a name that we need",
            reason: format!("is there already: {name} is a {} and not a {kind}", link.kind),
        }),
        None => Err(failed_on("looking for", kind, name)(io::Error::from_raw_os_error(libc::ENODEV))),
    }
}

fn settle(netlink: &mut Rtnetlink, link: &Link, mac: [u8; 6], mtu: u32) -> io::Result<()> {
    if link.mac != mac {
        netlink.set_mac(link.index, mac)?;
    }
    if link.mtu != mtu {
        netlink.set_mtu(link.index, mtu)?;
    }
    Ok(())
}

/// Pods' links on the bridge.
fn ports(netlink: &mut Rtnetlink, bridge: u32) -> Result<Vec<Link>, Error> {
    let links = netlink.links().map_err(failed("listing links"))?;
    Ok(links.into_iter().filter(|link| pod::is_ours(link, bridge)).collect())
}

fn labels(netlink: &mut Rtnetlink, bridge: u32) -> Result<Vec<Label>, Error> {
    Ok(ports(netlink, bridge)?.iter().filter_map(|link| Label::parse(&link.alias)).collect())
}

fn ipv4(ip: IpAddr) -> Result<Ipv4Addr, Error> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => {
            Err(Error::Config { what: "the address", reason: format!("{ip} is not IPv4, the only family so far") })
        }
    }
}

fn failed(action: &str) -> impl FnOnce(io::Error) -> Error {
    let action = action.to_owned();
    move |source| Error::Netlink { action, source }
}

fn failed_on(action: &str, what: &str, name: &str) -> impl FnOnce(io::Error) -> Error {
    let action = format!("{action} {what} {name}");
    move |source| Error::Netlink { action, source }
}

/// Netlink calls block for as long as the kernel works on them.
async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Worker)?
}
