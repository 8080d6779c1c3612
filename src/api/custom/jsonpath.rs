//! Paths of printer columns: the part of JSONPath that client-go's template language has.
//!
//! `.spec.replicas`, `.metadata.annotations.example\.com/x`, `.list[0].name`, `.list[-1:]`, `.map['a b']`,
//! `.conditions[?(@.type=="Ready")].status`, `.spec.*`, `..name`.

use serde_json::Value;

/// A path has at most so many steps, and at most so many values are looked at.
const STEPS_MAX: usize = 64;
const VALUES_MAX: usize = 10_000;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Every field or element.
    Wildcard,
    /// The value itself and everything below it.
    Recursive,
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        step: Option<i64>,
    },
    Index(i64),
    Union(Vec<Step>),
    Filter {
        left: Operand,
        comparison: Comparison,
        right: Operand,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(&'static str);

impl JsonPath {
    pub fn parse(text: &str) -> Result<JsonPath, PathError> {
        let mut reader = Reader { rest: text.trim() };
        let mut steps = Vec::new();
        if reader.rest.starts_with(['$', '@']) {
            reader.skip(1);
        }
        while !reader.rest.is_empty() {
            if steps.len() >= STEPS_MAX {
                return Err(PathError("the path is too long"));
            }
            reader.step(&mut steps)?;
        }
        Ok(JsonPath { steps })
    }

    /// The first value that the path leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.find(value).first().copied()
    }

    fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.walk(value, &mut next);
                if next.len() > VALUES_MAX {
                    next.truncate(VALUES_MAX);
                    break;
                }
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn walk<'v>(&self, value: &'v Value, found: &mut Vec<&'v Value>) {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => found.extend(map.get(name)),
            (Step::Wildcard, Value::Object(map)) => found.extend(map.values()),
            (Step::Wildcard, Value::Array(items)) => found.extend(items),
            (Step::Recursive, value) => {
                if found.len() > VALUES_MAX {
                    return;
                }
                found.push(value);
                match value {
                    Value::Object(map) => map.values().for_each(|value| self.walk(value, found)),
                    Value::Array(items) => items.iter().for_each(|value| self.walk(value, found)),
                    _ => {}
                }
            }
            (Step::Index(index), Value::Array(items)) => {
                found.extend(place(*index, items.len()).and_then(|at| items.get(at)));
            }
            (Step::Slice { start, end, step }, Value::Array(items)) => {
                let bound = |bound: Option<i64>, default: usize| match bound {
                    None => default,
                    Some(bound) if bound < 0 => {
                        items.len().saturating_sub(usize::try_from(-bound).unwrap_or(usize::MAX))
                    }
                    Some(bound) => usize::try_from(bound).unwrap_or(usize::MAX).min(items.len()),
                };
                let (from, to) = (bound(*start, 0), bound(*end, items.len()));
                let by = step.and_then(|step| usize::try_from(step).ok()).filter(|step| *step > 0).unwrap_or(1);
                found.extend(items.get(from..to).unwrap_or_default().iter().step_by(by));
            }
            (Step::Union(steps), value) => steps.iter().for_each(|step| step.walk(value, found)),
            (Step::Filter { left, comparison, right }, Value::Array(items)) => {
                found.extend(items.iter().filter(|item| holds(left, *comparison, right, item)));
            }
            _ => {}
        }
    }
}

fn place(index: i64, len: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(at) => Some(at),
        Err(_) => len.checked_sub(usize::try_from(index.checked_neg()?).ok()?),
    }
}

fn holds(left: &Operand, comparison: Comparison, right: &Operand, item: &Value) -> bool {
    fn value<'v>(operand: &'v Operand, item: &'v Value) -> Option<&'v Value> {
        match operand {
            Operand::Path(path) => path.first(item),
            Operand::Literal(value) => Some(value),
        }
    }
    let Some(left) = value(left, item) else { return false };
    if comparison == Comparison::Exists {
        return true;
    }
    let Some(right) = value(right, item) else { return false };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
    };
    match comparison {
        Comparison::Exists => true,
        Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), PathError> {
        if self.rest.starts_with("..") {
            self.skip(2);
            steps.push(Step::Recursive);
            if self.rest.starts_with('[') {
                return Ok(());
            }
            return self.name(steps);
        }
        if self.rest.starts_with('.') {
            self.skip(1);
            return if self.rest.is_empty() || self.rest.starts_with('[') { Ok(()) } else { self.name(steps) };
        }
        if self.rest.starts_with('[') {
            let inside = self.brackets()?;
            steps.push(bracket(inside)?);
            return Ok(());
        }
        self.name(steps)
    }

    fn name(&mut self, steps: &mut Vec<Step>) -> Result<(), PathError> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c if c.is_whitespace() || "|,={}()]".contains(c) => return Err(PathError("unexpected character")),
                c => name.push(c),
            }
        }
        self.skip(end);
        match name.as_str() {
            "" => Err(PathError("a name is missing")),
            "*" => {
                steps.push(Step::Wildcard);
                Ok(())
            }
            _ => {
                steps.push(Step::Field(name));
                Ok(())
            }
        }
    }

    /// What is between this bracket and the one that closes it.
    fn brackets(&mut self) -> Result<&'t str, PathError> {
        let mut depth = 0;
        let mut quote = None;
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match (quote, c) {
                _ if escaped => escaped = false,
                (_, '\\') => escaped = true,
                (Some(open), c) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, '[') => depth += 1,
                (None, ']') => {
                    depth -= 1;
                    if depth == 0 {
                        let inside = self.rest.get(1..at).unwrap_or_default();
                        self.skip(at + 1);
                        return Ok(inside);
                    }
                }
                _ => {}
            }
        }
        Err(PathError("unterminated array"))
    }
}

fn bracket(inside: &str) -> Result<Step, PathError> {
    let inside = inside.trim();
    if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return condition(filter);
    }
    let parts = outside_quotes(inside, ',');
    if parts.len() > 1 {
        return parts.into_iter().map(bracket).collect::<Result<Vec<_>, _>>().map(Step::Union);
    }
    if let Some(name) = unquoted(inside) {
        return Ok(Step::Field(name));
    }
    if inside == "*" {
        return Ok(Step::Wildcard);
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| PathError("invalid array index")),
    };
    let bounds: Vec<&str> = inside.split(':').collect();
    match bounds.as_slice() {
        [one] => number(one)?.map(Step::Index).ok_or(PathError("invalid array index")),
        [start, end] => Ok(Step::Slice { start: number(start)?, end: number(end)?, step: None }),
        [start, end, step] => Ok(Step::Slice { start: number(start)?, end: number(end)?, step: number(step)? }),
        _ => Err(PathError("invalid array index")),
    }
}

fn condition(text: &str) -> Result<Step, PathError> {
    for (sign, comparison) in [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ] {
        if let Some(at) = place_outside_quotes(text, sign) {
            let (left, right) = text.split_at(at);
            let right = right.get(sign.len()..).unwrap_or_default();
            return Ok(Step::Filter { left: operand(left)?, comparison, right: operand(right)? });
        }
    }
    Ok(Step::Filter { left: operand(text)?, comparison: Comparison::Exists, right: Operand::Literal(Value::Null) })
}

fn operand(text: &str) -> Result<Operand, PathError> {
    let text = text.trim();
    if let Some(literal) = unquoted(text) {
        return Ok(Operand::Literal(literal.into()));
    }
    if text.starts_with(['@', '$', '.']) {
        return JsonPath::parse(text).map(Operand::Path);
    }
    serde_json::from_str(text).map(Operand::Literal).map_err(|_| PathError("unrecognized identifier"))
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inside = text.get(1..)?.strip_suffix(quote)?;
    let mut out = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c == separator => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn place_outside_quotes(text: &str, sign: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, _) if text.get(at..).is_some_and(|rest| rest.starts_with(sign)) => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_they_say() {
        let value = json!({
            "spec": {"replicas": 3, "a.b/c": "dotted", "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            (r".spec.a\.b/c", json!("dotted")),
            (".spec['a.b/c']", json!("dotted")),
            (".spec.list[1].n", json!("y")),
            (".spec.list[-1].n", json!("y")),
            (".spec.list[-1:].n", json!("y")),
            (".spec.list[*].n", json!("x")),
            (".spec.list[?(@.v>1)].n", json!("y")),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
            (".status.conditions[?(@.type=='Other')].status", json!("False")),
            ("..n", json!("x")),
            ("$.spec.list[0]['v','n']", json!(1)),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), Some(&expected), "{path}");
        }
        for path in [".spec.nothing", ".spec.list[7]", ".spec.list[?(@.v>9)].n", ".spec.replicas.x"] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), None, "{path}");
        }
        for path in [".spec.[", ".spec.list[", ".a b", ".x[a]", ".spec.list[?(@.v>]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
