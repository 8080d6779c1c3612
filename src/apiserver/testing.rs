//! A server on a store of its own, for tests.

use std::net::SocketAddr;
use std::sync::Arc;

use api::{Call, Failure, PatchKind, Resource, Verb};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::{Authority, Live, Profile};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use task::Shutdown;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::authn::Peer;
use crate::config::{
    AdmissionOptions, AggregationOptions, AuthenticationOptions, AuthorizationOptions, BearerToken, Config,
    KubeletClient, Limits, ProtectionOptions, ProxyClientFiles, RuntimeConfig, ServiceAccountOptions,
};
use crate::identity::Identity;
use crate::pipeline;
use crate::server::ApiServer;

const TOKEN: &str = "tester-token";

pub struct Fixture {
    pub server: ApiServer,
    pub admin: Identity,
    shutdown: Shutdown,
    directory: Arc<TempDir>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::with_service_range("10.43.0.0/16").await
    }

    pub async fn with_service_range(range: &str) -> Fixture {
        Fixture::start_with(config(range)).await
    }

    /// With flags of kube-apiserver.
    pub async fn with_flags(flags: &[&str]) -> Fixture {
        let mut config = config("10.43.0.0/16");
        config.apply_flags(flags.iter().copied()).unwrap();
        Fixture::start_with(config).await
    }

    /// A server that is told something else than usual.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Fixture {
        let mut config = config("10.43.0.0/16");
        change(&mut config);
        Fixture::start_with(config).await
    }

    async fn start_with(config: Config) -> Fixture {
        Fixture::on(Arc::new(tempfile::tempdir().unwrap()), config).await
    }

    /// Stops, and starts again on the same store.
    pub async fn restart(self) -> Fixture {
        let directory = self.directory.clone();
        drop(self);
        Fixture::on(directory, config("10.43.0.0/16")).await
    }

    async fn on(directory: Arc<TempDir>, config: Config) -> Fixture {
        let shutdown = Shutdown::new();
        let open = || store::Store::open(store::Config::new(directory.path(), "test"), shutdown.clone());
        let mut store = open().await;
        for _ in 0..500 {
            if store.is_ok() {
                break;
            }
            // Whoever has it is on their way out.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            store = open().await;
        }
        let server = ApiServer::start(config, store.unwrap(), shutdown.clone()).await.unwrap();
        Fixture { server, admin: Identity::master("admin"), shutdown, directory }
    }

    /// `path` is `plural`, `plural/name` or `plural/name/subresource`, in the namespace `default` where there is one.
    pub fn ask(&self, verb: Verb, group: &'static str, path: &str, body: Option<Value>) -> Call {
        let mut parts = path.split('/');
        let plural = parts.next().unwrap().to_owned();
        let version = if group == "autoscaling" { "v2" } else { "v1" };
        let resource = Resource { group: group.into(), version: version.into(), plural: plural.clone().into() };
        let mut call = Call::new(verb, resource);
        let row = api::Row::find(group, version, &plural).unwrap();
        call.namespace = row.namespaced.then(|| "default".to_owned());
        call.name = parts.next().map(str::to_owned);
        call.subresource = parts.next().map(|name| name.to_owned().into());
        call.body = body;
        call
    }

    pub async fn call(&self, call: Call) -> Result<Value, Failure> {
        let answer = self.server.call(&self.admin, call).await?;
        Ok(serde_json::from_slice(&answer.body).unwrap())
    }

    pub async fn create(&self, group: &'static str, path: &str, body: Value) -> Result<Value, Failure> {
        self.call(self.ask(Verb::Create, group, path, Some(body))).await
    }

    pub async fn update(&self, group: &'static str, path: &str, body: Value) -> Result<Value, Failure> {
        self.call(self.ask(Verb::Update, group, path, Some(body))).await
    }

    pub async fn patch(&self, kind: PatchKind, group: &'static str, path: &str, body: Value) -> Result<Value, Failure> {
        let mut call = self.ask(Verb::Patch, group, path, Some(body));
        call.options.patch = Some(kind);
        call.options.field_manager = Some("test".to_owned());
        self.call(call).await
    }

    pub async fn get(&self, group: &'static str, path: &str) -> Result<Value, Failure> {
        self.call(self.ask(Verb::Get, group, path, None)).await
    }

    pub async fn delete(&self, group: &'static str, path: &str, options: Option<Value>) -> Result<Value, Failure> {
        self.call(self.ask(Verb::Delete, group, path, options)).await
    }

    /// What Pods need before there are controllers.
    pub async fn with_account(self) -> Fixture {
        let account = serde_json::json!({"metadata": {"name": "default"}});
        self.create("", "serviceaccounts", account).await.unwrap();
        self.catch_up().await;
        self
    }

    /// Serves HTTPS on loopback: the address, and the token of `tester`, to whom nothing is denied.
    pub async fn serve(&self) -> (SocketAddr, &'static str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, shutdown) = (self.server.clone(), self.shutdown.clone());
        task::spawn("test-server", async move { server.serve(listener, shutdown).await });
        (address, TOKEN)
    }

    /// Sends a request over a connection of its own.
    pub async fn ask_over_tls(&self, address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut tls = pki::Trust::Anybody.client().unwrap().with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        task::spawn("test-connection", connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    /// Admission looks things up in the cache.
    pub async fn catch_up(&self) {
        let revision = self.server.store().revision();
        self.server.cache().reach(revision).await.unwrap();
    }
}

/// A connection as clients have one, but for TLS.
pub struct Http(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

/// What came back.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Fixture {
    /// The administrator's connection.
    pub async fn http(&self) -> Http {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (server, peer) = (self.server.clone(), Peer::known(self.admin.clone()));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (server, peer) = (server.clone(), peer.clone());
            async move {
                Ok::<_, std::convert::Infallible>(
                    pipeline::handle(server, peer, std::net::Ipv4Addr::LOCALHOST.into(), request).await,
                )
            }
        });
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
        task::spawn("test-server", async move { drop(served.await) });
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        task::spawn("test-client", async move { drop(connection.await) });
        Http(sender)
    }
}

impl Http {
    /// Sends a request; the answer's body is still to be read.
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.0.ready().await.unwrap();
        self.0.send_request(request.body(Full::new(body)).unwrap()).await.unwrap()
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// A GET of something in a form.
    pub async fn get(&mut self, path: &str, accept: &str) -> Answer {
        self.send("GET", path, &[(ACCEPT.as_str(), accept)], Bytes::new()).await
    }

    /// A body in a form, with the answer in the same.
    pub async fn write(&mut self, method: &str, path: &str, media_type: &str, body: Bytes) -> Answer {
        self.send(method, path, &[(ACCEPT.as_str(), media_type), (CONTENT_TYPE.as_str(), media_type)], body).await
    }
}

impl Answer {
    pub fn content_type(&self) -> &str {
        self.headers[CONTENT_TYPE].to_str().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub fn config(range: &str) -> Config {
    let authority = Authority::create("test").unwrap();
    let issue = |profile: &Profile| authority.issue(profile).unwrap();
    let serving = issue(&Profile::server("apiserver", Vec::new(), vec![[127, 0, 0, 1].into()]));
    let client = issue(&Profile::client("kubelet-client", &[]));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap()).unwrap();
    let roots = Arc::new(roots);
    let front_proxy = Authority::create("front-proxy").unwrap();
    let proxy_client = front_proxy.issue(&Profile::client("front-proxy-client", &[])).unwrap();
    Config {
        advertise_address: [10, 0, 0, 1].into(),
        advertise_port: 6443,
        service_cluster_ip_ranges: vec![range.parse().unwrap()],
        service_node_port_range: 30000..=30009,
        service_accounts: ServiceAccountOptions::new("https://kubernetes.default.svc"),
        service_account_signing_key_pem: pki::new_signing_key().unwrap(),
        serving_certificate: Arc::new(Live::new(&serving).unwrap()),
        client_authorities: roots.clone(),
        authorities_pem: authority.cert_pem().to_owned(),
        kubelet_client: KubeletClient { certificate: Arc::new(Live::new(&client).unwrap()), authorities: roots },
        bearer_tokens: vec![BearerToken { token: TOKEN.to_owned(), identity: Identity::master("tester") }],
        authentication: AuthenticationOptions::default(),
        admission: AdmissionOptions::default(),
        aggregation: AggregationOptions {
            client_certificate: Arc::new(Live::new(&proxy_client).unwrap()),
            authorities_pem: front_proxy.cert_pem().to_owned(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            files: ProxyClientFiles::default(),
        },
        authorization: AuthorizationOptions::default(),
        git_version: "v1.36.2+test".to_owned(),
        limits: Limits::default(),
        runtime_config: RuntimeConfig::default(),
        protection: ProtectionOptions::default(),
    }
}
