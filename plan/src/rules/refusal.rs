//! Why there is no plan: the property, the rule with its source, and the mend, in one line.

use std::fmt;

use serde::Serialize;

use crate::input::escaped;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident: $by:literal, $source:literal, $says:literal;)*) => {
        /// A rule that somebody else made, or that the switch has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Whose rule it is.
            pub fn by(self) -> &'static str {
                match self { $(Self::$name => $by,)* }
            }

            /// Where it is found there.
            pub fn source(self) -> &'static str {
                match self { $(Self::$name => $source,)* }
            }

            /// What it says.
            pub fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }
        }
    };
}

rules! {
    /// Flavor and image must not differ.
    FlavorImageConflict: "nova", "FlavorImageConflict", "answers 400 when flavor and image differ";
    /// Multiqueue.
    Multiqueue: "nova", "get_vif_multiqueue_constraint", "gives a guest of fewer than 2 vCPUs no multiqueue";
    /// `[libvirt] max_queues`, or what a kernel's tap devices could do.
    MaxQueues: "nova", "_get_max_tap_queues", "gives no interface more queue pairs than [libvirt] max_queues, or a kernel before 5.0, permits";
    /// Queue pairs for each NIC.
    QueuesPerNic: "the plan", "queues, throughput", "takes one of the two for a NIC, 1 to 256 pairs, or high, medium, low";
    /// The attribute's range.
    XmlQueues: "libvirt", "<driver queues=>, MAX_TAP_QUEUES", "takes a number from 1 on, and no interface of any kind has more than 256 queue pairs";
    /// What a back end has.
    VhostUserQueues: "vhost-user", "VHOST_USER_GET_QUEUE_NUM", "lets QEMU start a NIC only if the switch offers its queue pairs, and Ringway offers 128";
    /// What the switch can do, and is told to withhold.
    Offered: "virtio", "feature negotiation", "gives a guest only what the switch offers as well";
    /// Ring sizes.
    RingSize: "nova", "[libvirt] rx_queue_size, tx_queue_size", "takes 256, 512 or 1024 descriptors";
    /// Page sizes as text.
    PageSizeInvalid: "nova", "MemoryPageSizeInvalid", "takes small, large, any, or a size such as 2MB or 1048576 (KiB)";
    /// An image may only choose what the flavor leaves open.
    PageSizeForbidden: "nova", "MemoryPageSizeForbidden", "lets an image choose a page size only where the flavor says any or large";
    /// Pages and files exclude each other.
    MemoryPagesUnsupported: "nova", "MemoryPagesUnsupported", "does not combine huge pages with file_backed_memory";
    /// The switch maps the guest's memory.
    SharedMemory: "nova", "_get_guest_numa_config", "shares a guest's memory only if it is in huge pages (or in files); without, a vhost-user NIC appears and stays dead";
    /// Memory in files.
    FilesInMemory: "Ringway", "guest memory", "maps a file on tmpfs or hugetlbfs only: one on a disk could stall it";
    /// A page must fit.
    PageSizeFits: "nova", "can_fit_pagesize", "wants a guest's memory to be whole pages";
    /// Nodes.
    NumaNodes: "nova", "InvalidNUMANodesNumber", "wants at least one NUMA node";
    /// Only one may say it.
    NumaForbidden: "nova", "ImageNUMATopologyForbidden", "takes the NUMA topology from flavor or image, not from both";
    /// Even division.
    NumaAsymmetric: "nova", "ImageNUMATopologyAsymmetric", "divides vCPUs and MiB evenly among the nodes";
    /// Everything or nothing.
    NumaIncomplete: "nova", "ImageNUMATopologyIncomplete", "wants numa_cpus and numa_mem of every node, or of none";
    /// Every vCPU once.
    NumaCpus: "nova", "ImageNUMATopologyCPU*", "wants each vCPU in one node, and only those there are";
    /// All memory.
    NumaMemory: "nova", "ImageNUMATopologyMemoryOutOfRange", "wants the nodes' memory to add up to the guest's";
    /// A model without virtio has no rings.
    VifModel: "QEMU", "net_vhost_check_net", "attaches vhost-user to virtio-net only";
    /// Names of extra specs.
    UnknownExtraSpec: "nova", "extra spec validation", "refuses hw: names that it does not know (API 2.86 on), and ignores them before";
    /// Names of image properties.
    UnknownImageProperty: "nova", "ImageMetaProps", "ignores image properties that it does not know, without a word";
    /// A name in the other's spelling.
    Spelling: "nova", "_get_flavor_image_meta", "reads hw:name from a flavor and hw_name from an image, and nothing else";
    /// Booleans.
    Boolean: "nova", "bool_from_string", "takes true, yes, on, 1, or false, no, off, 0; the rest is refused, or silently false";
    /// vCPUs and memory.
    Guest: "nova", "flavor", "has vCPUs and memory from 1 on";
    /// Two words for one thing.
    Twice: "the plan", "one word for one thing", "does not choose between two that differ";
    /// `type=` of a domain.
    VirtType: "libvirt", "<domain type=>", "knows kvm and qemu";
    /// Interrupts of guests that nova emulates.
    EmulatedMsix: "QEMU", "MSI-X without KVM", "crashes before version 10 when a vhost-user device signals through MSI-X under emulation";
    /// Interrupts of many vCPUs.
    ManyVcpus: "libvirt", "QEMU_MAX_VCPUS_WITHOUT_EIM", "takes more than 255 vCPUs only on q35 with an Intel IOMMU in extended interrupt mode";
    /// Models of IOMMUs.
    ViommuModel: "nova", "_guest_add_iommu_device", "gives any IOMMU intremap, caching_mode, eim and iotlb, and libvirt (virDomainIOMMUDefValidate) takes those for model intel only; auto is virtio from libvirt 8.3 on";
    /// Machines of IOMMUs.
    ViommuMachine: "nova", "InvalidVIOMMUMachineType", "wants q35 for hw:viommu_model on x86-64";
    /// Encrypted memory.
    MemEncryption: "nova", "get_mem_encryption_constraint", "encrypts the guest's memory (SEV), and virtio devices then need VIRTIO_F_ACCESS_PLATFORM, which Ringway does not offer";
    /// Paths.
    AbsolutePath: "libvirt", "absFilePath", "takes paths from the root only";
    /// A kernel and what belongs to it.
    DirectBoot: "libvirt", "<kernel>", "boots an initrd and a command line with a kernel only";
    /// What text may hold.
    Text: "XML", "Char", "holds no control characters";
    /// A domain's name.
    DomainName: "libvirt", "<name>", "wants a name of 1 to 251 bytes that is not blank, without control characters and slashes";
    /// A port's name and address.
    Port: "Ringway", "[[port]]", "wants a name of 1 to 32 letters, digits, -, _, ., and a socket path from the root of at most 107 bytes, each once";
    /// The MTU.
    Mtu: "Ringway", "mtu", "carries 68 to 9000 bytes";
    /// MACs.
    Mac: "libvirt", "<mac address=>", "wants six bytes in hexadecimal, not of a group";
    /// Something to plug in.
    NoNic: "the plan", "[[nic]]", "is about the interfaces of a guest";
    /// Interrupt vectors.
    Vectors: "the guest", "MSI-X", "has about 200 vectors, 2N+2 of them for a NIC of N pairs, and others for other devices; without, rings share interrupts or fail";
    /// File descriptors.
    Files: "libvirt", "qemu.conf max_files", "ends a QEMU's rings at its limit of open files";
    /// File descriptors of the switch.
    OwnFiles: "Ringway", "raise_fd_limit", "raises its limit of open files to the hard one, and a port takes 2 files and 8 a queue pair";
    /// Versions.
    Versions: "libvirt", "versions", "has multiqueue from 1.0.5 (vhost-user from 1.2.17) and packed from 6.3 with QEMU 4.2; nova wants 8.0 and 6.2";
    /// Features, queues and MTU follow a guest.
    Migration: "QEMU", "migration", "resumes a guest only where its features, queues and MTU are kept";
}

/// Why there is no plan: `property: what is wrong; who says so; what to do`, a single line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    rule: Rule,
    about: String,
    what: String,
    mend: String,
}

impl Refusal {
    pub(crate) fn new(rule: Rule, about: &str, what: String, mend: String) -> Self {
        Self { rule, about: about.to_owned(), what, mend }
    }

    /// The rule that it rests on.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The property, key or NIC at fault.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// What to do.
    pub fn mend(&self) -> &str {
        &self.mend
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, about, what, mend } = self;
        let text = format!("{about}: {what}; {} {} ({}); {mend}", rule.by(), rule.says(), rule.source());
        f.write_str(&escaped(&text))
    }
}

impl std::error::Error for Refusal {}

impl Serialize for Refusal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
