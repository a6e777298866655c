//! The Container Runtime Interface, as far as a kubelet and crictl need it here. The messages are those of
//! `runtime.v1` with their field numbers; fields that nobody reads are left out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

pub const SANDBOX_READY: i32 = 0;
#[cfg(test)]
pub const SANDBOX_NOTREADY: i32 = 1;
pub const CONTAINER_RUNNING: i32 = 1;

macro_rules! messages {
    ($($name:ident { $($field:ident: $kind:ty = [$($tag:tt)*];)* })*) => {
        $(
            #[derive(Clone, PartialEq, Message)]
            pub struct $name {
                $(#[prost($($tag)*)] pub $field: $kind,)*
            }
        )*
    };
}

messages! {
    Empty {}
    VersionResponse {
        version: String = [string, tag = "1"];
        runtime_name: String = [string, tag = "2"];
        runtime_version: String = [string, tag = "3"];
        runtime_api_version: String = [string, tag = "4"];
    }
    StatusResponse {
        status: Option<RuntimeStatus> = [message, optional, tag = "1"];
    }
    RuntimeStatus {
        conditions: Vec<RuntimeCondition> = [message, repeated, tag = "1"];
    }
    RuntimeCondition {
        kind: String = [string, tag = "1"];
        status: bool = [bool, tag = "2"];
        reason: String = [string, tag = "3"];
        message: String = [string, tag = "4"];
    }
    PodSandboxMetadata {
        name: String = [string, tag = "1"];
        uid: String = [string, tag = "2"];
        namespace: String = [string, tag = "3"];
        attempt: u32 = [uint32, tag = "4"];
    }
    PodSandboxConfig {
        metadata: Option<PodSandboxMetadata> = [message, optional, tag = "1"];
        hostname: String = [string, tag = "2"];
        log_directory: String = [string, tag = "3"];
        labels: HashMap<String, String> = [map = "string, string", tag = "6"];
        linux: Option<LinuxPodSandboxConfig> = [message, optional, tag = "8"];
    }
    LinuxPodSandboxConfig {
        cgroup_parent: String = [string, tag = "1"];
    }
    RunPodSandboxRequest {
        config: Option<PodSandboxConfig> = [message, optional, tag = "1"];
    }
    SandboxId {
        id: String = [string, tag = "1"];
    }
    PodSandboxStatusResponse {
        status: Option<PodSandboxStatus> = [message, optional, tag = "1"];
    }
    PodSandboxStatus {
        network: Option<PodSandboxNetworkStatus> = [message, optional, tag = "5"];
    }
    PodSandboxNetworkStatus {
        ip: String = [string, tag = "1"];
    }
    ListPodSandboxResponse {
        items: Vec<PodSandbox> = [message, repeated, tag = "1"];
    }
    PodSandbox {
        id: String = [string, tag = "1"];
        metadata: Option<PodSandboxMetadata> = [message, optional, tag = "2"];
        state: i32 = [int32, tag = "3"];
        created_at: i64 = [int64, tag = "4"];
        labels: HashMap<String, String> = [map = "string, string", tag = "5"];
        annotations: HashMap<String, String> = [map = "string, string", tag = "6"];
        runtime_handler: String = [string, tag = "7"];
    }
    ContainerMetadata {
        name: String = [string, tag = "1"];
        attempt: u32 = [uint32, tag = "2"];
    }
    ImageSpec {
        image: String = [string, tag = "1"];
    }
    ContainerConfig {
        metadata: Option<ContainerMetadata> = [message, optional, tag = "1"];
        image: Option<ImageSpec> = [message, optional, tag = "2"];
        labels: HashMap<String, String> = [map = "string, string", tag = "9"];
        log_path: String = [string, tag = "11"];
        linux: Option<Empty> = [message, optional, tag = "15"];
    }
    CreateContainerRequest {
        sandbox: String = [string, tag = "1"];
        config: Option<ContainerConfig> = [message, optional, tag = "2"];
        sandbox_config: Option<PodSandboxConfig> = [message, optional, tag = "3"];
    }
    ContainerId {
        id: String = [string, tag = "1"];
    }
    StopContainerRequest {
        id: String = [string, tag = "1"];
        timeout: i64 = [int64, tag = "2"];
    }
    ListContainersResponse {
        containers: Vec<Container> = [message, repeated, tag = "1"];
    }
    Container {
        id: String = [string, tag = "1"];
        sandbox: String = [string, tag = "2"];
        metadata: Option<ContainerMetadata> = [message, optional, tag = "3"];
        image: Option<ImageSpec> = [message, optional, tag = "4"];
        image_ref: String = [string, tag = "5"];
        state: i32 = [int32, tag = "6"];
        created_at: i64 = [int64, tag = "7"];
        labels: HashMap<String, String> = [map = "string, string", tag = "8"];
        annotations: HashMap<String, String> = [map = "string, string", tag = "9"];
    }
    ListImagesResponse {
        images: Vec<Image> = [message, repeated, tag = "1"];
    }
    Image {
        id: String = [string, tag = "1"];
        repo_tags: Vec<String> = [string, repeated, tag = "2"];
        repo_digests: Vec<String> = [string, repeated, tag = "3"];
        size: u64 = [uint64, tag = "4"];
    }
}

impl PodSandbox {
    pub fn is_ready(&self) -> bool {
        self.state == SANDBOX_READY
    }

    /// What the pod is called; empty in a record without metadata.
    pub fn pod(&self) -> PodSandboxMetadata {
        self.metadata.clone().unwrap_or_default()
    }
}

/// A connection to containerd, made when it is first needed and again when it broke.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    limit: Duration,
}

impl Cri {
    /// `limit` is the longest that one call may take.
    pub fn new(socket: &str, limit: Duration) -> Result<Self> {
        let socket = PathBuf::from(socket);
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
        Ok(Self { channel, limit })
    }

    pub fn within(&self, limit: Duration) -> Self {
        Self {
            channel: self.channel.clone(),
            limit,
        }
    }

    async fn call<Q, A>(&self, service: &str, method: &str, question: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.{service}/{method}"))?;
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|error| {
                anyhow!("rpc error: code = Unavailable desc = {}", causes(&error))
            })?;
            let answer = client
                .unary(tonic::Request::new(question), path, ProstCodec::default())
                .await
                .map_err(|status| {
                    anyhow!(
                        "rpc error: code = {:?} desc = {}",
                        status.code(),
                        status.message()
                    )
                })?;
            Ok(answer.into_inner())
        };
        tokio::time::timeout(self.limit, call)
            .await
            .unwrap_or_else(|_| {
                Err(anyhow!(
                    "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
                ))
            })
    }

    async fn runtime<Q, A>(&self, method: &str, question: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.call("RuntimeService", method, question).await
    }

    pub async fn version(&self) -> Result<VersionResponse> {
        self.runtime("Version", Empty {}).await
    }

    pub async fn conditions(&self) -> Result<Vec<RuntimeCondition>> {
        let answer: StatusResponse = self.runtime("Status", Empty {}).await?;
        Ok(answer.status.unwrap_or_default().conditions)
    }

    pub async fn sandboxes(&self) -> Result<Vec<PodSandbox>> {
        let answer: ListPodSandboxResponse = self.runtime("ListPodSandbox", Empty {}).await?;
        Ok(answer.items)
    }

    pub async fn containers(&self) -> Result<Vec<Container>> {
        let answer: ListContainersResponse = self.runtime("ListContainers", Empty {}).await?;
        Ok(answer.containers)
    }

    pub async fn images(&self) -> Result<Vec<Image>> {
        let answer: ListImagesResponse = self.call("ImageService", "ListImages", Empty {}).await?;
        Ok(answer.images)
    }

    pub async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        let question = RunPodSandboxRequest {
            config: Some(config),
        };
        let answer: SandboxId = self.runtime("RunPodSandbox", question).await?;
        Ok(answer.id)
    }

    pub async fn sandbox_ip(&self, id: &str) -> Result<String> {
        let question = SandboxId { id: id.to_owned() };
        let answer: PodSandboxStatusResponse = self.runtime("PodSandboxStatus", question).await?;
        let network = answer.status.unwrap_or_default().network;
        Ok(network.unwrap_or_default().ip)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let question = SandboxId { id: id.to_owned() };
        let Empty {} = self.runtime("StopPodSandbox", question).await?;
        Ok(())
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let question = SandboxId { id: id.to_owned() };
        let Empty {} = self.runtime("RemovePodSandbox", question).await?;
        Ok(())
    }

    pub async fn create_container(&self, question: CreateContainerRequest) -> Result<String> {
        let answer: ContainerId = self.runtime("CreateContainer", question).await?;
        Ok(answer.id)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        let question = ContainerId { id: id.to_owned() };
        let Empty {} = self.runtime("StartContainer", question).await?;
        Ok(())
    }

    pub async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let question = StopContainerRequest {
            id: id.to_owned(),
            timeout,
        };
        let Empty {} = self.runtime("StopContainer", question).await?;
        Ok(())
    }

    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let question = ContainerId { id: id.to_owned() };
        let Empty {} = self.runtime("RemoveContainer", question).await?;
        Ok(())
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
