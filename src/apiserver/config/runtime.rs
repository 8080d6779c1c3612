//! Which groups, versions and resources are served (upstream: `--runtime-config`).

use std::collections::BTreeMap;

use api::Row;

const ALL: &str = "api/all";
const STAGES: [&str; 3] = ["api/ga", "api/beta", "api/alpha"];

/// What differs from the defaults, by `group/version/resource`, `group/version`, or stage.
#[derive(Clone, Debug, Default)]
pub struct RuntimeConfig {
    settings: BTreeMap<String, bool>,
}

impl RuntimeConfig {
    /// Parts such as `storage.k8s.io/v1beta1=true`, `v1/endpoints=false`, `api/beta`; nothing behind the name means
    /// true. A name that nothing has is an error.
    pub fn parse(parts: &[String]) -> Result<RuntimeConfig, String> {
        let mut settings = BTreeMap::new();
        for part in parts {
            let (name, on) = match part.split_once('=') {
                None | Some((_, "")) => (part.trim_end_matches('='), true),
                Some((name, "true")) => (name, true),
                Some((name, "false")) => (name, false),
                Some((name, _)) => return Err(format!("{name} should be true or false")),
            };
            // What the core group's version is called among the others.
            let name = name.strip_prefix("api/v1").map_or_else(|| name.to_owned(), |rest| format!("v1{rest}"));
            let known = name == ALL
                || STAGES.contains(&name.as_str())
                || api::rows().iter().any(|row| name == version_of(row) || name == resource_of(row));
            if !known {
                return Err(format!("unknown api groups {name}"));
            }
            settings.insert(name, on);
        }
        Ok(RuntimeConfig { settings })
    }

    /// Whether a row is served. The narrower setting counts.
    pub fn serves(&self, row: &Row) -> bool {
        if self.settings.is_empty() {
            return row.enabled;
        }
        let setting = |name: &str| self.settings.get(name).copied();
        let own = setting(&resource_of(row)).or_else(|| setting(&version_of(row)));
        own.or_else(|| setting(stage(&row.resource.version))).or_else(|| setting(ALL)).unwrap_or(row.enabled)
    }
}

fn version_of(row: &Row) -> String {
    row.api_version()
}

fn resource_of(row: &Row) -> String {
    format!("{}/{}", row.api_version(), row.resource.plural)
}

fn stage(version: &str) -> &'static str {
    let [stable, beta, alpha] = STAGES;
    match version {
        version if version.contains("alpha") => alpha,
        version if version.contains("beta") => beta,
        _ => stable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(settings: &[&str], group: &str, version: &str, plural: &str) -> bool {
        let parts: Vec<String> = settings.iter().map(|part| (*part).to_owned()).collect();
        RuntimeConfig::parse(&parts).unwrap().serves(Row::find(group, version, plural).unwrap())
    }

    #[test]
    fn the_narrower_setting_counts() {
        let beta = |settings: &[&str]| served(settings, "networking.k8s.io", "v1beta1", "ipaddresses");
        assert!(!beta(&[]) && beta(&["api/beta"]) && beta(&["api/all=true"]));
        assert!(beta(&["networking.k8s.io/v1beta1=true"]) && beta(&["networking.k8s.io/v1beta1/ipaddresses"]));
        assert!(!beta(&["api/beta=true", "networking.k8s.io/v1beta1=false"]));
        assert!(!beta(&["api/all=true", "api/beta=false"]) && !beta(&["api/alpha=true"]));
        assert!(served(&["api/beta=true"], "", "v1", "pods"));
        assert!(!served(&["v1/endpoints=false"], "", "v1", "endpoints"));
        assert!(!served(&["api/v1/endpoints=false"], "", "v1", "endpoints"));
    }

    #[test]
    fn what_nothing_has_is_refused() {
        let refused = |part: &str| RuntimeConfig::parse(&[part.to_owned()]).unwrap_err();
        assert_eq!(refused("example.com/v1=true"), "unknown api groups example.com/v1");
        assert_eq!(refused("apps/v1=yes"), "apps/v1 should be true or false");
    }
}
