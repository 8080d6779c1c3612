//! Label selectors of workloads.

use api::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;

/// A selector, ready to be asked many times. One that is malformed, which validation keeps out, selects nothing.
pub fn compiled(selector: &v1::LabelSelector) -> LabelSelector {
    LabelSelector::from_selector(Some(selector)).unwrap_or_else(|_| LabelSelector::nothing())
}
