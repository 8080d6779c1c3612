//! `Localhost` profiles, in the JSON form of the OCI runtime specification (and Docker's extensions
//! `includes` and `excludes`).
//!
//! The kernel takes the strictest answer of all filters, so a profile with several actions becomes one filter
//! per action beside the one that gives everything unnamed the default.

use std::collections::BTreeMap;

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
use serde::Deserialize;

use super::{Filter, compile, table, target};
use crate::capabilities::bit;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Syscalls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscalls {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filters,
    #[serde(default)]
    excludes: Filters,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
struct Filters {
    #[serde(default)]
    caps: Option<Vec<String>>,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub fn filters(profile: &serde_json::Value, capabilities: u64) -> Result<Vec<Filter>, String> {
    let profile = Profile::deserialize(profile).map_err(|error| format!("profile: {error}"))?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut named = Rules::new();
    let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
    for entry in &profile.syscalls {
        let has = |names: &Option<Vec<String>>, all: bool| {
            let names = names.as_deref().unwrap_or_default();
            let held = |name: &String| capabilities & bit(name.trim_start_matches("CAP_")).unwrap_or(0) != 0;
            if all { names.iter().all(held) } else { names.iter().any(held) }
        };
        if !has(&entry.includes.caps, true) || has(&entry.excludes.caps, false) {
            continue;
        }
        let action = action(&entry.action, entry.errno_ret)?;
        let rule = rule(entry.args.as_deref().unwrap_or_default())?;
        for number in entry.names.iter().filter_map(|name| table::number(name)) {
            add(&mut named, number, rule.clone());
            if action == SeccompAction::Allow {
                continue;
            }
            match by_action.iter_mut().find(|(known, _)| *known == action) {
                Some((_, rules)) => add(rules, number, rule.clone()),
                None => {
                    let mut rules = Rules::new();
                    add(&mut rules, number, rule.clone());
                    by_action.push((action.clone(), rules));
                }
            }
        }
    }
    let mut filters = Vec::new();
    if default != SeccompAction::Allow {
        filters.push(new(named, default, SeccompAction::Allow)?);
    }
    for (action, rules) in by_action {
        filters.push(new(rules, SeccompAction::Allow, action)?);
    }
    Ok(filters)
}

/// An entry without conditions makes the others for the same call superfluous; seccompiler wants an empty list then.
fn add(rules: &mut Rules, number: i64, rule: Option<SeccompRule>) {
    match (rules.get_mut(&number), rule) {
        (Some(known), Some(rule)) if !known.is_empty() => known.push(rule),
        (Some(_), Some(_)) => {}
        (Some(known), None) => known.clear(),
        (None, rule) => {
            rules.insert(number, rule.into_iter().collect());
        }
    }
}

fn new(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<Filter, String> {
    compile(SeccompFilter::new(rules, otherwise, matched, target()?).map_err(|error| error.to_string())?)
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(libc::EPERM as u32)),
        other => return Err(format!("profile: action {other:?} is not known")),
    })
}

fn rule(args: &[Argument]) -> Result<Option<SeccompRule>, String> {
    let mut conditions = Vec::with_capacity(args.len());
    for arg in args {
        let (operator, value) = match arg.op.as_str() {
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, arg.value),
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, arg.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, arg.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, arg.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, arg.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, arg.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(arg.value), arg.value_two),
            other => return Err(format!("profile: comparison {other:?} is not known")),
        };
        conditions.push(
            SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, operator, value)
                .map_err(|error| error.to_string())?,
        );
    }
    if conditions.is_empty() {
        return Ok(None);
    }
    SeccompRule::new(conditions).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_actions_become_several_filters() {
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        assert_eq!(filters(&profile, 0).unwrap().len(), 2);
        assert_eq!(filters(&profile, bit("SYS_ADMIN").unwrap()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for profile in [
            serde_json::json!({"defaultAction": "SCMP_ACT_WHATEVER"}),
            serde_json::json!([]),
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
        ] {
            assert!(filters(&profile, 0).is_err(), "{profile}");
        }
    }
}
