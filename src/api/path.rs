//! Where in an object validation is (`field.Path`): a chain of borrowed parts that becomes text only when
//! something is wrong, so that checking a valid object allocates nothing for it.

use std::fmt;

#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself: children print without a leading dot.
    Root,
    /// `spec.containers`
    Field(&'a Path<'a>, &'a str),
    /// `containers[0]`
    Index(&'a Path<'a>, usize),
    /// `labels[key]`
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> String {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_upstream_prints_them() {
        let spec = Path::Root.field("spec");
        let containers = spec.field("containers");
        let first = containers.index(0);
        assert_eq!(first.field("image").to_string(), "spec.containers[0].image");
        let labels = Path::Root.field("metadata");
        assert_eq!(labels.field("labels").key("a/b").to_string(), "metadata.labels[a/b]");
    }
}
