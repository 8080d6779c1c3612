//! A revisioned key-value store: openraft over sled.
