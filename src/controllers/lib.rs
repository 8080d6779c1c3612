//! One file per controller.
