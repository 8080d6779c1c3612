//! Values as text.

use super::{Key, Library, Value};
use crate::library::{ip, time};

/// What `string()` makes of it, and what messages show.
pub fn plain(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(at) => time::show_timestamp(at),
        Value::Duration(nanos) => time::show_seconds(*nanos),
        Value::Double(value) => double(*value),
        Value::Library(Library::Ip(address)) => ip::show(address),
        Value::Library(Library::Cidr(cidr)) => cidr.to_string(),
        Value::Library(Library::Quantity(quantity)) => quantity.to_string(),
        Value::Library(Library::Semver(version)) => version.to_string(),
        Value::Library(Library::Url(url)) => url.text().to_owned(),
        other => literal(other),
    }
}

/// As an expression would write it.
pub fn literal(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => format!("{value}"),
        Value::Double(value) => double(*value),
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::List(list) => {
            let items: Vec<String> = list.iter().flatten().map(|item| literal(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => entries(map),
        Value::Struct(of) => format!("{}{}", of.name, entries(&of.fields)),
        Value::Optional(None) => "optional.none()".to_owned(),
        Value::Optional(Some(value)) => format!("optional({})", literal(value)),
        Value::Type(name) => name.to_string(),
        Value::Timestamp(_) => format!("timestamp({:?})", plain(value)),
        Value::Duration(_) => format!("duration({:?})", plain(value)),
        Value::Library(Library::Format(_) | Library::Authorizer(_) | Library::Decision(_)) | Value::Lazy(_) => {
            value.type_name().to_owned()
        }
        Value::Library(_) => format!("{}({:?})", value.type_name(), plain(value)),
    }
}

fn entries(map: &super::Map<'_>) -> String {
    let mut shown = Vec::new();
    for found in map.keys() {
        if let Some(Ok(value)) = map.get(&found) {
            shown.push(format!("{}: {}", literal(&found.value()), literal(&value)));
        }
    }
    format!("{{{}}}", shown.join(", "))
}

/// A map's key as the name of a JSON field.
pub fn key(key: &Key<'_>) -> String {
    plain(&key.value())
}

/// The shortest digits that mean this number, with an exponent where Go's `%g` has one.
pub fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..21).contains(&exponent) || value == 0.0 {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
