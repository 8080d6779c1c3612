//! What is made for etcd works with the store: etcdctl as Debian has it.

use std::process::{Command, Stdio};

use super::SOON;
use crate::support::cluster::Node;
use crate::support::hosts::Lan;
use crate::support::{both, run, until};

struct Etcd<'a>(&'a Node);

impl Etcd<'_> {
    fn anonymous(&self, args: &[&str]) -> Command {
        let mut command = self.0.host.command("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints=https://127.0.0.1:2379", "--command-timeout=10s"]);
        command.arg("--cacert").arg(self.0.path("data/server/tls/etcd-ca.crt")).args(args);
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.anonymous(args);
        command.arg("--cert").arg(self.0.path("data/server/tls/etcd-client.crt"));
        command.arg("--key").arg(self.0.path("data/server/tls/etcd-client.key"));
        command
    }

    /// What it prints, without the last line's end.
    #[track_caller]
    fn ctl(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).trim_end().to_owned()
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "{}", both(&output));
        both(&output)
    }
}

#[test]
fn etcdctl_works_unchanged() {
    let lan = Lan::new();
    let server = Node::server(&lan.host("one", 1)).start();
    let etcd = Etcd(&server);
    until("the certificate is there", SOON, || server.path("data/server/tls/etcd-client.crt").exists());
    // It says so where errors are said.
    assert!(both(&etcd.command(&["endpoint", "health"]).output().unwrap()).contains("is healthy"));
    assert!(etcd.ctl(&["endpoint", "status"]).contains(", true, false, "), "it leads and is no learner");
    assert!(etcd.ctl(&["member", "list"]).contains(", started, one, "));
    assert!(etcd.ctl(&["endpoint", "hashkv"]).starts_with("https://127.0.0.1:2379, "));

    // What Kubernetes stores is there, and what is changed there is seen in Kubernetes.
    server.kubectl(&["create", "configmap", "seen", "--from-literal=by=etcd"]);
    assert!(etcd.ctl(&["get", "/registry/configmaps/default/seen", "--print-value-only"]).contains("\"by\":\"etcd\""));
    assert_eq!(etcd.ctl(&["del", "/registry/configmaps/default/seen"]), "1");
    until("it is gone", SOON, || !server.kubectl(&["get", "configmaps", "-o", "name"]).contains("/seen"));

    let watched = server.path("watched");
    let mut watch = etcd.command(&["watch", "a", "--prefix", "--prev-kv"]);
    let file = std::fs::File::create(&watched).unwrap();
    let mut watch = watch.stdin(Stdio::null()).stdout(file).spawn().unwrap();
    let revision =
        |text: &str| -> u64 { text.split("\"revision\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap() };
    until("the watch sees changes", SOON, || {
        etcd.ctl(&["put", "a0", "begin"]);
        std::fs::read_to_string(&watched).unwrap().contains("begin")
    });
    let first = revision(&etcd.ctl(&["put", "a1", "one", "-w", "json"]));
    assert_eq!(etcd.ctl(&["put", "a1", "two", "--prev-kv"]), "OK\na1\none");
    assert_eq!(etcd.ctl(&["get", "a1", "--rev", &first.to_string()]), "a1\none");
    assert_eq!(etcd.ctl(&["get", "a", "--prefix", "--keys-only", "--order=DESCEND"]), "a1\n\na0");
    assert_eq!(etcd.ctl(&["del", "a1"]), "1");
    let end = "PUT\na1\none\na1\ntwo\nDELETE\na1\ntwo\na1\n\n";
    until("the watch has seen all", SOON, || std::fs::read_to_string(&watched).unwrap().ends_with(end));
    watch.kill().unwrap();
    watch.wait().unwrap();

    let txn = server.path("txn");
    std::fs::write(&txn, "mod(\"b\") = \"0\"\n\nput b made\n\nget b\n\n").unwrap();
    let transact = || run(etcd.command(&["txn"]).stdin(std::fs::File::open(&txn).unwrap()));
    assert_eq!(transact(), "SUCCESS\n\nOK\n");
    assert_eq!(transact(), "FAILURE\n\nb\nmade\n");

    let granted = etcd.ctl(&["lease", "grant", "2"]);
    let lease = granted.split(' ').nth(1).unwrap();
    etcd.ctl(&["put", "leased", "x", "--lease", lease]);
    assert!(etcd.ctl(&["lease", "timetolive", lease, "--keys"]).contains("attached keys([leased])"));
    assert!(etcd.ctl(&["lease", "keep-alive", "--once", lease]).contains("keepalived with TTL(2)"));
    until("the lease has ended", SOON, || etcd.ctl(&["get", "leased"]).is_empty());

    etcd.ctl(&["compact", &first.to_string()]);
    assert!(etcd.fails(&["get", "a1", "--rev", "2"]).contains("required revision has been compacted"));
    assert!(etcd.fails(&["get", "a1", "--rev", "9999999"]).contains("required revision is a future revision"));
    assert!(etcd.fails(&["put", "", "x"]).contains("key is not provided"));
    assert!(etcd.fails(&["lease", "revoke", "123"]).contains("requested lease not found"));
    let stranger = etcd.anonymous(&["--dial-timeout=1s", "--command-timeout=2s", "get", "a0"]).output().unwrap();
    assert!(!stranger.status.success(), "nobody gets in without a certificate");
}
