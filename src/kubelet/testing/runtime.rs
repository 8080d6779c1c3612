//! A container runtime that only pretends: it keeps sandboxes and containers in memory and serves CRI on a socket.
//!
//! Images decide what happens: `missing…` cannot be pulled, `exit<N>` ends at once with that code, everything else runs until
//! it is stopped. `exec` succeeds unless the command is `false`.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cri::v1::image_service_server::{ImageService, ImageServiceServer};
use cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use cri::v1::*;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEventResponse>,
    ids: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, (String, ContainerStatus)>,
    configs: Vec<(PodSandboxConfig, ContainerConfig)>,
    calls: Vec<String>,
    streaming_url: String,
}

impl FakeRuntime {
    /// Listens on `socket` until the test's runtime ends.
    pub fn serve(socket: &Path) -> FakeRuntime {
        let fake = FakeRuntime { state: Arc::default(), events: broadcast::channel(64).0, ids: Arc::default() };
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(fake.clone()))
            .add_service(ImageServiceServer::new(fake.clone()))
            .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener));
        task::spawn("fake-runtime", server);
        fake
    }

    /// Calls that changed something, in their order.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    pub fn configs(&self) -> Vec<(PodSandboxConfig, ContainerConfig)> {
        self.state.lock().configs.clone()
    }

    /// The process of a running container ends by itself.
    pub fn crash(&self, name: &str, exit_code: i32) {
        let id = {
            let state = self.state.lock();
            let running = |(_, one): &&(String, ContainerStatus)| {
                one.state() == ContainerState::ContainerRunning && one.metadata.as_ref().unwrap().name == name
            };
            state.containers.values().find(running).map(|(_, one)| one.id.clone()).unwrap()
        };
        self.end(&id, exit_code);
    }

    /// What Exec answers.
    pub fn stream_at(&self, url: &str) {
        self.state.lock().streaming_url = url.to_owned();
    }

    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    fn id(&self, what: &str) -> String {
        format!("{what}{}", self.ids.fetch_add(1, Ordering::SeqCst))
    }

    fn end(&self, id: &str, exit_code: i32) {
        let mut state = self.state.lock();
        let Some((_, one)) = state.containers.get_mut(id) else { return };
        if one.state() != ContainerState::ContainerRunning {
            return;
        }
        one.set_state(ContainerState::ContainerExited);
        one.exit_code = exit_code;
        one.finished_at = now();
        drop(state);
        self.tell(id, ContainerEventType::ContainerStoppedEvent);
    }

    fn tell(&self, id: &str, kind: ContainerEventType) {
        let state = self.state.lock();
        let Some((sandbox, _)) = state.containers.get(id) else { return };
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            pod_sandbox_status: state.sandboxes.get(sandbox).cloned(),
            ..ContainerEventResponse::default()
        };
        let _ = self.events.send(event);
    }

    fn did(&self, what: String) {
        self.state.lock().calls.push(what);
    }
}

fn now() -> i64 {
    i64::try_from(k8s_openapi::jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn fits(
    labels: &std::collections::HashMap<String, String>,
    selector: &std::collections::HashMap<String, String>,
) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

type Answer<T> = Result<Response<T>, Status>;
type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! not_here {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {
        $(fn $name<'life, 'fut>(&'life self, _: Request<$request>)
            -> Pin<Box<dyn Future<Output = Answer<$answer>> + Send + 'fut>> where 'life: 'fut, Self: 'fut {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })*
    };
}

#[tonic::async_trait]
impl RuntimeService for FakeRuntime {
    type StreamPodSandboxesStream = Stream_<StreamPodSandboxesResponse>;
    type StreamContainersStream = Stream_<StreamContainersResponse>;
    type StreamContainerStatsStream = Stream_<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Stream_<StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Stream_<StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = Stream_<ContainerEventResponse>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition =
            |name: &str| RuntimeCondition { r#type: name.into(), status: true, ..RuntimeCondition::default() };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        Ok(Response::new(StatusResponse { status: Some(RuntimeStatus { conditions }), ..StatusResponse::default() }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap();
        let id = self.id("s");
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: PodSandboxState::SandboxReady.into(),
            created_at: now(),
            network: Some(PodSandboxNetworkStatus { ip: "127.0.0.1".into(), additional_ips: vec![] }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            ..PodSandboxStatus::default()
        };
        self.state.lock().sandboxes.insert(id.clone(), status);
        self.did(format!("run {id}"));
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        if let Some(one) = self.state.lock().sandboxes.get_mut(&id) {
            one.set_state(PodSandboxState::SandboxNotready);
        }
        self.did(format!("stop {id}"));
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.state.lock().sandboxes.remove(&id);
        self.did(format!("remove {id}"));
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let status = self.state.lock().sandboxes.get(&id).cloned().ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..PodSandboxStatusResponse::default() }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let items = state.sandboxes.values().filter(|one| fits(&one.labels, &selector)).map(|one| PodSandbox {
            id: one.id.clone(),
            metadata: one.metadata.clone(),
            state: one.state,
            created_at: one.created_at,
            labels: one.labels.clone(),
            annotations: one.annotations.clone(),
            runtime_handler: String::new(),
        });
        Ok(Response::new(ListPodSandboxResponse { items: items.collect() }))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let id = self.id("c");
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::ContainerCreated.into(),
            created_at: now(),
            image: config.image.clone(),
            image_ref: config.image.clone().unwrap_or_default().image,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            ..ContainerStatus::default()
        };
        let mut state = self.state.lock();
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        state.configs.push((request.sandbox_config.unwrap(), config));
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let image = {
            let mut state = self.state.lock();
            let (_, one) = state.containers.get_mut(&id).ok_or_else(|| Status::not_found("container"))?;
            one.set_state(ContainerState::ContainerRunning);
            one.started_at = now();
            let name = one.metadata.as_ref().unwrap().name.clone();
            let image = one.image.clone().unwrap().user_specified_image;
            state.calls.push(format!("start {name}"));
            image
        };
        self.tell(&id, ContainerEventType::ContainerStartedEvent);
        if let Some(code) = image.strip_prefix("exit").and_then(|code| code.parse().ok()) {
            self.end(&id, code);
        }
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let name = self.state.lock().containers.get(&request.container_id).map(|(_, one)| one.metadata.clone());
        let name = name.flatten().unwrap_or_default().name;
        self.did(format!("kill {name} {}", request.timeout));
        self.end(&request.container_id, 143);
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.state.lock().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let fitting = state.containers.values().filter(|(_, one)| fits(&one.labels, &selector));
        let containers = fitting.map(|(sandbox, one)| Container {
            id: one.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: one.metadata.clone(),
            state: one.state,
            labels: one.labels.clone(),
            ..Container::default()
        });
        Ok(Response::new(ListContainersResponse { containers: containers.collect() }))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let status = self.state.lock().containers.get(&id).map(|(_, one)| one.clone());
        let status = status.ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(ContainerStatusResponse { status: Some(status), ..ContainerStatusResponse::default() }))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let command = request.into_inner().cmd;
        self.did(format!("exec {}", command.join(" ")));
        let exit_code = i32::from(command == ["false"]);
        Ok(Response::new(ExecSyncResponse { exit_code, ..ExecSyncResponse::default() }))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        self.did(format!("stream {}", request.into_inner().cmd.join(" ")));
        Ok(Response::new(ExecResponse { url: self.state.lock().streaming_url.clone() }))
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        let events =
            futures::StreamExt::map(events, |event| event.map_err(|error| Status::data_loss(error.to_string())));
        Ok(Response::new(Box::pin(events)))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    not_here! {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> Self::StreamPodSandboxesStream;
        stream_containers(StreamContainersRequest) -> Self::StreamContainersStream;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        stream_container_stats(StreamContainerStatsRequest) -> Self::StreamContainerStatsStream;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> Self::StreamPodSandboxStatsStream;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse;
        restore_pod(RestorePodRequest) -> RestorePodResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> Self::StreamPodSandboxMetricsStream;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }
}

#[tonic::async_trait]
impl ImageService for FakeRuntime {
    type StreamImagesStream = Stream_<StreamImagesResponse>;

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let image = request.into_inner().image.unwrap_or_default().image;
        let is_there = !image.starts_with("missing");
        let image = is_there.then(|| Image { id: format!("sha256:{image}"), size: 1, ..Image::default() });
        Ok(Response::new(ImageStatusResponse { image, ..ImageStatusResponse::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let image = request.into_inner().image.unwrap_or_default().image;
        self.did(format!("pull {image}"));
        if image.starts_with("missing") {
            return Err(Status::not_found(format!("{image}: not found")));
        }
        Ok(Response::new(PullImageResponse { image_ref: image }))
    }

    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        Ok(Response::new(ListImagesResponse::default()))
    }

    not_here! {
        stream_images(StreamImagesRequest) -> Self::StreamImagesStream;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}
