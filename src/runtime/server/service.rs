//! The CRI's runtime service: each method unpacks its request, calls the runtime, and packs the answer.

use std::collections::HashMap;
use std::sync::Arc;

use cri::v1;
use cri::v1::image_service_server::ImageServiceServer;
use cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use futures::StreamExt;
use futures::stream::BoxStream;
use task::Shutdown;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::{Request, Response, Status};

use super::{Runtime, images, views};

/// Items in one message of a streamed list.
const CHUNK_ITEMS: usize = 256;
const API_VERSION: &str = "v1";
const RUNTIME_NAME: &str = "cluster";

pub async fn serve(
    runtime: Arc<Runtime>,
    connections: UnixListenerStream,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let max = cri::MESSAGE_BYTES_MAX;
    let of_runtime = RuntimeServiceServer::new(Service(runtime.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    let of_images =
        ImageServiceServer::new(images::Service(runtime)).max_decoding_message_size(max).max_encoding_message_size(max);
    let served = tonic::transport::Server::builder()
        .add_service(of_runtime)
        .add_service(of_images)
        .serve_with_incoming(connections);
    // Streams of events never end by themselves, so nothing is waited for.
    tokio::select! {
        served = served => served,
        () = shutdown.cancelled() => Ok(()),
    }
}

/// The runtime service; the tonic trait is implemented on it.
pub struct Service(pub Arc<Runtime>);

type Streamed<T> = BoxStream<'static, Result<T, Status>>;

/// A list in messages of bounded size; an empty list is one empty message.
pub fn chunks<T: Send + 'static>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> + Send + 'static {
    let mut items = items.into_iter();
    let first: Vec<T> = items.by_ref().take(CHUNK_ITEMS).collect();
    std::iter::once(first).chain(std::iter::from_fn(move || {
        let next: Vec<T> = items.by_ref().take(CHUNK_ITEMS).collect();
        (!next.is_empty()).then_some(next)
    }))
}

pub fn one_by_one<T: Send + 'static>(messages: impl Iterator<Item = T> + Send + 'static) -> Response<Streamed<T>> {
    Response::new(futures::stream::iter(messages.map(Ok)).boxed())
}

fn not_served<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} is not supported by this runtime")))
}

#[tonic::async_trait]
impl RuntimeService for Service {
    type StreamPodSandboxesStream = Streamed<v1::StreamPodSandboxesResponse>;
    type StreamContainersStream = Streamed<v1::StreamContainersResponse>;
    type StreamContainerStatsStream = Streamed<v1::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Streamed<v1::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Streamed<v1::StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = Streamed<v1::ContainerEventResponse>;

    async fn version(&self, _request: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: RUNTIME_NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: API_VERSION.into(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        // A caller that gives up must not leave half a sandbox.
        let id = finished("run sandbox", async move { runtime.run_sandbox(request).await }).await?;
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        finished("stop pod sandbox", async move { runtime.stop_sandbox(&request.pod_sandbox_id).await }).await?;
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        finished("remove pod sandbox", async move { runtime.remove_sandbox(&request.pod_sandbox_id).await }).await?;
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let pid = sandbox.shim_pid.load(std::sync::atomic::Ordering::Acquire);
            info.insert("info".to_owned(), serde_json::json!({ "pid": pid }).to_string());
        }
        Ok(Response::new(v1::PodSandboxStatusResponse {
            status: Some(views::sandbox_status(&sandbox)),
            info,
            containers_statuses: self.0.container_statuses(&sandbox.id),
            timestamp: views::now_ns(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(v1::ListPodSandboxResponse { items: self.0.list_sandboxes(request.filter) }))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let request = request.into_inner();
        let all = self.0.list_sandboxes(request.filter);
        Ok(one_by_one(chunks(all).map(|pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        let id = finished("create container", async move { runtime.create_container(request).await }).await?;
        Ok(Response::new(v1::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        finished("start container", async move { runtime.start_container(&request.container_id).await }).await?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        finished("stop container", async move { runtime.stop_container(&request.container_id, request.timeout).await })
            .await?;
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        let request = request.into_inner();
        let runtime = self.0.clone();
        finished("remove container", async move { runtime.remove_container(&request.container_id).await }).await?;
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(v1::ListContainersResponse { containers: self.0.list_containers(request.filter) }))
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let request = request.into_inner();
        let all = self.0.list_containers(request.filter);
        Ok(one_by_one(chunks(all).map(|containers| v1::StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let pid = container.status.borrow().pid;
            let text = serde_json::json!({ "pid": pid, "sandboxID": container.record.sandbox_id }).to_string();
            info.insert("info".to_owned(), text);
        }
        Ok(Response::new(v1::ContainerStatusResponse { status: Some(views::container_status(&container)), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        let request = request.into_inner();
        self.0.update_resources(request).await?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        let request = request.into_inner();
        self.0.reopen_log(&request.container_id).await?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Result<Response<v1::ExecSyncResponse>, Status> {
        let request = request.into_inner();
        self.0.exec_sync(request).await.map(Response::new)
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Result<Response<v1::ExecResponse>, Status> {
        self.0.exec_url(request.into_inner()).map(|url| Response::new(v1::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<v1::AttachResponse>, Status> {
        self.0.attach_url(request.into_inner()).map(|url| Response::new(v1::AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Result<Response<v1::PortForwardResponse>, Status> {
        self.0.port_forward_url(request.into_inner()).map(|url| Response::new(v1::PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        let stats = self.0.container_stats(&container).await?;
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        let request = request.into_inner();
        let stats = self.0.list_container_stats(request.filter).await?;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let request = request.into_inner();
        let all = self.0.list_container_stats(request.filter).await?;
        Ok(one_by_one(chunks(all).map(|container_stats| v1::StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Result<Response<v1::PodSandboxStatsResponse>, Status> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let stats = self.0.sandbox_stats(&sandbox).await?;
        Ok(Response::new(v1::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Result<Response<v1::ListPodSandboxStatsResponse>, Status> {
        let request = request.into_inner();
        let stats = self.0.list_sandbox_stats(request.filter).await?;
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let request = request.into_inner();
        let all = self.0.list_sandbox_stats(request.filter).await?;
        Ok(one_by_one(chunks(all).map(|pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats })))
    }

    /// The pod network is the business of whoever wired the runtime.
    async fn update_runtime_config(
        &self,
        _request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let condition = |name: &str, trouble: Option<String>| v1::RuntimeCondition {
            r#type: name.into(),
            status: trouble.is_none(),
            reason: if trouble.is_some() { format!("{name}Failed") } else { String::new() },
            message: trouble.unwrap_or_default(),
        };
        Ok(Response::new(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", None),
                    condition("NetworkReady", self.0.network.not_ready()),
                ],
            }),
            info: HashMap::new(),
            runtime_handlers: vec![v1::RuntimeHandler {
                name: String::new(),
                features: Some(v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
            }],
            features: Some(v1::RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<v1::CheckpointContainerRequest>,
    ) -> Result<Response<v1::CheckpointContainerResponse>, Status> {
        not_served("checkpointing a container")
    }

    async fn checkpoint_pod(
        &self,
        _request: Request<v1::CheckpointPodRequest>,
    ) -> Result<Response<v1::CheckpointPodResponse>, Status> {
        not_served("checkpointing a pod")
    }

    async fn restore_pod(
        &self,
        _request: Request<v1::RestorePodRequest>,
    ) -> Result<Response<v1::RestorePodResponse>, Status> {
        not_served("restoring a pod")
    }

    async fn get_container_events(
        &self,
        _request: Request<v1::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.0.events.subscribe());
        // Who was too slow starts over: kubelet lists everything when the stream ends.
        let events = events.map(|event| {
            event.map_err(|BroadcastStreamRecvError::Lagged(missed)| {
                Status::resource_exhausted(format!("{missed} events were not read in time"))
            })
        });
        Ok(Response::new(events.boxed()))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Result<Response<v1::ListMetricDescriptorsResponse>, Status> {
        not_served("listing metric descriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<v1::ListPodSandboxMetricsResponse>, Status> {
        not_served("listing pod metrics")
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        not_served("streaming pod metrics")
    }

    async fn runtime_config(
        &self,
        _request: Request<v1::RuntimeConfigRequest>,
    ) -> Result<Response<v1::RuntimeConfigResponse>, Status> {
        Ok(Response::new(v1::RuntimeConfigResponse {
            linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs as i32 }),
        }))
    }

    /// kubelet sets the pod's cgroup itself; the runtime only takes note.
    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<v1::UpdatePodSandboxResourcesResponse>, Status> {
        let request = request.into_inner();
        self.0.sandbox(&request.pod_sandbox_id)?;
        Ok(Response::new(v1::UpdatePodSandboxResourcesResponse {}))
    }
}

/// Runs in a task of its own, so that it is carried through when the caller hangs up.
async fn finished<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match task::spawn(what, work).await {
        Ok(Some(result)) => result,
        _ => Err(Status::internal(format!("{what}: the work was interrupted"))),
    }
}
