//! What the objects are: served resources, defaulting, validation, selectors, printing.
