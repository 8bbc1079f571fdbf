# shellcheck shell=bash
# Debian packages by purpose, and how they get onto the machine.

RUST_MINIMUM=1.95

# Every group contains the one before it, apart from `fresh`, which stands alone.
packages_of() {
    case $1 in
        # libclang reads DPDK's headers; git names the revision in the binary.
        build) echo gcc libc6-dev pkgconf libdpdk-dev libclang-14-dev ca-certificates git ;;
        # The guests' own programs (busybox, iperf3, ethtool) are unpacked into their image, never installed.
        demo) echo "$(packages_of build)" qemu-system-x86 cpio gzip curl iproute2 ethtool socat ;;
        # dpdk-dev is testpmd, the virtio-user peer of the tests; shellcheck reads these scripts; libvirt is its daemon without its
        # services (12 MiB), and what its virt-xml-validate calls; the rest speaks with a NIC port from the other end.
        test)
            echo "$(packages_of demo)" dpdk-dev shellcheck iputils-ping iperf3 tshark \
                libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libxml2-utils
            ;;
        bench) echo "$(packages_of test)" openvswitch-switch-dpdk ;;
        fresh) echo debootstrap git ;;
        *) return 1 ;;
    esac
}

# Debian's backport of a current Rust, kept for browsers, lives in the security archive.
rust_packages_of() {
    case $1 in
        build | demo) echo rustc-web cargo-web ;;
        test | bench) echo rustc-web cargo-web rustfmt-web rust-web-clippy ;;
    esac
}

# Programs of those packages that must stay off: their services are for machines that want a daemon.
SERVICES_TO_KEEP_OFF="openvswitch-switch ovsdb-server ovs-vswitchd prometheus prometheus-node-exporter iwpmd uuidd"

# Prints those of its arguments that are not installed.
missing_packages() {
    local installed package
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
    for package in "$@"; do
        grep -qxF -- "$package" <<<"$installed" || printf '%s\n' "$package"
    done
}

# True when FOUND is a version, and not an older one than WANTED: not_older WANTED FOUND
not_older() {
    [ -n "$2" ] && printf '%s\n%s\n' "$1" "$2" | sort -V -C
}

# Prints the version of a program of the Rust toolchain, or nothing.
version_of() {
    local words
    words=$("$1" --version 2>/dev/null) || return 0
    words=${words#* }
    printf '%s' "${words%% *}"
}

rust_is_new_enough() {
    not_older "$RUST_MINIMUM" "$(version_of rustc)" && not_older "$RUST_MINIMUM" "$(version_of cargo)"
}

# While packages are being installed nothing may start a service. An earlier policy is put back afterwards.
POLICY=/usr/sbin/policy-rc.d
policy_guard_on() {
    if [ -e "$POLICY" ]; then mv "$POLICY" "$POLICY.before-ringway"; fi
    trap policy_guard_off EXIT
    printf '#!/bin/sh\n# Written by scripts/setup of Ringway for the time of one installation.\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}
policy_guard_off() {
    rm -f "$POLICY"
    if [ -e "$POLICY.before-ringway" ]; then mv "$POLICY.before-ringway" "$POLICY"; fi
    trap - EXIT
}

# A service that came with one of these packages must not start at the next boot either.
disable_new_services() {
    local service
    for service in $SERVICES_TO_KEEP_OFF; do
        case " $SERVICES_BEFORE " in *" $service "*) continue ;; esac
        if [ -e "/lib/systemd/system/$service.service" ] && have systemctl; then
            systemctl --quiet disable "$service" >/dev/null 2>&1 || true
        fi
        if [ -e "/etc/init.d/$service" ] && have update-rc.d; then
            update-rc.d "$service" disable >/dev/null 2>&1 || true
        fi
    done
}
services_present() {
    local service
    for service in $SERVICES_TO_KEEP_OFF; do
        if [ -e "/lib/systemd/system/$service.service" ] || [ -e "/etc/init.d/$service" ]; then
            printf '%s ' "$service"
        fi
    done
}
