# shellcheck shell=bash
# KVM or TCG: a /dev/kvm that opens says little, a guest that boots says all.

# Prints kvm or tcg. RINGWAY_ACCEL=kvm|tcg decides without asking. The answer is kept for this boot of this machine.
acceleration() {
    local key answer
    if [ -n "${RINGWAY_ACCEL:-}" ]; then
        echo "$RINGWAY_ACCEL"
        return
    fi
    key="$(cat /proc/sys/kernel/random/boot_id) $(qemu-system-x86_64 --version | head -n 1)"
    if [ -r "$CACHE/acceleration" ] && [ "$(head -n 1 "$CACHE/acceleration")" = "$key" ]; then
        tail -n 1 "$CACHE/acceleration"
        return
    fi
    answer=tcg
    # The shell would report a QEMU that aborts.
    if kvm_boots 2>/dev/null; then answer=kvm; fi
    # A reader sees the old file or the whole new one.
    printf '%s\n%s\n' "$key" "$answer" >"$CACHE/acceleration.$$"
    mv "$CACHE/acceleration.$$" "$CACHE/acceleration"
    echo "$answer"
}

# Boots the guest kernel as far as its first program, which restarts it, which ends QEMU. Where KVM works this takes
# about a second; nested machines have been seen to open /dev/kvm and then fail at the first register, or to hang in
# the jump to 64 bits.
kvm_boots() (
    ulimit -c 0
    [ -r /dev/kvm ] && [ -w /dev/kvm ] &&
        timeout --kill-after=2 8 qemu-system-x86_64 -accel kvm -cpu host -machine q35 -m 256 -nodefaults \
            -no-user-config -display none -no-reboot -kernel "$CACHE/guest/vmlinuz" \
            -initrd "$CACHE/guest/initramfs.cpio.gz" -append "panic=-1 ringway.probe=1" >/dev/null 2>&1 </dev/null
)
