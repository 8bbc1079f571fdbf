//! The TOML file.

use std::path::Path;

use super::{Input, InputError};

impl Input {
    /// Reads the text of a TOML file; `file` is only the name that errors carry.
    ///
    /// # Errors
    /// The first thing that is not TOML, not a known key, or not of its type, with its line.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, InputError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            InputError::at_line(file, line_at(text, at), advice(error.message()))
        })
    }
}

/// The line, from 1, that holds byte `at`; the end of the text belongs to the last line that has any.
fn line_at(text: &str, at: usize) -> usize {
    let text = text.strip_suffix('\n').unwrap_or(text).as_bytes();
    1 + text[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

/// The reader's sentence with what to do about it.
fn advice(message: &str) -> String {
    if let Some((key, known)) = parts(message, "unknown field `", "`, expected ") {
        return format!("unknown key `{key}`; use {known}, or remove it");
    }
    if let Some((found, wanted)) = parts(message, "invalid type: ", ", expected ") {
        let wanted = match wanted {
            "a string" | "path string" => "text in double quotes",
            "i64" => "a whole number without quotes",
            "a boolean" => "true or false without quotes",
            "a sequence" => "a list: `[...]` for values, `[[nic]]` for tables",
            other if other.starts_with("struct ") => "a table",
            other => other,
        };
        return format!("this is {found}; write {wanted}");
    }
    match message {
        "duplicate key" => "this key or table is here for the second time; remove it, or write `[[nic]]`".to_owned(),
        other => format!("not what it should be: {}; see docs/openstack.md for the keys", other.replace('\n', " ")),
    }
}

fn parts<'m>(message: &'m str, start: &str, middle: &str) -> Option<(&'m str, &'m str)> {
    message.strip_prefix(start)?.rsplit_once(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Input::from_toml(text, Path::new("p.toml")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_one_line_with_its_place() {
        assert_eq!(
            refusal("[guest]\nname = \"a\"\n[[nic]]\nname = \"n\"\nqueue = 4\n"),
            "p.toml:5: unknown key `queue`; use one of `name`, `bridge`, `socket`, `mode`, `mac`, `mtu`, `queues`, \
             `throughput`, `mask_features`, or remove it"
        );
        assert_eq!(
            refusal("[guest]\nvcpus = \"4\"\n"),
            "p.toml:2: this is string \"4\"; write a whole number without quotes"
        );
        assert!(refusal("[guest]\nvcpus = 4\nvcpus = 5\n").starts_with("p.toml:3: this key or table"));
        assert!(refusal("nic = 3\n").contains("[[nic]]"));
        assert!(refusal("guest = [1]\n").contains("write a table") || refusal("guest = [1]\n").contains("p.toml:1"));
        for text in ["[", "a\u{7f}b", "[guest]\nvcpus = 99999999999999999999\n"] {
            assert_eq!(refusal(text).lines().count(), 1, "{text:?}");
        }
    }

    #[test]
    fn properties_are_read_as_the_client_prints_them() {
        let text = "[flavor]\nproperties = \"hw:vif_multiqueue_enabled='true', hw:mem_page_size='2MB'\"\n";
        let input = Input::from_toml(text, Path::new("p")).unwrap();
        let properties = &input.flavor.unwrap().properties;
        assert_eq!(properties.get("hw:mem_page_size"), Some("2MB"));
        let text = "[image.properties]\nhw_vif_multiqueue_enabled = true\nhw_numa_nodes = 2\n";
        let input = Input::from_toml(text, Path::new("p")).unwrap();
        let properties = &input.image.unwrap().properties;
        assert_eq!(properties.get("hw_vif_multiqueue_enabled"), Some("true"));
        assert_eq!(properties.get("hw_numa_nodes"), Some("2"));
    }
}
