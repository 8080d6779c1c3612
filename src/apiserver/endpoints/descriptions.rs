//! What types and fields mean, in the words of k8s-openapi's documentation. The table is made by `build.rs`, and
//! unpacked for as long as documents are made.

use std::collections::BTreeMap;

use flate2::read::ZlibDecoder;

static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zlib"));

/// Some megabytes; for making documents, not for keeping.
pub struct Descriptions {
    /// By definition name.
    definitions: BTreeMap<String, Described>,
}

/// The description of a type, and those of its fields by name.
type Described = (Option<String>, BTreeMap<String, Option<String>>);

impl Descriptions {
    /// Documents without descriptions are documents still, which is what remains should the table be damaged.
    pub fn unpack() -> Descriptions {
        let read = serde_json::from_reader(std::io::BufReader::new(ZlibDecoder::new(TABLE)));
        let definitions = read.unwrap_or_else(|error| {
            tracing::error!(%error, "the table of descriptions cannot be read");
            BTreeMap::new()
        });
        Descriptions { definitions }
    }

    /// The description of a type, or of one of its fields.
    pub fn of(&self, definition: &str, field: Option<&str>) -> Option<&str> {
        let (whole, fields) = self.definitions.get(definition)?;
        field.map_or(whole.as_ref(), |field| fields.get(field)?.as_ref()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use schema::Types;

    use super::*;

    #[test]
    fn what_is_described_is_what_the_types_have() {
        let descriptions = Descriptions::unpack();
        assert!(descriptions.definitions.len() > 450, "{}", descriptions.definitions.len());
        for (name, (_, described)) in &descriptions.definitions {
            let ty = Types::builtin().named(name).unwrap_or_else(|| panic!("{name} is not in the table of types"));
            let Some(ty) = ty.as_struct() else { continue };
            let mut fields: Vec<&str> = ty.fields().map(|field| field.name()).collect();
            fields.sort_unstable();
            assert_eq!(described.keys().map(String::as_str).collect::<Vec<_>>(), fields, "{name}");
        }
    }

    #[test]
    fn every_served_kind_is_described() {
        let descriptions = Descriptions::unpack();
        for row in api::rows() {
            let (group, version) = (&row.resource.group, &row.resource.version);
            let ty = Types::builtin().kind(group, version, &row.kind).unwrap();
            let name = ty.definition_name().unwrap();
            let description = descriptions.of(name, None);
            assert!(description.is_some_and(|text| !text.is_empty()), "{name}");
        }
        assert_eq!(descriptions.of("io.k8s.api.core.v1.Unheard", None), None);
    }

    #[test]
    fn fields_are_described() {
        let descriptions = Descriptions::unpack();
        let of = |field| descriptions.of("io.k8s.api.core.v1.Container", field);
        assert!(of(None).unwrap().contains("single application container"));
        assert!(of(Some("image")).unwrap().contains("image name"));
        assert_eq!(of(Some("unheard")), None);
    }
}
