//! No text, however broken, does more than earn one line.

use std::path::Path;

use proptest::prelude::*;
use ringway_config::parse;

/// Pieces that make a file, and pieces that unmake it.
fn piece() -> impl Strategy<Value = String> {
    let whole = r#"[[port]] [[bridge]] [workers] [port] [[workers]] "vhost-user" "nic" "br0" "/s/a" "client" "allowed" "net_tap0" "0000:03:00.0" ["mq"] [0,1] 300"#;
    let whole = whole.split(' ').map(|piece| format!("{piece}\n"));
    let keys = "nic device queues name kind bridge socket mode mtu mask_features cpus flow_table_entries metrics control_socket mac_ageing_seconds port workers";
    let keys = keys.split(' ').map(|key| format!("{key} = "));
    #[rustfmt::skip]
    let stray = [
        "[", "]", "{", "}", ",", "'", "\"", "\"\"\"", "#", ".", "=", "-1", "0.5", "1979-05-27", "true", "\"a\\nb\"",
        "\\u0000", "\n", "\r", "\r\n", "\u{2028}", "\u{feff}", "é",
    ];
    let stray = stray.into_iter().map(str::to_owned);
    let known: Vec<String> = whole.chain(keys).chain(stray).collect();
    prop_oneof![
        8 => prop::sample::select(known),
        1 => any::<String>(),
    ]
}

fn refusal_is_one_line(text: &str, directory_exists: bool) -> Result<(), TestCaseError> {
    let Err(error) = parse(text, Path::new("switch.toml"), |_| directory_exists) else {
        return Ok(());
    };
    let shown = error.to_string();
    prop_assert!(!shown.contains(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}'), "{shown:?}");
    let line = error.line();
    prop_assert!(line.is_some_and(|line| (1..=text.lines().count().max(1)).contains(&line)), "{line:?}");
    prop_assert!(shown.contains("; "), "no mend: {shown}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_string(text: String) {
        refusal_is_one_line(&text, true)?;
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..40), directory_exists: bool) {
        refusal_is_one_line(&pieces.concat(), directory_exists)?;
    }

    /// A good file with one stretch of it replaced.
    #[test]
    fn any_slip(cut in any::<prop::sample::Index>(), length in 0usize..20, put in piece(), directory_exists: bool) {
        let good: Vec<char> = include_str!("../examples/two-guests.toml").chars().collect();
        let start = cut.index(good.len());
        let end = (start + length).min(good.len());
        let keep = |range: &[char]| range.iter().collect::<String>();
        let text = keep(&good[..start]) + &put + &keep(&good[end..]);
        refusal_is_one_line(&text, directory_exists)?;
    }
}
