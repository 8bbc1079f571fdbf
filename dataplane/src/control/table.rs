//! Views for people: a table that fits a terminal.

use serde_json::Value;

use super::View;

/// A column: its title, and its text in a row.
type Column = (&'static str, fn(&Value) -> String);

impl View {
    /// The table of an answer to this view.
    #[must_use]
    pub fn table(self, answer: &Value) -> String {
        let columns: &[Column] = match self {
            Self::Ports => &[
                ("PORT", |row| text(&row["name"])),
                ("BRIDGE", |row| text(&row["bridge"])),
                ("VLAN", |row| text(&row["vlan"])),
                ("RULES", rules),
                ("MACS", |row| format!("{} of {}", text(&row["macs"]), text(&row["macs_max"]))),
                ("MOVES", |row| text(&row["mac_moves"])),
                ("STATE", |row| text(&row["state"])),
                ("RING", |row| if is_nic(row) { link(row) } else { text(&row["ring"]) }),
                ("QUEUES", |row| {
                    if is_nic(row) {
                        format!(
                            "{} rx {} tx {}",
                            text(&row["rx_queues"]),
                            text(&row["tx_queues"]),
                            text(&row["steering"])
                        )
                    } else {
                        format!("{} of {}", text(&row["pairs_enabled"]), text(&row["pairs_offered"]))
                    }
                }),
                ("RECEIVED", |row| text(&row["receive_packets"])),
                ("SENT", |row| text(&row["transmit_packets"])),
                ("DROPPED", |row| drops(&[&row["dropped"]])),
                ("TROUBLE", trouble),
            ],
            Self::Queues => &[
                ("QUEUE", |row| text(&row["queue"])),
                ("CPU", |row| text(&row["cpu"])),
                ("RING", |row| text(&row["ring"])),
                ("SIZES", |row| format!("{}/{}", text(&row["size_receive"]), text(&row["size_transmit"]))),
                ("RECEIVED", |row| text(&row["receive_packets"])),
                ("SENT", |row| text(&row["transmit_packets"])),
                ("INTERRUPTS", |row| text(&row["interrupts"])),
                ("SUPPRESSED", |row| text(&row["interrupts_suppressed"])),
                ("DROPPED", |row| drops(&[&row["dropped_receive"], &row["dropped_transmit"]])),
                ("BROKEN", |row| text(&row["broken"])),
            ],
            Self::Macs => &[
                ("MAC", |row| text(&row["mac"])),
                ("VLAN", |row| text(&row["vlan"])),
                ("BRIDGE", |row| text(&row["bridge"])),
                ("PORT", |row| text(&row["port"])),
                ("AGE", |row| if row["static"] == true { "static".to_owned() } else { age(row) }),
            ],
            Self::Flows => &[
                ("FROM PORT", |row| text(&row["port"])),
                ("VLAN", |row| text(&row["vlan"])),
                ("SOURCE", |row| text(&row["source"])),
                ("DESTINATION", |row| text(&row["destination"])),
                ("OUTPUT", |row| text(&row["output"])),
                ("WORKER", |row| text(&row["worker"])),
                ("AGE", age),
            ],
            Self::Workers => &[
                ("WORKER", |row| text(&row["worker"])),
                ("CPU", |row| text(&row["cpu"])),
                ("NODE", |row| text(&row["numa_node"])),
                ("BUSY", |row| seconds(&row["busy_seconds"])),
                ("IDLE", |row| seconds(&row["idle_seconds"])),
                ("SLEEP", |row| seconds(&row["sleep_seconds"])),
                ("FLOWS", |row| text(&row["flows"])),
                ("QUEUES", |row| list(&row["queues"])),
                ("WHY", whys),
            ],
            Self::Rebalance => &[
                ("QUEUE", |row| text(&row["queue"])),
                ("FROM", |row| text(&row["from_worker"])),
                ("LOAD", |row| change(&row["load_from_before"], &row["load_from_after"])),
                ("TO", |row| text(&row["to_worker"])),
                ("LOAD", |row| change(&row["load_to_before"], &row["load_to_after"])),
                ("FOR", |row| text(&row["reason"])),
                ("GAIN", |row| percent(&row["gain"])),
                ("WHY", |row| text(&row["why"])),
            ],
        };
        let rows: Vec<Vec<String>> = answer
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| columns.iter().map(|(_, cell)| cell(row)).collect())
            .collect();
        let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        layout(&[vec![titles], rows].concat())
    }
}

fn is_nic(row: &Value) -> bool {
    row["kind"] == "nic"
}

/// A NIC's cable; of a bond also how many members carry frames, of how many.
fn link(row: &Value) -> String {
    let link = format!("link {}", text(&row["link"]));
    let Some(members) = row["bond"]["members"].as_array() else { return link };
    let active = members.iter().filter(|member| member["state"] == "active").count();
    format!("{link}, {} {active} of {} active", text(&row["bond"]["mode"]), members.len())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn age(row: &Value) -> String {
    format!("{} s", text(&row["age_seconds"]))
}

/// The rules of a port that not every port has, in short; `--json` has them in full.
fn rules(row: &Value) -> String {
    let words =
        [("allowed_macs", "macs"), ("allowed_ips", "ips"), ("limit_in", "limit_in"), ("limit_out", "limit_out")];
    let mut rules: Vec<_> = words.iter().filter(|(key, _)| !row[key].is_null()).map(|&(_, word)| word).collect();
    if row["isolated"] == true {
        rules.push("isolated");
    }
    if rules.is_empty() { "-".to_owned() } else { rules.join(" ") }
}

fn seconds(value: &Value) -> String {
    format!("{:.1} s", value.as_f64().unwrap_or(0.0))
}

fn percent(share: &Value) -> String {
    format!("{:.0} %", share.as_f64().unwrap_or(0.0) * 100.0)
}

fn change(before: &Value, after: &Value) -> String {
    format!("{} to {}", percent(before), percent(after))
}

fn list(value: &Value) -> String {
    let items: Vec<_> = value.as_array().into_iter().flatten().map(text).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(" ") }
}

/// Why queues are where they are: those together of which the same is to be said.
fn whys(row: &Value) -> String {
    let mut whys: Vec<(String, String)> = Vec::new();
    for placed in row["placement"].as_array().into_iter().flatten() {
        let (queue, why) = (text(&placed["queue"]), text(&placed["why"]));
        match whys.iter_mut().find(|(_, known)| *known == why) {
            Some((queues, _)) => *queues = format!("{queues} {queue}"),
            None => whys.push((queue, why)),
        }
    }
    let whys: Vec<_> = whys.iter().map(|(queues, why)| format!("{queues}: {why}")).collect();
    if whys.is_empty() { "-".to_owned() } else { whys.join(" | ") }
}

fn drops(maps: &[&Value]) -> String {
    let counts = maps.iter().filter_map(|map| map.as_object()).flatten();
    let counts: Vec<_> = counts.map(|(reason, count)| format!("{reason} {count}")).collect();
    if counts.is_empty() { "0".to_owned() } else { counts.join(", ") }
}

fn trouble(row: &Value) -> String {
    match list(&row["broken_queues"]).as_str() {
        "-" if row["last_error"].is_null() => unused(row),
        "-" => text(&row["last_error"]),
        broken => format!("broken {broken}"),
    }
}

/// What a guest does not use, and how it would.
fn unused(row: &Value) -> String {
    let idle = row["idle"].as_array().map_or(&[][..], Vec::as_slice);
    let vectors: Vec<u64> =
        idle.iter().flat_map(|pair| pair["msix_vectors"].as_array()).flatten().filter_map(Value::as_u64).collect();
    let (Some(first), Some(last)) = (vectors.first(), vectors.last()) else { return "-".to_owned() };
    let of = |key: &str| idle.iter().filter_map(|pair| pair[key].as_u64()).sum::<u64>();
    let kib = (of("ring_bytes") + of("receive_buffer_bytes")).div_ceil(1024);
    let which = if last - first + 1 == vectors.len() as u64 {
        format!("{first} to {last}")
    } else {
        vectors.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
    };
    format!("{}; idle: MSI-X vectors {which}, {kib} KiB of the guest's memory", text(&row["pairs"]))
}

/// Rows, the titles first, as lines whose columns line up.
#[must_use]
pub fn layout(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_in_short() {
        let row = json!({"allowed_macs": null, "allowed_ips": ["10.0.0.5"], "limit_in": null, "limit_out": {}, "isolated": true});
        assert_eq!(rules(&row), "ips limit_out isolated");
        assert_eq!(rules(&json!({"isolated": false})), "-");
    }

    #[test]
    fn what_is_the_same_of_several_queues_is_said_once() {
        let placed = |queue: &str, why: &str| json!({"queue": queue, "why": why});
        let row = json!({"placement": [placed("vm1/0", "a"), placed("vm2/0", "b"), placed("vm1/1", "a")]});
        assert_eq!(whys(&row), "vm1/0 vm1/1: a | vm2/0: b");
        assert_eq!(whys(&json!({"placement": []})), "-");
    }

    #[test]
    fn columns_line_up_and_nulls_are_dashes() {
        let answer = json!([
            {"mac": "52:54:00:00:00:01", "vlan": 0, "bridge": "br0", "port": "vm1", "static": false, "age_seconds": 3},
            {"mac": "52:54:00:00:00:02", "vlan": 4094, "bridge": "longer", "port": null, "static": true},
        ]);
        assert_eq!(
            View::Macs.table(&answer),
            "MAC                VLAN  BRIDGE  PORT  AGE\n\
             52:54:00:00:00:01  0     br0     vm1   3 s\n\
             52:54:00:00:00:02  4094  longer  -     static"
        );
    }
}
