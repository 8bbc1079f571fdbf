//! Properties of flavors and images.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Properties by their names. Read from a table whose values are text, booleans or numbers, or from the one text that older
/// clients print: `a='1', b='2'`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The value under a name.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets one; an earlier value is lost.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Reads `a='1', b='2'`, in which a value may itself hold commas and equals signs.
    ///
    /// # Errors
    /// What stands where a `name='value'` should.
    fn from_text(text: &str) -> Result<Self, String> {
        let mut properties = Self::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let wrong = || format!("`{rest}` does not begin with name='value'");
            let (key, value) = rest.split_once('=').ok_or_else(wrong)?;
            let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or_else(wrong)?;
            let value = &value[1..];
            // A value ends at the quote that a comma, or the end, follows: cliff escapes nothing.
            let ends = value.match_indices(quote).map(|(at, _)| at);
            let end = ends.into_iter().find(|&at| {
                let after = value[at + 1..].trim_start();
                after.is_empty() || after.starts_with(',')
            });
            let end = end.ok_or_else(wrong)?;
            properties.set(key.trim(), &value[..end]);
            rest = value[end + 1..].trim_start().trim_start_matches(',').trim_start();
        }
        Ok(properties)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Properties;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of properties, or text like a='1', b='2'")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Properties, E> {
                Properties::from_text(text).map_err(E::custom)
            }

            /// What is not there, or not shown to whoever asked.
            fn visit_unit<E: Error>(self) -> Result<Properties, E> {
                Ok(Properties::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut properties = Properties::default();
                while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
                    match value {
                        serde_json::Value::String(text) => properties.set(&key, &text),
                        serde_json::Value::Null => {}
                        // What glance keeps beside them (locations, stores) is no property of the guest.
                        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {}
                        plain => properties.set(&key, &plain.to_string()),
                    }
                }
                Ok(properties)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What oslo.utils reads as a boolean, as nova does; None for anything else, which its strict form refuses.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_older_clients_is_read() {
        let all = |text| {
            let properties = Properties::from_text(text)?;
            Ok::<_, String>(properties.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>())
        };
        assert_eq!(all("").unwrap(), Vec::<String>::new());
        assert_eq!(all("a='1', b='2'").unwrap(), ["a=1", "b=2"]);
        assert_eq!(all("hw:numa_cpus.0='0,1', x=\"it's\"").unwrap(), ["hw:numa_cpus.0=0,1", "x=it's"]);
        assert_eq!(all("cmd='a=b, c', d=''").unwrap(), ["cmd=a=b, c", "d="]);
        for wrong in ["a", "a=", "a=1", "a='1"] {
            assert!(all(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn booleans_are_those_of_oslo() {
        assert_eq!(boolean(" Yes "), Some(true));
        assert_eq!(boolean("1"), Some(true));
        assert_eq!(boolean("OFF"), Some(false));
        assert_eq!(boolean("enabled"), None);
        assert_eq!(boolean(""), None);
    }
}
