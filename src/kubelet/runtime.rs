//! Calls to the container runtime, with upstream's time limits and error texts.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use cri::v1::image_service_client::ImageServiceClient;
use cri::v1::runtime_service_client::RuntimeServiceClient;
use cri::v1::*;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::containers::names;
use crate::pods::observed::{Observed, Seen};

/// Upstream's `runtimeRequestTimeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A call that failed, in the words of gRPC's Go library, which people know from upstream's events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct RuntimeError {
    pub code: tonic::Code,
    pub message: String,
}

impl RuntimeError {
    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound
    }
}

impl From<Status> for RuntimeError {
    fn from(status: Status) -> RuntimeError {
        RuntimeError { code: status.code(), message: status.message().to_owned() }
    }
}

/// The runtime behind a socket. Cheap to clone; calls share one connection.
#[derive(Clone, Debug)]
pub struct Runtime {
    containers: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

async fn limited<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => {
            Err(RuntimeError { code: tonic::Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() })
        }
    }
}

impl Runtime {
    pub fn connect(socket: &Path) -> Runtime {
        let channel = cri::connect(socket);
        Runtime {
            containers: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(cri::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(cri::MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel)
                .max_decoding_message_size(cri::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(cri::MESSAGE_BYTES_MAX),
        }
    }

    pub async fn version(&self) -> Result<VersionResponse, RuntimeError> {
        let request = VersionRequest { version: "0.1.0".to_owned() };
        limited(CALL_TIMEOUT, self.containers.clone().version(request)).await
    }

    pub async fn status(&self) -> Result<StatusResponse, RuntimeError> {
        limited(CALL_TIMEOUT, self.containers.clone().status(StatusRequest { verbose: false })).await
    }

    /// Tells runtimes that need it which addresses the node's pods get.
    pub async fn set_pod_cidr(&self, pod_cidr: &str) -> Result<(), RuntimeError> {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        limited(CALL_TIMEOUT, self.containers.clone().update_runtime_config(request)).await.map(drop)
    }

    /// All of one pod, looked up by its uid.
    pub async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError> {
        let selector = std::collections::HashMap::from([(names::POD_UID.to_owned(), uid.to_owned())]);
        let sandboxes = self.list_sandboxes(selector.clone()).await?;
        let mut statuses = Vec::with_capacity(sandboxes.len());
        for one in sandboxes {
            match self.sandbox_status(&one.id).await {
                Ok(status) => statuses.push(status),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let containers = self.list_containers(selector).await?;
        let mut seen = Vec::with_capacity(containers.len());
        for one in containers {
            match self.container_status(&one.id).await {
                Ok(status) => seen.push(Seen { sandbox_id: one.pod_sandbox_id, status }),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Observed::new(statuses, seen))
    }

    pub async fn list_sandboxes(
        &self,
        label_selector: std::collections::HashMap<String, String>,
    ) -> Result<Vec<PodSandbox>, RuntimeError> {
        let filter = Some(PodSandboxFilter { label_selector, ..PodSandboxFilter::default() });
        let request = ListPodSandboxRequest { filter };
        Ok(limited(CALL_TIMEOUT, self.containers.clone().list_pod_sandbox(request)).await?.items)
    }

    pub async fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = limited(CALL_TIMEOUT, self.containers.clone().pod_sandbox_status(request)).await?;
        answer.status.ok_or_else(|| empty("PodSandboxStatus"))
    }

    pub async fn list_containers(
        &self,
        label_selector: std::collections::HashMap<String, String>,
    ) -> Result<Vec<Container>, RuntimeError> {
        let filter = Some(ContainerFilter { label_selector, ..ContainerFilter::default() });
        let request = ListContainersRequest { filter };
        Ok(limited(CALL_TIMEOUT, self.containers.clone().list_containers(request)).await?.containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = limited(CALL_TIMEOUT, self.containers.clone().container_status(request)).await?;
        answer.status.ok_or_else(|| empty("ContainerStatus"))
    }

    pub async fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String, RuntimeError> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let answer = limited(CALL_TIMEOUT * 2, self.containers.clone().run_pod_sandbox(request)).await?;
        Ok(answer.pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_done(limited(CALL_TIMEOUT, self.containers.clone().stop_pod_sandbox(request)).await.map(drop))
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_done(limited(CALL_TIMEOUT, self.containers.clone().remove_pod_sandbox(request)).await.map(drop))
    }

    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(limited(CALL_TIMEOUT, self.containers.clone().create_container(request)).await?.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        limited(CALL_TIMEOUT, self.containers.clone().start_container(request)).await.map(drop)
    }

    pub async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<(), RuntimeError> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: grace_seconds };
        let limit = CALL_TIMEOUT + Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        gone_is_done(limited(limit, self.containers.clone().stop_container(request)).await.map(drop))
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_done(limited(CALL_TIMEOUT, self.containers.clone().remove_container(request)).await.map(drop))
    }

    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecSyncResponse, RuntimeError> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds };
        // The runtime keeps the time; this is for one that does not.
        let limit = if seconds == 0 { CALL_TIMEOUT } else { timeout + Duration::from_secs(2) };
        limited(limit, self.containers.clone().exec_sync(request)).await
    }

    pub async fn exec(&self, request: ExecRequest) -> Result<String, RuntimeError> {
        Ok(limited(CALL_TIMEOUT, self.containers.clone().exec(request)).await?.url)
    }

    pub async fn attach(&self, request: AttachRequest) -> Result<String, RuntimeError> {
        Ok(limited(CALL_TIMEOUT, self.containers.clone().attach(request)).await?.url)
    }

    pub async fn port_forward(&self, request: PortForwardRequest) -> Result<String, RuntimeError> {
        Ok(limited(CALL_TIMEOUT, self.containers.clone().port_forward(request)).await?.url)
    }

    pub async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let request = ReopenContainerLogRequest { container_id: id.to_owned() };
        limited(CALL_TIMEOUT, self.containers.clone().reopen_container_log(request)).await.map(drop)
    }

    /// What happens to containers, from now on. Runtimes without this feature answer with an error.
    pub async fn events(&self) -> Result<tonic::Streaming<ContainerEventResponse>, RuntimeError> {
        Ok(self.containers.clone().get_container_events(GetEventsRequest {}).await?.into_inner())
    }

    pub async fn container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let request = ListContainerStatsRequest { filter: None };
        Ok(limited(CALL_TIMEOUT, self.containers.clone().list_container_stats(request)).await?.stats)
    }

    pub async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let request = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(limited(CALL_TIMEOUT, self.images.clone().image_status(request)).await?.image)
    }

    pub async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let request = ListImagesRequest { filter: None };
        Ok(limited(CALL_TIMEOUT, self.images.clone().list_images(request)).await?.images)
    }

    /// Takes as long as it takes; the caller gives up by dropping it.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let request = PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: Some(sandbox_config) };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

fn gone_is_done(outcome: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome,
    }
}

fn empty(call: &str) -> RuntimeError {
    RuntimeError { code: tonic::Code::Internal, message: format!("{call} answered nothing") }
}
