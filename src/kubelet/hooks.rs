//! Lifecycle hooks: postStart and preStop.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::probes::handler::{Target, http_get};
use crate::runtime::Runtime;

/// A hook over HTTP waits as long as upstream's client.
const HTTP_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a hook to its end. The error is what its event says.
pub async fn run(runtime: &Runtime, hook: &LifecycleHandler, target: &Target, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        return match runtime.exec_sync(&target.container_id, command, timeout).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!(
                "command '{shown}' exited with {}: {}",
                answer.exit_code,
                text(&answer.stderr, &answer.stdout)
            )),
            Err(error) => Err(format!("command '{shown}': {error}")),
        };
    }
    if let Some(action) = &hook.http_get {
        let (status, body) = http_get(action, target, HTTP_TIMEOUT.min(timeout)).await?;
        return if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(format!("HTTP hook answered {status}: {}", String::from_utf8_lossy(&body)))
        };
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0)).min(timeout)).await;
        return Ok(());
    }
    Err("invalid handler: no action is defined".to_owned())
}

fn text(stderr: &[u8], stdout: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 1024;
    let shown = if stderr.is_empty() { stdout } else { stderr };
    String::from_utf8_lossy(shown.get(..SHOWN_BYTES_MAX).unwrap_or(shown)).trim().to_owned()
}
