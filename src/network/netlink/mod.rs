//! Talking to the kernel over netlink sockets: blocking, one request at a time, in whatever network namespace the
//! calling thread is in. A kernel's answer takes microseconds; callers on an async runtime go through a blocking
//! thread.

pub(crate) mod route;
pub(crate) mod socket;
pub(crate) mod wire;
