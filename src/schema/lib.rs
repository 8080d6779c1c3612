//! What fields the types have; merging, patching and field ownership driven by it.
