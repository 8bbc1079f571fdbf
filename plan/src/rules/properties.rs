//! Names and values of properties, before anybody asks what they mean.

use super::{Findings, Rule, known};
use crate::input::{Input, boolean};

/// Properties that a plan takes as booleans, without their prefixes.
const BOOLEANS: [&str; 3] = ["vif_multiqueue_enabled", "virtio_packed_ring", "mem_encryption"];

pub(crate) fn check(input: &Input, found: &mut Findings) {
    if let Some(flavor) = &input.flavor {
        for (key, value) in flavor.properties.iter() {
            flavor_property(key, value, found);
        }
    }
    if let Some(image) = &input.image {
        for (key, value) in image.properties.iter() {
            image_property(key, value, found);
        }
    }
}

/// A name that nova does not know is refused where it looks like one that makes or breaks the NICs: it would be ignored, and
/// something else boot. Other names are somebody else's business.
fn flavor_property(key: &str, value: &str, found: &mut Findings) {
    if let Some(name) = key.strip_prefix("hw:") {
        if known::in_flavor(name) {
            a_boolean(key, name, value, found);
        } else if let Some(near) = known::misspelt(name) {
            found.refuse(
                Rule::UnknownExtraSpec,
                key,
                "no extra spec of nova's",
                format!("write hw:{near}, or remove it"),
            );
        } else {
            found.warn(
                key,
                "no extra spec that this plan knows of: nova refuses it from API 2.86 on, and ignores it before",
            );
        }
    } else if let Some(name) = key.strip_prefix("hw_").filter(|name| known::is_ours(name)) {
        found.refuse(Rule::Spelling, key, "an image's spelling in a flavor", format!("write hw:{name}"));
    }
}

fn image_property(key: &str, value: &str, found: &mut Findings) {
    if let Some(name) = key.strip_prefix("hw_") {
        if known::in_image(name) {
            a_boolean(key, name, value, found);
        } else if let Some(near) = known::misspelt(name) {
            let mend = format!("write hw_{near}, or remove it");
            found.refuse(Rule::UnknownImageProperty, key, "no image property of nova's", mend);
        } else {
            found.warn(key, "no image property that this plan knows of: nova ignores it, something else may read it");
        }
    } else if let Some(name) = key.strip_prefix("hw:").filter(|name| known::is_ours(name)) {
        found.refuse(Rule::Spelling, key, "a flavor's spelling in an image", format!("write hw_{name}"));
    }
}

fn a_boolean(key: &str, name: &str, value: &str, found: &mut Findings) {
    if BOOLEANS.contains(&name) && boolean(value).is_none() {
        found.refuse(Rule::Boolean, key, format!("`{value}` is neither true nor false"), "write true or false");
    }
}

/// What flavor and image say of a boolean, and what holds when one of them, or neither, says anything: nova's own rule for
/// both properties that concern us.
pub(crate) fn agreed(input: &Input, name: &str, found: &mut Findings) -> (Option<bool>, bool) {
    let (flavor, image) = said(input, name);
    if let (Some(flavor), Some(image)) = (flavor, image)
        && flavor != image
    {
        let mend = format!("make them equal, or unset one: openstack flavor unset --property hw:{name} FLAVOR");
        let what = format!("the flavor says {flavor} and the image (hw_{name}) says {image}");
        found.refuse(Rule::FlavorImageConflict, &format!("hw:{name}"), what, mend);
    }
    (flavor.or(image), flavor.or(image).unwrap_or(false))
}

fn said(input: &Input, name: &str) -> (Option<bool>, Option<bool>) {
    let flavor = input.flavor.as_ref().and_then(|flavor| flavor.properties.get(&format!("hw:{name}")));
    let image = input.image.as_ref().and_then(|image| image.properties.get(&format!("hw_{name}")));
    (flavor.and_then(boolean), image.and_then(boolean))
}

/// The text of a property, from flavor and from image.
pub(crate) fn texts<'a>(input: &'a Input, name: &str) -> (Option<&'a str>, Option<&'a str>) {
    let flavor = input.flavor.as_ref().and_then(|flavor| flavor.properties.get(&format!("hw:{name}")));
    let image = input.image.as_ref().and_then(|image| image.properties.get(&format!("hw_{name}")));
    (flavor, image)
}
