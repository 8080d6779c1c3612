//! The way to the API for every component.
