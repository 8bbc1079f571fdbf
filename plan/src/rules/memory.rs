//! The guest's memory: without memory that the switch can map, a vhost-user NIC appears and stays dead.

use std::path::PathBuf;

use super::pages::HUGE_KIB;
use super::{Findings, Rule, guest, numa, pages, properties};
use crate::Host;
use crate::input::Input;
use crate::made::{Backing, Memory};

const SMALL_KIB: u64 = 4;
const MEMORY_MIB_MAX: i64 = 64 << 20;
const DEAD: &str = "the NIC would appear and stay dead";
const MEND: &str = "openstack flavor set --property hw:mem_page_size=large FLAVOR";

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    Small,
    Large,
    Any,
    Kib(u64),
}

pub(crate) fn of(input: &Input, host: &Host, vcpus: Option<u32>, found: &mut Findings) -> Option<Memory> {
    let kib = memory_kib(input, found);
    let asked = asked(input, found);
    let files = input.libvirt.file_backed_memory.unwrap_or(0);
    if files < 0 {
        let what = format!("{files} MiB is no amount of memory");
        found.refuse(Rule::Guest, "[libvirt] file_backed_memory", what, "use 0 for off, or the MiB for all guests");
    }
    let backing = match (asked, files > 0) {
        (Err(Told), _) => None,
        (Ok(Some(_)), true) => {
            let mend = "unset hw:mem_page_size, or set file_backed_memory = 0";
            found.refuse(Rule::MemoryPagesUnsupported, "hw:mem_page_size", "the host backs memory by files", mend);
            None
        }
        (Ok(Some(pages)), false) => huge_pages(pages, input, found).map(Behind::Pages),
        (Ok(None), true) => files_in_memory(input, host, found).map(Behind::Other),
        (Ok(None), false) if input.is_novas() => {
            found.refuse(Rule::SharedMemory, "hw:mem_page_size", format!("not set: {DEAD}"), MEND);
            None
        }
        (Ok(None), false) => Some(Behind::Other(Backing::Memfd)),
    };
    let in_pages = matches!(backing, Some(Behind::Pages(_)));
    let cells = numa::cells(input, vcpus, kib, in_pages, found);
    let (kib, backing, cells) = (kib?, backing?, cells?);
    let backing = match backing {
        Behind::Pages(said) => {
            let size_kib = said.unwrap_or_else(|| pages::large(&cells, host));
            pages::check(&cells, size_kib, input.is_novas(), host, found);
            Backing::HugePages { size_kib }
        }
        Behind::Other(backing) => backing,
    };
    Some(Memory { kib, backing, cells })
}

/// What is behind the memory, before anybody has looked at the host's pages.
enum Behind {
    /// Huge pages of so many KiB, or of any size that is large.
    Pages(Option<u64>),
    Other(Backing),
}

fn memory_kib(input: &Input, found: &mut Findings) -> Option<u64> {
    let flavor = input.flavor.as_ref().and_then(|flavor| flavor.ram);
    let own = input.guest.memory_mib;
    if let (Some(flavor), Some(own)) = (flavor, own)
        && flavor != own
    {
        let what = format!("{own} MiB, and the flavor has {flavor}");
        found.refuse(Rule::Twice, "memory_mib", what, "say it once: leave out memory_mib of the guest");
    }
    let Some(mib) = flavor.or(own) else {
        found.refuse(Rule::Guest, "memory_mib", "not said", "add --memory MIB, or a flavor");
        return None;
    };
    found.within(Rule::Guest, "memory_mib", mib, (1, MEMORY_MIB_MAX)).map(|mib| u64::from(mib) * 1024)
}

/// What was asked for cannot be, and that was told.
struct Told;

/// What pages are asked for: nova's `_get_numa_pagesize_constraint`, or the plan's own key.
fn asked(input: &Input, found: &mut Findings) -> Result<Option<Pages>, Told> {
    if let Some(kib) = input.guest.page_size_kib {
        if input.is_novas() {
            let mend = "use hw:mem_page_size for a guest of nova's";
            found.refuse(Rule::Twice, "page_size_kib", "the guest has a flavor or an image", mend);
            return Err(Told);
        }
        return match u64::try_from(kib) {
            Ok(kib @ 1..) => Ok(Some(Pages::Kib(kib))),
            _ => {
                let mend = "write 2048 or 1048576";
                found.refuse(Rule::PageSizeInvalid, "page_size_kib", format!("{kib} is no size"), mend);
                Err(Told)
            }
        };
    }
    let (flavor, image) = properties::texts(input, "mem_page_size");
    let Some(flavor) = flavor else {
        if image.is_some() {
            let what = "the image chooses a page size and the flavor says nothing";
            found.refuse(Rule::PageSizeForbidden, "hw_mem_page_size", what, MEND);
            return Err(Told);
        }
        return Ok(None);
    };
    let asked = size("hw:mem_page_size", flavor, found)?;
    match image {
        None => Ok(Some(asked)),
        Some(image) if matches!(asked, Pages::Any | Pages::Large) => size("hw_mem_page_size", image, found).map(Some),
        Some(image) => {
            let what = format!("the image chooses {image} and the flavor insists on {flavor}");
            let mend = "remove it from the image, or write large in the flavor";
            found.refuse(Rule::PageSizeForbidden, "hw_mem_page_size", what, mend);
            Err(Told)
        }
    }
}

fn size(about: &str, text: &str, found: &mut Findings) -> Result<Pages, Told> {
    match text {
        "small" => return Ok(Pages::Small),
        "large" => return Ok(Pages::Large),
        "any" => return Ok(Pages::Any),
        _ => {}
    }
    kib(text).filter(|&kib| kib > 0).map(Pages::Kib).ok_or_else(|| {
        let mend = "write large, 2MB or 1GB";
        found.refuse(Rule::PageSizeInvalid, about, format!("`{text}` is no page size"), mend);
        Told
    })
}

/// A number alone is KiB; with a unit it is that, as oslo.utils reads it: `2MB` and `2MiB` are the same to it. Its bits are
/// nobody's page size.
fn kib(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = &text[digits..];
    if unit.is_empty() {
        return Some(number);
    }
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let factor = match unit.strip_suffix('i').unwrap_or(unit) {
        "k" | "K" => 1,
        "m" | "M" => 1024,
        "g" | "G" => 1024 * 1024,
        "t" | "T" => 1024 * 1024 * 1024,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Their size in KiB; inner None for any that is large.
fn huge_pages(pages: Pages, input: &Input, found: &mut Findings) -> Option<Option<u64>> {
    let (about, mend) =
        if input.is_novas() { ("hw:mem_page_size", MEND) } else { ("page_size_kib", "write 2048, or leave it out") };
    match pages {
        Pages::Small | Pages::Kib(SMALL_KIB) => {
            found.refuse(Rule::SharedMemory, about, format!("small pages: {DEAD}"), mend);
            None
        }
        Pages::Any => {
            let what = format!("any may end in small pages, and then {DEAD}");
            found.refuse(Rule::SharedMemory, about, what, mend);
            None
        }
        Pages::Large => Some(None),
        Pages::Kib(kib) if HUGE_KIB.contains(&kib) => Some(Some(kib)),
        Pages::Kib(kib) => {
            let what = format!("x86-64 has no pages of {kib} KiB");
            found.refuse(Rule::PageSizeInvalid, about, what, "write 2MB (2048) or 1GB (1048576)");
            None
        }
    }
}

fn files_in_memory(input: &Input, host: &Host, found: &mut Findings) -> Option<Backing> {
    let about = "qemu.conf memory_backing_dir";
    let dir = input.qemu.memory_backing_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/libvirt/qemu/ram"));
    if !guest::path(about, &dir, found) {
        return None;
    }
    let mend = "set memory_backing_dir = \"/dev/shm\" in qemu.conf, or use huge pages";
    match host.file_system(&dir) {
        Some("tmpfs" | "hugetlbfs" | "ramfs") => Some(Backing::Files { dir }),
        Some(other) => {
            let what = format!("{} is on {other}: the switch would refuse the memory", dir.display());
            found.refuse(Rule::FilesInMemory, about, what, mend);
            None
        }
        None => {
            let text =
                format!("{} has to be on tmpfs or hugetlbfs, or the switch refuses the memory; {mend}", dir.display());
            found.warn(about, text);
            Some(Backing::Files { dir })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_nova_does() {
        for (text, wanted) in [
            ("2048", Some(2048)),
            ("2MB", Some(2048)),
            ("2M", Some(2048)),
            ("2MiB", Some(2048)),
            ("1GB", Some(1024 * 1024)),
            ("4kB", Some(4)),
            ("large pages", None),
            ("", None),
            ("B", None),
            ("2Mbit", None),
            ("-2048", None),
            ("99999999999999TB", None),
            ("é", None),
        ] {
            assert_eq!(kib(text), wanted, "{text}");
        }
    }
}
