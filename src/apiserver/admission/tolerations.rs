//! Which tolerations say more than others.

use api::Fields;
use serde_json::Value;

/// Both lists without those that another one of them covers; of equal ones the first stays.
pub fn merged(own: &[Value], more: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = own.iter().chain(more).collect();
    let mut kept: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let covered_by_kept = kept.iter().any(|other| covers(other, one));
        let covered_later = all.iter().skip(index + 1).any(|other| other != one && covers(other, one));
        if !covered_by_kept && !covered_later {
            kept.push((*one).clone());
        }
    }
    kept
}

/// Whatever `narrow` tolerates, `wide` does too.
pub fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    if wide.text("key") != narrow.text("key") && !(wide.text("key").is_empty() && wide.text("operator") == "Exists") {
        return false;
    }
    if wide.text("effect") != narrow.text("effect") && !wide.text("effect").is_empty() {
        return false;
    }
    if wide.text("effect") == "NoExecute" {
        match (wide.int("tolerationSeconds"), narrow.int("tolerationSeconds")) {
            (None, _) => {}
            (Some(wide), Some(narrow)) if wide.max(0) >= narrow.max(0) => {}
            _ => return false,
        }
    }
    match wide.text("operator") {
        "Exists" => true,
        "" | "Equal" => matches!(narrow.text("operator"), "" | "Equal") && wide.text("value") == narrow.text("value"),
        _ => false,
    }
}
