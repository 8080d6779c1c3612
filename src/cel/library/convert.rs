//! `int(x)`, `string(x)` and the other conversions.

use super::{Function, TEXT_BYTES_MAX, bad, failed, function, time};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Library, Value, show};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

pub const FUNCTIONS: &[Function] = &[
    function("type", "(A) -> type(A)", Cost::One, |args| match args {
        [value] => Ok(Value::Type(value.type_name().into())),
        _ => bad(),
    }),
    function("dyn", "(A) -> dyn", Cost::One, |args| args.first().cloned().ok_or_else(EvalError::no_overload)),
    function("bool", "(bool) -> bool; (string) -> bool", Cost::One, bool),
    function("bytes", "(bytes) -> bytes; (string) -> bytes", Cost::ToBytes, bytes),
    function("double", "(double) -> double; (int) -> double; (string) -> double; (uint) -> double", Cost::One, double),
    function("duration", "(duration) -> duration; (string) -> duration", Cost::One, duration),
    function(
        "int",
        "(int) -> int; (double) -> int; (duration) -> int; (string) -> int; (timestamp) -> int; (uint) -> int",
        Cost::One,
        int,
    ),
    function(
        "string",
        "(string) -> string; (bool) -> string; (bytes) -> string; (double) -> string; (duration) -> string; \
         (int) -> string; (timestamp) -> string; (uint) -> string; (net.IP) -> string; (net.CIDR) -> string",
        Cost::ToString,
        string,
    ),
    function("timestamp", "(timestamp) -> timestamp; (int) -> timestamp; (string) -> timestamp", Cost::One, timestamp),
    function("uint", "(uint) -> uint; (double) -> uint; (int) -> uint; (string) -> uint", Cost::One, uint),
];

fn bool<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Bool(match args {
        [Value::Bool(value)] => *value,
        [Value::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return failed("type conversion error from 'string' to 'bool'"),
        },
        _ => return bad(),
    }))
}

fn bytes<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match args {
        [Value::Bytes(value)] => Value::Bytes(value.clone()),
        [Value::String(text)] => Value::Bytes(text.as_bytes().into()),
        _ => return bad(),
    })
}

fn double<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Double(match args {
        [Value::Double(value)] => *value,
        [Value::Int(value)] => *value as f64,
        [Value::Uint(value)] => *value as f64,
        [Value::String(text)] => match text.parse() {
            Ok(value) => value,
            Err(_) => return failed(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", &**text)),
        },
        _ => return bad(),
    }))
}

fn duration<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Duration(match args {
        [Value::Duration(nanos)] => *nanos,
        [Value::String(text)] => time::duration(text).map_err(EvalError::Failed)?,
        _ => return bad(),
    }))
}

fn int<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(match args {
        [Value::Int(value)] => *value,
        [Value::Uint(value)] => i64::try_from(*value).map_err(|_| EvalError::failed("integer overflow"))?,
        // The bounds themselves have no exact double.
        [Value::Double(value)] if *value > -9.223_372_036_854_775e18 && *value < 9.223_372_036_854_775e18 => {
            *value as i64
        }
        [Value::Double(_)] => return failed("integer overflow"),
        [Value::Duration(nanos)] => *nanos,
        [Value::Timestamp(at)] => at.seconds(),
        [Value::String(text)] => match text.parse() {
            Ok(value) => value,
            Err(_) => return failed(format!("strconv.ParseInt: parsing {:?}: invalid syntax", &**text)),
        },
        _ => return bad(),
    }))
}

fn uint<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let overflow = || EvalError::failed("unsigned integer overflow");
    Ok(Value::Uint(match args {
        [Value::Uint(value)] => *value,
        [Value::Int(value)] => u64::try_from(*value).map_err(|_| overflow())?,
        [Value::Double(value)] if *value >= 0.0 && *value < 1.844_674_407_370_955e19 => *value as u64,
        [Value::Double(_)] => return Err(overflow()),
        [Value::String(text)] => match text.parse() {
            Ok(value) => value,
            Err(_) => return failed(format!("strconv.ParseUint: parsing {:?}: invalid syntax", &**text)),
        },
        _ => return bad(),
    }))
}

fn string<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match args {
        [Value::String(text)] => Value::String(text.clone()),
        [Value::Bytes(bytes)] if bytes.len() <= TEXT_BYTES_MAX => match std::str::from_utf8(bytes) {
            Ok(text) => Value::string(text),
            Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [
            value @ (Value::Bool(_)
            | Value::Double(_)
            | Value::Duration(_)
            | Value::Int(_)
            | Value::Timestamp(_)
            | Value::Uint(_)
            | Value::Library(Library::Ip(_) | Library::Cidr(_))),
        ] => Value::string(show::plain(value)),
        _ => return bad(),
    })
}

fn timestamp<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Timestamp(match args {
        [Value::Timestamp(at)] => *at,
        [Value::Int(seconds)] => time::from_seconds(*seconds)?,
        [Value::String(text)] => time::timestamp(text)?,
        _ => return bad(),
    }))
}
