//! Wrong JSON types, in the words of Go's decoder.

use serde_json::{Number, Value};

use super::DEPTH_MAX;
use crate::types::{ListType, Scalar, Shape, StructType, TypeRef};

/// Why a value does not decode into its type. Kubernetes answers 400 with
/// `<Kind> in version "<version>" cannot be handled as a <Kind>: ` before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`
    #[error("json: cannot unmarshal {found} into Go {place} of type {expected}")]
    Type {
        /// `string`, `bool`, `object`, `array`, `number`, `number 1.5`
        found: String,
        /// `struct field DeploymentSpec.spec.replicas`, or `value` for the whole
        place: String,
        /// The Go type.
        expected: String,
    },
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Quantity,
    #[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"")]
    Time(String),
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("exceeded max depth")]
    Depth,
}

/// Checks that every field has a JSON value that its type decodes from. `null` always has. Fields that the
/// type does not have are not looked at.
pub fn check_types(value: &Value, ty: TypeRef<'_>) -> Result<(), DecodeError> {
    Checker { fields: Vec::new(), owner: None }.check(value, ty)
}

struct Checker<'v> {
    /// Names of the struct fields on the way here; map keys and list indices are not part of it in Go.
    fields: Vec<&'v str>,
    /// The struct that the last of them is a field of.
    owner: Option<&'v str>,
}

impl<'v> Checker<'v> {
    fn check<'t: 'v>(&mut self, value: &'v Value, ty: TypeRef<'t>) -> Result<(), DecodeError> {
        if self.fields.len() > DEPTH_MAX {
            return Err(DecodeError::Depth);
        }
        if value.is_null() {
            return Ok(());
        }
        match (ty.shape(), value) {
            (Shape::Any | Shape::Object, _) => Ok(()),
            (Shape::Scalar(scalar), _) => self.scalar(value, scalar),
            (Shape::Struct(s), Value::Object(map)) => {
                let owner = self.owner;
                for (name, value) in map {
                    let Some(field) = s.field(name) else { continue };
                    self.fields.push(name);
                    self.owner = Some(s.short_name());
                    self.check(value, field.ty())?;
                    self.fields.pop();
                }
                self.owner = owner;
                Ok(())
            }
            (Shape::Map(m), Value::Object(map)) => map.values().try_for_each(|value| self.check(value, m.element)),
            (Shape::List(l), Value::Array(items)) => items.iter().try_for_each(|item| self.check(item, l.element)),
            (Shape::Struct(_) | Shape::Map(_) | Shape::List(_), _) => Err(self.mismatch(value, go_type(ty))),
        }
    }

    fn scalar(&self, value: &Value, scalar: Scalar) -> Result<(), DecodeError> {
        match (scalar, value) {
            (Scalar::String | Scalar::Quantity | Scalar::IntOrString, Value::String(text)) => {
                if scalar == Scalar::Quantity && !is_quantity(text) { Err(DecodeError::Quantity) } else { Ok(()) }
            }
            (Scalar::Byte, Value::String(text)) => base64(text),
            (Scalar::DateTime, Value::String(text)) => {
                if is_time(text) {
                    Ok(())
                } else {
                    Err(DecodeError::Time(text.clone()))
                }
            }
            (Scalar::Boolean, Value::Bool(_)) => Ok(()),
            (Scalar::Int32 | Scalar::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (Scalar::Int64 | Scalar::Integer, Value::Number(n)) if n.is_i64() => Ok(()),
            (Scalar::Double | Scalar::Number | Scalar::Quantity, Value::Number(_)) => Ok(()),
            (Scalar::Int32 | Scalar::Int64 | Scalar::Integer | Scalar::IntOrString, Value::Number(n)) => {
                Err(self.number_mismatch(n, scalar))
            }
            (Scalar::Quantity, _) => Err(DecodeError::Quantity),
            _ => Err(self.mismatch(value, go_scalar(scalar).to_owned())),
        }
    }

    fn mismatch(&self, value: &Value, expected: String) -> DecodeError {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        DecodeError::Type { found: found.to_owned(), place: self.place(), expected }
    }

    fn number_mismatch(&self, number: &Number, scalar: Scalar) -> DecodeError {
        DecodeError::Type {
            found: format!("number {number}"),
            place: self.place(),
            expected: go_scalar(scalar).to_owned(),
        }
    }

    fn place(&self) -> String {
        match self.owner {
            Some(owner) => format!("struct field {owner}.{}", self.fields.join(".")),
            None => String::from("value"),
        }
    }
}

fn go_scalar(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String | Scalar::DateTime => "string",
        Scalar::Byte => "[]uint8",
        Scalar::Int32 | Scalar::IntOrString => "int32",
        Scalar::Int64 | Scalar::Integer => "int64",
        Scalar::Double | Scalar::Number => "float64",
        Scalar::Boolean => "bool",
        Scalar::Quantity => "resource.Quantity",
    }
}

/// The Go type's name, as far as the table knows it: named slice and map types are shown by what they are.
fn go_type(ty: TypeRef<'_>) -> String {
    match ty.shape() {
        Shape::Scalar(scalar) => match (scalar, ty.definition_name()) {
            (Scalar::DateTime, Some(name)) if name.ends_with(".MicroTime") => String::from("v1.MicroTime"),
            (Scalar::DateTime, _) => String::from("v1.Time"),
            (Scalar::IntOrString, _) => String::from("intstr.IntOrString"),
            (scalar, _) => go_scalar(scalar).to_owned(),
        },
        Shape::List(ListType { element, .. }) => format!("[]{}", go_type(element)),
        Shape::Map(m) => format!("map[string]{}", go_type(m.element)),
        Shape::Struct(s) => go_struct(s),
        Shape::Object => String::from("runtime.RawExtension"),
        Shape::Any => String::from("interface {}"),
    }
}

/// `v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn go_struct(s: StructType<'_>) -> String {
    let name = s.name();
    let start = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name.get(start..).unwrap_or(name).to_owned()
}

/// Whether Kubernetes' quantity parser takes the text: digits with at most one point, then a suffix.
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || number.bytes().filter(|b| *b == b'.').count() > 1 {
        return false;
    }
    match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        _ => suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        }),
    }
}

/// Whether the text has the shape of RFC 3339, with plausible numbers.
fn is_time(text: &str) -> bool {
    fn number(bytes: &[u8], from: usize, to: usize) -> Option<u32> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
    }
    fn parse(text: &str) -> Option<()> {
        let b = text.as_bytes();
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if !separators.iter().all(|(at, c)| b.get(*at) == Some(c)) {
            return None;
        }
        let (_, month, day) = (number(b, 0, 4)?, number(b, 5, 7)?, number(b, 8, 10)?);
        let (hour, minute, second) = (number(b, 11, 13)?, number(b, 14, 16)?, number(b, 17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut zone = text.get(19..)?;
        if let Some(fraction) = zone.strip_prefix(['.', ',']) {
            zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return None;
            }
        }
        if zone == "Z" {
            return Some(());
        }
        let z = zone.as_bytes();
        let signed = matches!(z.first(), Some(b'+' | b'-')) && z.len() == 6 && z.get(3) == Some(&b':');
        (signed && number(z, 1, 3)? < 24 && number(z, 4, 6)? < 60).then_some(())
    }
    parse(text).is_some()
}

/// Standard base64 with padding; line ends are skipped as Go does.
fn base64(text: &str) -> Result<(), DecodeError> {
    let mut sextets = 0;
    let mut padding = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if padding < 2 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => sextets += 1,
            _ => return Err(DecodeError::Base64(at)),
        }
    }
    let complete = (sextets + padding) % 4 == 0 && sextets % 4 != 1;
    // What misses its end is told by where its last group begins.
    if complete { Ok(()) } else { Err(DecodeError::Base64(text.len() - text.len() % 4)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Types;

    fn error(group: &str, kind: &str, value: &Value) -> String {
        let ty = Types::builtin().kind(group, "v1", kind).unwrap();
        check_types(value, ty).unwrap_err().to_string()
    }

    #[test]
    fn errors_are_those_of_go() {
        for (value, expected) in [
            (
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"env": [{"name": "a", "value": 1}]}]}}}}),
                "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": {}}}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"metadata": {"labels": {"a": true}}}),
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!({"metadata": {"labels": []}}),
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
            (json!([]), "json: cannot unmarshal array into Go value of type v1.Deployment"),
        ] {
            assert_eq!(error("apps", "Deployment", &value), expected);
        }
    }

    #[test]
    fn special_scalars() {
        let limits = |v: Value| json!({"spec": {"containers": [{"resources": {"limits": {"cpu": v}}}]}});
        assert!(error("", "Pod", &limits(json!("1x"))).starts_with("quantities must match"));
        let time = error("", "Pod", &json!({"metadata": {"creationTimestamp": "yesterday"}}));
        assert!(time.starts_with("parsing time \"yesterday\""), "{time}");
        let pod = Types::builtin().kind("", "v1", "Pod").unwrap();
        for good in [json!("100m"), json!(1), json!("1.5Gi"), json!("1e3"), json!("12E"), json!(null), json!(".5")] {
            check_types(&limits(good), pod).unwrap();
        }
        for good in ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123456+01:00"] {
            check_types(&json!({"metadata": {"creationTimestamp": good}}), pod).unwrap();
        }
        let secret = Types::builtin().kind("", "v1", "Secret").unwrap();
        check_types(&json!({"data": {"a": "aGVsbG8=", "b": ""}}), secret).unwrap();
        assert!(error("", "Secret", &json!({"data": {"a": "a*b"}})).contains("base64 data at input byte 1"));
        assert!(error("", "Secret", &json!({"data": {"a": "abc"}})).contains("base64"));
        let service = Types::builtin().kind("", "v1", "Service").unwrap();
        check_types(&json!({"spec": {"ports": [{"port": 1, "targetPort": "http"}, {"targetPort": 80}]}}), service)
            .unwrap();
        assert!(error("", "Service", &json!({"spec": {"ports": [{"targetPort": true}]}})).ends_with("of type int32"));
    }
}
