//! How the API server shows itself to admission webhooks: users of a kubeconfig file, named after the servers that they
//! are for (upstream: `AuthenticationInfoResolver`).
//!
//! Limitation: impersonation is not taken over.

use std::path::Path;
use std::sync::Arc;

use super::endpoint::{ClientCertificate, EndpointError, Token};
use super::kubeconfig::{self, Config, User};

/// Users by the servers that they are for.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    /// Name, certificate, and what a token is made of.
    logins: Vec<(String, Option<ClientCertificate>, User)>,
    /// The user of the current context, for servers that no other user is for.
    default: Option<String>,
    base: std::path::PathBuf,
}

impl Credentials {
    /// Reads files: for the start of a server. Paths in the file are relative to it.
    pub fn from_kubeconfig(path: &Path) -> Result<Credentials, EndpointError> {
        let base = path.parent().unwrap_or(Path::new("."));
        Credentials::of(kubeconfig::read(path)?, base)
    }

    fn of(config: Config, base: &Path) -> Result<Credentials, EndpointError> {
        let mut logins = Vec::new();
        for named in config.users {
            let user = named.user;
            kubeconfig::check(&user)?;
            // What is wrong with a token is found here and not at the first call.
            kubeconfig::token(&user, base)?;
            logins.push((named.name, kubeconfig::certificate(&user, base)?, user));
        }
        let current = config.contexts.into_iter().find(|one| one.name == config.current_context);
        let default = current.map(|one| one.context.user).filter(|name| !name.is_empty());
        Ok(Credentials(Arc::new(Inner { logins, default, base: base.to_owned() })))
    }

    /// What is shown to a server, which is given by its host and port; for a Service the host is
    /// `<name>.<namespace>.svc`.
    pub(super) fn login(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(Option<ClientCertificate>, Option<Token>), EndpointError> {
        let Some((_, certificate, user)) = self.find(host, port) else { return Ok((None, None)) };
        Ok((certificate.clone(), kubeconfig::token(user, &self.0.base)?))
    }

    fn find(&self, host: &str, port: u16) -> Option<&(String, Option<ClientCertificate>, User)> {
        let named = |name: &str| self.0.logins.iter().find(|(known, ..)| known == name);
        // The server itself, then with a star for ever more of its first parts.
        let matching = |target: &str| {
            named(target).or_else(|| {
                target
                    .match_indices('.')
                    .find_map(|(at, _)| target.get(at..).and_then(|rest| named(&format!("*{rest}"))))
            })
        };
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let found = matching(&target).or_else(|| if port == 443 { matching(host) } else { None });
        found.or_else(|| named("*")).or_else(|| named(self.0.default.as_deref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(users: &[&str], current: &str) -> Credentials {
        let users: String =
            users.iter().map(|name| format!("- {{name: '{name}', user: {{token: '{name}'}}}}\n")).collect();
        let contexts = "contexts:\n- {name: c, context: {cluster: k, user: fallback}}\n";
        let text = format!("current-context: '{current}'\n{contexts}users:\n{users}");
        Credentials::of(kubeconfig::parse(&text).unwrap(), Path::new("/nonexistent")).unwrap()
    }

    #[test]
    fn the_most_particular_user_is_shown() {
        let all =
            ["hook.shop.svc:443", "*.shop.svc:443", "*.shop.svc", "*.svc", "hook.other.svc", "[::1]:8443", "fallback"];
        let credentials = of(&all, "c");
        let shown = |host: &str, port| credentials.find(host, port).map(|(name, ..)| name.as_str());
        assert_eq!(shown("hook.shop.svc", 443), Some("hook.shop.svc:443"));
        assert_eq!(shown("other.shop.svc", 443), Some("*.shop.svc:443"));
        assert_eq!(shown("hook.other.svc", 443), Some("hook.other.svc"));
        assert_eq!(shown("x.y.svc", 443), Some("*.svc"));
        assert_eq!(shown("x.y.svc", 8443), Some("fallback"), "a name without a port is for 443");
        assert_eq!(shown("::1", 8443), Some("[::1]:8443"));
        let star = of(&["*", "fallback"], "c");
        assert_eq!(star.find("a.example", 443).map(|(name, ..)| name.as_str()), Some("*"));
        assert!(of(&["fallback"], "none").find("a.example", 443).is_none());
    }

    #[test]
    fn what_cannot_be_shown_is_refused_at_once() {
        let bad = |user: &str| {
            let text = format!("users:\n- {{name: a, user: {{{user}}}}}\n");
            Credentials::of(kubeconfig::parse(&text).unwrap(), Path::new("/nonexistent")).is_err()
        };
        assert!(bad("client-certificate: a.crt, client-key: a.key"));
        assert!(bad("exec: {command: x}"));
        assert!(bad("token: \"a\\nb\""));
        assert!(!bad("token: a"));
    }
}
