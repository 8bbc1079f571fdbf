//! Builds metric families of the `prometheus` crate.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Metric families under construction.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

/// One family under construction.
pub(super) struct Family<'a> {
    families: &'a mut Vec<MetricFamily>,
    family: MetricFamily,
    metrics: Vec<Metric>,
}

impl Families {
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, MetricType::GAUGE)
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(format!("ringway_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Family { families: &mut self.0, family, metrics: Vec::new() }
    }

    pub(super) fn done(self) -> Vec<MetricFamily> {
        self.0
    }
}

impl Family<'_> {
    /// Adds a series.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let label = |&(name, value): &(&str, &str)| {
            let mut label = LabelPair::default();
            label.set_name(name.to_owned());
            label.set_value(value.to_owned());
            label
        };
        let mut metric = Metric::from_label(labels.iter().map(label).collect());
        if self.family.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        // A family without a series is no family.
        if !self.metrics.is_empty() {
            self.family.set_metric(std::mem::take(&mut self.metrics));
            self.families.push(std::mem::take(&mut self.family));
        }
    }
}
