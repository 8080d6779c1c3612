//! What was measured, as lines on the screen and as a table in RESULTS.md.

use std::fmt::Write;
use std::process::Command;

use crate::server::executable;

/// Several runs of one measure.
pub struct Samples(Vec<f64>);

/// What a value is compared with.
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

pub struct Row {
    what: String,
    unit: &'static str,
    samples: Samples,
    target: Target,
    /// The same by upstream's kube-apiserver and etcd, on two cores.
    upstream: Option<f64>,
}

pub struct Report {
    rows: Vec<Row>,
    /// Processes that wanted to run when the bench began, on average of the minute before.
    load: String,
}

impl Samples {
    pub fn new(mut values: Vec<f64>) -> Samples {
        values.sort_by(f64::total_cmp);
        Samples(values)
    }

    pub fn one(value: f64) -> Samples {
        Samples(vec![value])
    }

    /// The value that this share of all is not above.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let at = |index: usize| self.0.get(index).copied().unwrap_or(f64::NAN);
        if self.0.len().is_multiple_of(2) { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 } else { at(middle) }
    }
}

impl Report {
    pub fn new() -> Report {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Report { rows: Vec::new(), load: load.split(' ').next().unwrap_or_default().to_owned() }
    }

    pub fn row(&mut self, what: &str, unit: &'static str, samples: Samples, target: Target) {
        self.push(Row { what: what.to_owned(), unit, samples, target, upstream: None });
    }

    /// A row with upstream's figure beside it.
    pub fn beside(&mut self, what: &str, unit: &'static str, samples: Samples, upstream: f64, target: Target) {
        self.push(Row { what: what.to_owned(), unit, samples, target, upstream: Some(upstream) });
    }

    fn push(&mut self, row: Row) {
        println!("{}", row.cells().join(" | "));
        self.rows.push(row);
    }

    /// RESULTS.md.
    pub fn text(&self) -> String {
        let mut text = format!(
            "# What was measured\n\n{}, commit {}, {}.\n\nAs root on Debian: `cargo bench -p cluster --bench cluster`, or with an \
             executable that is there already, `CLUSTER_BINARY=./cluster cargo bench -p cluster --bench cluster`; `-- NAME` \
             runs only the measures whose names contain NAME and leaves this file as it is. Client and server share the \
             machine, and so does whatever else runs there: compare medians of the same day. \"Upstream\" is kube-apiserver \
             1.36 with etcd 3.6 on two cores.\n\n\
             | measure | median | min–max (runs) | target | upstream | ours to upstream's |\n|---|---|---|---|---|---|\n",
            said(Command::new("date").arg("+%Y-%m-%d")),
            said(Command::new("git").args(["rev-parse", "--short", "HEAD"])),
            machine(&self.load),
        );
        for row in &self.rows {
            writeln!(text, "| {} |", row.cells().join(" | ")).ok();
        }
        text
    }
}

impl Row {
    fn cells(&self) -> [String; 6] {
        let (median, unit) = (self.samples.median(), self.unit);
        let range = match self.samples.0.as_slice() {
            [first, .., last] => format!("{}–{} ({})", figure(*first), figure(*last), self.samples.0.len()),
            _ => "1 run".to_owned(),
        };
        let verdict = |met: bool| if met { "met" } else { "**missed**" };
        let target = match self.target {
            Target::AtMost(most) => format!("≤ {} {unit}: {}", figure(most), verdict(median <= most)),
            Target::AtLeast(least) => format!("≥ {} {unit}: {}", figure(least), verdict(median >= least)),
            Target::None => String::new(),
        };
        let upstream = self.upstream.map(|theirs| format!("{} {unit}", figure(theirs))).unwrap_or_default();
        let ratio = self.upstream.map(|theirs| format!("{} ×", figure(median / theirs))).unwrap_or_default();
        [self.what.clone(), format!("{} {unit}", figure(median)), range, target, upstream, ratio]
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn machine(load: &str) -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    format!(
        "{} cores ({}), Linux {}, data on {}; load before: {}; executable {}",
        said(&mut Command::new("nproc")),
        model.trim_start_matches(['\t', ' ', ':']),
        said(Command::new("uname").arg("-r")),
        said(Command::new("findmnt").args(["-n", "-o", "FSTYPE", "--target"]).arg(std::env::temp_dir())),
        load,
        said(Command::new(executable()).arg("--version")),
    )
}

fn said(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
