//! Which form of an answer a client takes.

use api::Failure;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use crate::failures;

const OFFERED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const OFFERED_WITHOUT_PROTOBUF: &str = "application/json, application/yaml";
const OFFERED_FOR_WATCHES: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// Versions of `Table`, `PartialObjectMetadata` and lists of these.
pub const META: [&str; 2] = ["meta.k8s.io/v1", "meta.k8s.io/v1beta1"];

pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub media: Media,
    pub shape: Shape,
    /// The version in which tables and metadata alone come: `meta.k8s.io/v1` or its beta, which is the same.
    pub meta: &'static str,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What is made of objects (`as=` in the media type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    PartialObjectMetadata,
    PartialObjectMetadataList,
}

/// What can be made of an answer besides JSON and YAML, and metadata alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Kinds that are made at run time have no protobuf; their metadata has.
    pub protobuf: bool,
    /// Answers that are kept nowhere, reviews and the like, are no tables.
    pub table: bool,
    /// Collections are lists and watches, and upstream says both where it can give neither.
    pub watch: bool,
}

impl Offer {
    pub const ALL: Offer = Offer { protobuf: true, table: true, watch: false };
}

impl Form {
    pub const JSON: Form = Form::new(Media::Json, Shape::Object);

    pub const fn new(media: Media, shape: Shape) -> Form {
        Form { media, shape, meta: META[0] }
    }
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => PROTOBUF,
        }
    }

    /// Of a watch's events; YAML has no such form.
    pub fn stream_type(self) -> Result<&'static str, Failure> {
        match self {
            Media::Json => Ok("application/json"),
            Media::Protobuf => Ok("application/vnd.kubernetes.protobuf;stream=watch"),
            Media::Yaml => Err(failures::not_acceptable(OFFERED_FOR_WATCHES)),
        }
    }
}

/// One media range of an `Accept` header.
struct Range<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Range<'_> {
    fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(one, _)| one.eq_ignore_ascii_case(key)).map(|(_, value)| *value)
    }
}

fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    const RANGES_MAX: usize = 32;
    let mut ranges: Vec<Range<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .take(RANGES_MAX)
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let quality = parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, value)| value.parse().ok());
            Some(Range { media_type, parameters, quality: quality.unwrap_or(1.0) })
        })
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// The first form in the client's order that is on offer, or 406.
pub fn form(headers: &HeaderMap, offer: Offer) -> Result<Form, Failure> {
    if !headers.contains_key(ACCEPT) {
        return Ok(Form::JSON);
    }
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Form::JSON);
    }
    let offered = if offer.protobuf { OFFERED } else { OFFERED_WITHOUT_PROTOBUF };
    ranges.iter().find_map(|range| accepted(range, offer)).ok_or_else(|| {
        if ranges.iter().any(|range| media_of(range).is_some()) {
            return failures::not_acceptable(offered);
        }
        match (offer.watch, offer.protobuf) {
            (false, _) => failures::no_representation(offered),
            (true, true) => failures::no_representation(&format!("{offered}, {OFFERED_FOR_WATCHES}")),
            (true, false) => failures::no_representation(&format!("{offered}, application/json;stream=watch")),
        }
    })
}

fn media_of(range: &Range<'_>) -> Option<Media> {
    Some(match range.media_type {
        "application/json" | "*/*" | "application/*" => Media::Json,
        "application/yaml" => Media::Yaml,
        PROTOBUF => Media::Protobuf,
        _ => return None,
    })
}

fn accepted(range: &Range<'_>, offer: Offer) -> Option<Form> {
    let media = media_of(range)?;
    let [stable, beta] = META;
    let version = match range.parameter("v") {
        Some("v1beta1") => beta,
        _ => stable,
    };
    let meta = range.parameter("g") == Some("meta.k8s.io") && matches!(range.parameter("v"), Some("v1" | "v1beta1"));
    let shape = match range.parameter("as") {
        None => Shape::Object,
        Some("Table") if meta && offer.table && media != Media::Protobuf => Shape::Table,
        Some("PartialObjectMetadata") if meta => Shape::PartialObjectMetadata,
        Some("PartialObjectMetadataList") if meta => Shape::PartialObjectMetadataList,
        Some(_) => return None,
    };
    let stream = range.parameter("stream").is_none_or(|stream| stream.is_empty() || stream == "watch");
    let made = stream && (offer.protobuf || media != Media::Protobuf || shape != Shape::Object);
    made.then_some(Form { media, shape, meta: version })
}

/// The first of the media types that the client takes, in its order; the first of all where it does not say.
pub fn first_of<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return offered.first().copied();
    }
    let takes = |range: &Range<'_>, media: &str| match range.media_type {
        "*/*" | "*" => true,
        range if range == media => true,
        range => range.strip_suffix("/*").is_some_and(|main| media.split('/').next() == Some(main)),
    };
    ranges.iter().find_map(|range| offered.iter().copied().find(|media| takes(range, media)))
}

/// The client asks for discovery in one document.
pub fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    ranges(headers).iter().find_map(|range| {
        let aggregated = range.media_type == "application/json"
            && range.parameter("g") == Some("apidiscovery.k8s.io")
            && range.parameter("as") == Some("APIGroupDiscoveryList");
        match range.parameter("v") {
            Some("v2") if aggregated => Some("v2"),
            Some("v2beta1") if aggregated => Some("v2beta1"),
            _ => None,
        }
    })
}

/// The client takes gzip.
pub fn gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| {
            let mut parts = one.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(accept: &str, offer: Offer) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        form(&headers, offer).map_err(|failure| failure.code)
    }

    #[test]
    fn the_first_form_that_can_be_made_is_taken() {
        let of = |accept| of(accept, Offer::ALL);
        let object = |media| Ok(Form::new(media, Shape::Object));
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), Ok(Form::new(Media::Json, Shape::Table)));
        let beta = Form { meta: "meta.k8s.io/v1beta1", ..Form::new(Media::Json, Shape::Table) };
        assert_eq!(of("application/json;as=Table;v=v1beta1;g=meta.k8s.io"), Ok(beta));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), object(Media::Protobuf));
        assert_eq!(of("application/vnd.kubernetes.protobuf;q=0.5,application/json;q=0.9"), object(Media::Json));
        assert_eq!(of("application/json;q=0.5,application/yaml"), object(Media::Yaml));
        assert_eq!(of("application/vnd.kubernetes.protobuf;stream=watch"), object(Media::Protobuf));
        assert_eq!(of("*/*"), Ok(Form::JSON));
        assert_eq!(of("application/json;as=Chair;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(of("text/html"), Err(406));
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(of(table), Err(406));
        assert_eq!(of(&format!("{table},application/json")), Ok(Form::JSON));
    }

    #[test]
    fn what_is_on_offer_is_said() {
        let said = |accept: &'static str, offer: Offer| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            form(&headers, offer).unwrap_err().message
        };
        let whole = format!("406: Not Acceptable\n\nAvailable representations: {OFFERED}");
        assert_eq!(said("image/png", Offer::ALL), whole);
        let list = Offer { watch: true, ..Offer::ALL };
        assert_eq!(said("image/png", list), format!("{whole}, {OFFERED_FOR_WATCHES}"));
        // The media type would do, but not in that shape.
        let text = format!("only the following media types are accepted: {OFFERED}");
        assert_eq!(said("application/json;as=Chair;v=v1;g=meta.k8s.io", list), text);
    }

    #[test]
    fn kinds_of_run_time_have_protobuf_for_their_metadata_alone() {
        let of = |accept| of(accept, Offer { protobuf: false, ..Offer::ALL });
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::JSON));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        assert_eq!(of(metadata), Ok(Form::new(Media::Protobuf, Shape::PartialObjectMetadata)));
    }

    #[test]
    fn what_is_no_table_is_not_given_as_one() {
        let of = |accept| of(accept, Offer { table: false, ..Offer::ALL });
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(of(table), Err(406));
        assert_eq!(of(&format!("{table},application/json")), Ok(Form::JSON));
    }
}
