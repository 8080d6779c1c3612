//! Links, routes, overlay, addresses and packet filter over netlink.
