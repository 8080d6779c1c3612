//! Prometheus' text form, version 0.0.4, and OpenMetrics 1.0.

use std::fmt::Write;

use super::Histogram;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Figures on their way into one of the forms. Writing to a string does not fail.
pub struct Text {
    out: String,
    open_metrics: bool,
    /// What OpenMetrics wants behind the names of a counter's samples, where the family's name lacks it.
    suffix: &'static str,
}

impl Text {
    pub fn new(open_metrics: bool) -> Text {
        Text { out: String::with_capacity(64 * 1024), open_metrics, suffix: "" }
    }

    pub fn content_type(&self) -> &'static str {
        if self.open_metrics {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        }
    }

    /// Begins a family. Its samples follow before another begins.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let strict = self.open_metrics && kind == Kind::Counter;
        self.suffix = if strict && !name.ends_with("_total") { "_total" } else { "" };
        let name = if strict { name.strip_suffix("_total").unwrap_or(name) } else { name };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.name(name, labels, None);
        let _ = writeln!(self.out, " {value}");
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulated() {
            self.name(&bucket, labels, Some(&bound.to_string()));
            let _ = writeln!(self.out, " {count}");
        }
        let all = histogram.count();
        self.name(&bucket, labels, Some("+Inf"));
        let _ = writeln!(self.out, " {all}");
        self.sample(&format!("{name}_sum"), labels, histogram.sum());
        self.sample(&format!("{name}_count"), labels, all);
    }

    pub fn finish(mut self) -> String {
        if self.open_metrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn name(&mut self, name: &str, labels: &[(&str, &str)], bound: Option<&str>) {
        self.out.push_str(name);
        self.out.push_str(self.suffix);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut first = true;
        for (label, value) in all {
            self.out.push(if first { '{' } else { ',' });
            first = false;
            self.out.push_str(label);
            self.out.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    character => self.out.push(character),
                }
            }
            self.out.push('"');
        }
        if !first {
            self.out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Buckets;

    static TENS: Buckets = Buckets { bounds: &[500, 1000], per_unit: 1000.0 };

    #[test]
    fn both_forms_are_written() {
        let histogram = Histogram::new(&TENS);
        [100, 500, 700, 5000].into_iter().for_each(|value| histogram.observe(value));
        let write = |open_metrics| {
            let mut text = Text::new(open_metrics);
            text.family("a_total", Kind::Counter, "Help.");
            text.sample("a_total", &[("x", "say \"a\\b\"\n")], 3);
            text.family("h", Kind::Histogram, "Sizes.");
            text.histogram("h", &[("k", "v")], &histogram);
            text.finish()
        };
        let samples = "h_bucket{k=\"v\",le=\"0.5\"} 2\nh_bucket{k=\"v\",le=\"1\"} 3\nh_bucket{k=\"v\",le=\"+Inf\"} 4\n\
                       h_sum{k=\"v\"} 6.3\nh_count{k=\"v\"} 4\n";
        let head = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"say \\\"a\\\\b\\\"\\n\"} 3\n\
                    # HELP h Sizes.\n# TYPE h histogram\n";
        assert_eq!(write(false), format!("{head}{samples}"));
        let head = head.replace("HELP a_total", "HELP a").replace("TYPE a_total", "TYPE a");
        assert_eq!(write(true), format!("{head}{samples}# EOF\n"));
    }

    #[test]
    fn open_metrics_has_counters_end_in_total() {
        let mut text = Text::new(true);
        text.single("attempts", Kind::Counter, "Help.", 1);
        text.single("size", Kind::Gauge, "Help.", 2);
        let expected = "# HELP attempts Help.\n# TYPE attempts counter\nattempts_total 1\n\
                        # HELP size Help.\n# TYPE size gauge\nsize 2\n# EOF\n";
        assert_eq!(text.finish(), expected);
    }
}
