//! Programs that others wrote, or write every day: the Python client, and an operator with leader election, finalizer,
//! status, owned objects and webhooks.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{SOON, stage};
use crate::support::cluster::Node;
use crate::support::{both, run, until, until_is};

/// A script of `tests/clients` on the server's host, with the administrator's kubeconfig.
fn script(server: &Node, name: &str) -> Command {
    let python = std::env::var("CLUSTER_TEST_PYTHON").expect("run the tests with tests/run.sh");
    let mut command = server.host.command(&python);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name));
    command.arg(server.path("kubeconfig.yaml"));
    command
}

#[test]
fn the_python_client_works_unchanged() {
    let stage = stage();
    let server = &stage.server;
    server.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, 'echo started; mkdir /www; echo here >/www/index.html; httpd -f -p 8080 -h /www']
"#,
    );
    server.kubectl(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    let said = run(&mut script(server, "python_client.py"));
    let parts = ["objects", "pages", "watching", "running", "forwarding", "dynamically", "custom", "leaving"];
    assert_eq!(said, parts.map(|part| format!("ok {part}\n")).concat());
}

/// An operator's process; what it says is in a file.
struct Operator {
    child: Child,
    said: PathBuf,
}

impl Operator {
    fn start(server: &Node, name: &str) -> Operator {
        let said = server.path(&format!("operator-{name}"));
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (certificate, key) = (text(server.path("operator.crt")), text(server.path("operator.key")));
        let log = std::fs::File::create(&said).unwrap();
        let mut command = script(server, "boats_operator.py");
        command.args([name, &server.host.ip, &certificate, &key]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Operator { child: command.spawn().unwrap(), said }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- an operator said\n{}\n----", self.said());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn an_operator_leads_works_and_hands_over() {
    let stage = stage();
    let server = &stage.server;
    let (certificate, key) = (server.path("operator.crt"), server.path("operator.key"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=operator", "-addext", &format!("subjectAltName=IP:{}", server.host.ip)])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .stderr(Stdio::null()));
    let first = Operator::start(server, "first");
    until("the first operator works", SOON, || first.said().ends_with("at work\n"));
    let second = Operator::start(server, "second");

    let boat = |name: &str, spec: &str| {
        format!("apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
    };
    let field = |name: &str, path: &str| {
        both(&server.kubectl_output(&["get", "boat", name, "-o", &format!("jsonpath={{{path}}}")]))
    };
    server.apply(&boat("one", "seats: 3"));
    until_is("the boat is afloat", SOON, "Afloat", || field("one", ".status.phase"));
    assert_eq!(field("one", ".spec.captain"), "kubernetes-admin", "given by the webhook");
    server.kubectl(&["get", "configmap", "crew-one"]);
    assert!(
        server
            .kubectl(&["get", "boats"])
            .lines()
            .any(|line| line.contains("kubernetes-admin") && line.contains("Afloat"))
    );

    let refused = |manifest: &str| {
        std::fs::write(server.path("refused.yaml"), manifest).unwrap();
        server.kubectl_fails(&["apply", "-f", server.path("refused.yaml").to_str().unwrap()])
    };
    let denied = refused(&boat("large", "seats: 11"));
    assert!(
        denied.contains("admission webhook \"validate.sea.example.com\" denied the request: no more than 10 seats")
    );
    assert!(refused(&boat("none", "seats: 0")).contains("a boat has seats"));
    assert!(refused(&boat("one", "seats: 2")).contains("a boat never shrinks"));

    drop(first);
    until("the second operator works", SOON, || second.said().ends_with("at work\n"));
    server.apply(&boat("two", "captain: ann"));
    until_is("its boat is afloat", SOON, "Afloat", || field("two", ".status.phase"));
    assert_eq!(field("two", ".spec.seats"), "2");

    server.kubectl(&["delete", "boat", "one", "--timeout=30s"]);
    until("the finalizer ran", SOON, || second.said().contains("harboured one\n"));
    until("the crew went with its boat", SOON, || !server.kubectl_output(&["get", "cm", "crew-one"]).status.success());
    server.kubectl(&["get", "configmap", "crew-two"]);
    server.kubectl(&["delete", "crd", "boats.sea.example.com", "--timeout=30s"]);
    until("all boats are harboured", SOON, || second.said().contains("harboured two\n"));
}
