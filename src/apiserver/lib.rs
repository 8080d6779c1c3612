//! The request path of the Kubernetes API.
