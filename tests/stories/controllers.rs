//! What controllers keep true: what quotas have used, what aggregated roles allow, and the tokens in Secrets.

use super::{SOON, stage};
use crate::support::{both, run, until, until_is};

#[test]
fn quotas_count_roles_aggregate_and_secrets_hold_tokens() {
    let stage = stage();
    let server = &stage.server;
    let get = |args: &[&str], path: &str| {
        let path = format!("jsonpath={{{path}}}");
        both(&server.kubectl_output(&[&["get"], args, &["-o", &path]].concat()))
    };

    server.kubectl(&["create", "namespace", "shop"]);
    server.kubectl(&["create", "quota", "q", "-n", "shop", "--hard=pods=1,configmaps=2"]);
    let used = |what: &str| get(&["quota", "q", "-n", "shop"], &format!(".status.used.{what}"));
    until_is("the ConfigMap that every namespace has is counted", SOON, "1", || used("configmaps"));
    let pod = |name: &'static str| {
        ["run", name, "-n", "shop", "--image=busybox:1", "--restart=Never", "--command", "--", "sleep", "1000"]
    };
    server.kubectl(&pod("one"));
    let refused = server.kubectl_fails(&pod("two"));
    assert!(
        refused
            .contains("pods \"two\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"),
        "{refused}"
    );
    server.kubectl(&["delete", "pod", "one", "-n", "shop", "--now"]);
    until_is("what a Pod used comes back", SOON, "0", || used("pods"));
    server.kubectl(&pod("two"));
    server.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);

    server.apply(
        r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: harbour}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {harbour: "yes"}}]}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ships, labels: {harbour: "yes"}}
rules: [{apiGroups: [sea.example.com], resources: [ships], verbs: [get]}]
"#,
    );
    let allowed = || get(&["clusterrole", "harbour"], ".rules[*].resources[*]");
    until_is("a role has the rules of those that it gathers", SOON, "ships", allowed);
    server.kubectl(&["label", "clusterrole", "ships", "harbour-"]);
    until_is("and loses them", SOON, "", allowed);

    server.kubectl(&["create", "serviceaccount", "bob"]);
    server.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: bob, annotations: {kubernetes.io/service-account.name: bob}}\n\
         type: kubernetes.io/service-account-token\n",
    );
    let token = || {
        let template = "go-template={{if .data}}{{.data.token | base64decode}}{{end}}";
        run(&mut server.kubectl_command(&["get", "secret", "bob", "-o", template]))
    };
    until("the Secret has a token", SOON, || token().starts_with("ey"));
    let token = token();
    let who = || {
        let mut command = server.host.command("kubectl");
        command.args(["--kubeconfig", "/dev/null", "--server", "https://127.0.0.1:6443", "--insecure-skip-tls-verify"]);
        both(&command.args(["--token", &token, "auth", "whoami"]).output().unwrap())
    };
    assert!(who().contains("system:serviceaccount:default:bob"), "{}", who());
    let label = || get(&["secret", "bob"], ".metadata.labels.kubernetes\\.io/legacy-token-last-used");
    until("the day of its use is noted", SOON, || label().starts_with("20"));
    server.kubectl(&["delete", "serviceaccount", "bob"]);
    until("the token goes with its account", SOON, || {
        !server.kubectl_output(&["get", "secret", "bob"]).status.success()
    });
    assert!(who().contains("Unauthorized"), "{}", who());
}
