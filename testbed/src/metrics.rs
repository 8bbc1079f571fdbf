//! One scrape of a Prometheus text page.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// A page that does not come within this time says that the switch hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One line of the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the metric, such as `ringway_dropped_packets_total`.
    pub name: String,
    /// Its labels, unquoted.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of one scrape, in the page's order.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Fetches `http://{address}/metrics`.
    ///
    /// # Errors
    /// When nobody answers in time, or not with a page of metrics.
    pub fn scrape(address: SocketAddr) -> Result<Self> {
        let page = get(address).with_context(|| format!("no metrics at {address}"))?;
        Self::parse(&page).with_context(|| format!("unreadable metrics at {address}"))
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The sum over the series of a metric that have all of these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// The series of a metric that have all of these labels.
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            let has = |&(key, value): &(&str, &str)| sample.labels.get(key).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        })
    }

    fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| sample(line).with_context(|| format!("no sample: {line}"))).collect::<Result<_>>().map(Self)
    }
}

/// `name{key="value",...} number`, labels optional.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, BTreeMap::new()),
        Some((name, inside)) => (name, labels(inside.strip_suffix('}')?)?),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let (value, rest) = unquote(rest)?;
        labels.insert(key.to_owned(), value);
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

/// Up to the closing quote, and what follows it. A backslash protects a quote, a backslash and, as `\n`, a newline.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

fn get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0 rules out chunks.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "{status}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP drops Frames.\n# TYPE drops counter\n\
        drops{port=\"vm1\",reason=\"full\"} 3\ndrops{port=\"vm2\",reason=\"full\"} 4\nup 1.5e3\n";

    #[test]
    fn sums_by_label() {
        let page = Metrics::parse(PAGE).unwrap();
        assert_eq!(page.sum("drops", &[]), 7.0);
        assert_eq!(page.sum("drops", &[("port", "vm2")]), 4.0);
        assert_eq!(page.sum("drops", &[("port", "vm2"), ("reason", "late")]), 0.0);
        assert_eq!(page.sum("up", &[]), 1500.0);
    }

    #[test]
    fn quoted_values_may_hold_anything() {
        let sample = sample(r#"info{path="a \"b\", {c}\\",x=""} 1"#).unwrap();
        assert_eq!(sample.labels["path"], r#"a "b", {c}\"#);
        assert_eq!(sample.labels["x"], "");
    }

    #[test]
    fn nonsense_is_refused() {
        for page in ["word", "name{ 1", "name{a=\"b} 1", "name x"] {
            Metrics::parse(page).unwrap_err();
        }
    }
}
