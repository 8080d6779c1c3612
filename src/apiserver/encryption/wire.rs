//! KMS v2 on the wire: `v2.KeyManagementService` over a Unix socket, and the message that is stored
//! (upstream: k8s.io/kms/apis/v2, `EncryptedObject`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub healthz: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
    #[prost(map = "string, bytes", tag = "4")]
    pub annotations: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(map = "string, bytes", tag = "3")]
    pub annotations: HashMap<String, Vec<u8>>,
}

/// What is stored behind `k8s:enc:kms:v2:<name>:`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub encrypted_data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub encrypted_dek_source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: std::collections::BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub encrypted_dek_source_type: i32,
}

/// What was encrypted is the key itself.
pub const AES_GCM_KEY: i32 = 0;
/// What was encrypted is a seed; each value has a key derived from it.
pub const HKDF_SHA256_XNONCE_AES_GCM_SEED: i32 = 1;

/// A KMS plugin. The connection is made when it is needed, and again when it broke.
#[derive(Clone)]
pub struct Plugin {
    channel: Channel,
    timeout: Duration,
}

impl Plugin {
    pub fn new(socket: PathBuf, timeout: Duration) -> Plugin {
        // The address stands for nothing: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }));
        Plugin { channel, timeout }
    }

    pub async fn status(&self) -> Result<StatusResponse, Status> {
        self.call("/v2.KeyManagementService/Status", StatusRequest {}).await
    }

    pub async fn encrypt(&self, plaintext: Vec<u8>, uid: String) -> Result<EncryptResponse, Status> {
        self.call("/v2.KeyManagementService/Encrypt", EncryptRequest { plaintext, uid }).await
    }

    pub async fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, Status> {
        self.call("/v2.KeyManagementService/Decrypt", request).await
    }

    async fn call<A, B>(&self, path: &'static str, message: A) -> Result<B, Status>
    where
        A: prost::Message + Send + Sync + 'static,
        B: prost::Message + Default + Send + Sync + 'static,
    {
        let exchange = async {
            let mut client = Grpc::new(self.channel.clone());
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<A, B>::default();
            let answer = client.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?;
            Ok(answer.into_inner())
        };
        let answered = tokio::time::timeout(self.timeout, exchange).await;
        answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))
    }
}
