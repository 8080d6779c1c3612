//! The CRI's image service over the image store.

use std::sync::Arc;

use cri::v1;
use cri::v1::image_service_server::ImageService;
use futures::stream::BoxStream;
use images::{Auth, FsUsage, Image, PullError};
use tonic::{Request, Response, Status};

use super::sandboxes::internal;
use super::service::{chunks, one_by_one};
use super::{Runtime, views};

fn view(image: &Image) -> v1::Image {
    let user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let name = user.split(':').next().unwrap_or_default().to_owned();
    let number = name.parse::<i64>().ok();
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size_bytes,
        uid: number.map(|value| v1::Int64Value { value }),
        username: if number.is_none() { name } else { String::new() },
        spec: None,
        pinned: false,
    }
}

fn usage(usage: &FsUsage) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: views::now_ns(),
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: usage.dir.to_string_lossy().into_owned() }),
        used_bytes: Some(v1::UInt64Value { value: usage.used_bytes }),
        inodes_used: Some(v1::UInt64Value { value: usage.inodes_used }),
    }
}

fn name(spec: Option<v1::ImageSpec>) -> Result<String, Status> {
    spec.map(|spec| spec.image)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Status::invalid_argument("image is not specified"))
}

impl Runtime {
    fn images(&self, filter: Option<v1::ImageFilter>) -> Vec<v1::Image> {
        match filter.and_then(|filter| filter.image).map(|spec| spec.image).filter(|name| !name.is_empty()) {
            Some(name) => self.images.get(&name).iter().map(|image| view(image)).collect(),
            None => self.images.list().iter().map(|image| view(image)).collect(),
        }
    }
}

/// The image service; the tonic trait is implemented on it.
pub struct Service(pub Arc<Runtime>);

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = BoxStream<'static, Result<v1::StreamImagesResponse, Status>>;

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(v1::ListImagesResponse { images: self.0.images(request.into_inner().filter) }))
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.0.images(request.into_inner().filter);
        Ok(one_by_one(chunks(images).map(|images| v1::StreamImagesResponse { images })))
    }

    /// An image that is not there is no error but an empty answer.
    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let image = self.0.images.get(&name(request.image)?);
        let mut info = std::collections::HashMap::new();
        if let (true, Some(image)) = (request.verbose, &image) {
            let config = serde_json::to_string(&serde_json::json!({ "imageSpec": &*image.config }));
            info.insert("info".to_owned(), config.unwrap_or_default());
        }
        Ok(Response::new(v1::ImageStatusResponse { image: image.map(|image| view(&image)), info }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let auth = request.auth.map(|auth| Auth {
            username: auth.username,
            password: auth.password,
            auth: auth.auth,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        });
        let image = self.0.images.pull(&name, auth, |_| {}).await.map_err(|error| pull_status(&name, &error))?;
        Ok(Response::new(v1::PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = name(request.into_inner().image)?;
        self.0.images.remove(&name).await.map_err(|error| internal("remove image", error))?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let images = usage(&self.0.images.fs_usage());
        Ok(Response::new(v1::ImageFsInfoResponse {
            container_filesystems: vec![images.clone()],
            image_filesystems: vec![images],
        }))
    }
}

/// kubelet tells an unavailable registry from other failures by the text's beginning.
fn pull_status(name: &str, error: &PullError) -> Status {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    let text = format!("failed to pull and unpack image {name:?}: {text}");
    match error {
        PullError::InvalidImageName(_) => Status::invalid_argument(text),
        PullError::NotFound { .. } => Status::not_found(text),
        PullError::Unauthorized { .. } => Status::unauthenticated(text),
        PullError::Unavailable { .. } => Status::unavailable(format!("RegistryUnavailable: {text}")),
        PullError::Shared(shared) => pull_status(name, shared),
        _ => Status::unknown(text),
    }
}
