//! exec, attach and port-forward on the wire: WebSocket channels and SPDY/3.1.
