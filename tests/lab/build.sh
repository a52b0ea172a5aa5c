#!/bin/bash
# build.sh OUT: everything that the lab boots, made of Debian's packages, into the new directory OUT.
#
#   OUT/root.img            ext4, sparse: Debian with systemd, libvirt, QEMU, OpenSSH, a kernel, mbochs and mtty
#   OUT/{vmlinuz,initrd}    its kernel; QEMU boots them directly
#   OUT/guest/              kernel and initramfs of the guests inside, which tell what devices they see
#   OUT/emulator/           QEMU of the same release with all that it loads: the machine that builds may have an older one
#   OUT/facts               versions, one a line
#
# The providers of mediated devices are Debian's kernel samples, compiled here against that very kernel's headers; they
# are GPL and are neither kept in the repository nor shipped.
# Needs root and: mmdebstrap e2fsprogs zstd debian-archive-keyring. Uses no loop device, mounts nothing of the image.
# OUT appears only when all of it is whole; `cargo xtask lab` keeps it in a cache.
#
# Options (environment): SUITE=trixie MIRROR= (empty: mmdebstrap's own default, with security updates)
set -euo pipefail

OUT=${1:?usage: build.sh OUT}
SUITE=${SUITE:-trixie}
MIRROR=${MIRROR:-}
here=$(dirname "$(readlink -f "$0")")

[ "$(id -u)" = 0 ] || { echo "build.sh: needs root: it unpacks packages as their owners" >&2; exit 1; }
[ ! -e "$OUT" ] || { echo "build.sh: $OUT is there already" >&2; exit 1; }
mkdir -p "$(dirname "$OUT")"
# Beside OUT, so that the end is a rename. A builder that was killed left its own behind.
find "$(dirname "$OUT")" -maxdepth 1 -name 'making.*' -mmin +120 -exec rm -rf --one-file-system {} +
WORK=$(mktemp -d "$(dirname "$OUT")/making.XXXXXX")
trap 'rm -rf --one-file-system "$WORK"' EXIT
ROOT=$WORK/root
NEW=$WORK/out
mkdir -p "$NEW/guest" "$NEW/emulator"

say() { echo "lab: $* (${SECONDS} s)"; }

# Runs a command with its output in a file, which is shown only when it fails.
quietly() {
    local log=$WORK/$1.log
    shift
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; echo "build.sh: failed: $*" >&2; exit 1; }
}

# bootstrap NAME VARIANT PACKAGES [OPTION…]: a tree of packages at $WORK/NAME.
bootstrap() {
    local name=$1 variant=$2 packages=$3
    shift 3
    quietly "$name" mmdebstrap --mode=root --variant="$variant" --include="$packages" \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "$@" "$SUITE" "$WORK/$name" ${MIRROR:+"$MIRROR"}
}

in_root() { chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 "$@"; }

# A compiler, the kernel's headers and its source: unpacked, not installed, which is all that a compiler needs.
compile_providers() {
    local packages=base-files,bash,dash,coreutils,sed,grep,findutils,mawk,diffutils
    packages+=,gcc,make,linux-headers-amd64,linux-source
    bootstrap compiler extract "$packages"
    local tree=$WORK/compiler
    local version
    version=$(ls "$tree/usr/lib/modules")
    ln -sf mawk "$tree/usr/bin/awk"
    mkdir "$tree/mdev"
    tar -xJf "$tree"/usr/src/linux-source-*.tar.xz --strip-components=3 -C "$tree/mdev" --wildcards '*/samples/vfio-mdev/*.[ch]'
    printf 'obj-m := mtty.o mbochs.o\n' >"$tree/mdev/Makefile"
    quietly modules chroot "$tree" /usr/bin/env -i PATH=/usr/sbin:/usr/bin \
        make -C "/lib/modules/$version/build" M=/mdev CONFIG_DEBUG_INFO_BTF_MODULES= modules
    mkdir "$WORK/providers"
    mv "$tree/mdev/mtty.ko" "$tree/mdev/mbochs.ko" "$WORK/providers/"
    echo "$version" >"$WORK/providers/version"
    rm -rf --one-file-system "$tree"
}

unpack_host() {
    local packages=systemd,systemd-sysv,dbus,udev,kmod,libnss-myhostname,zstd,python3-minimal
    packages+=,openssh-server,iproute2,iptables,nftables,dnsmasq-base,pciutils,busybox-static
    packages+=,linux-image-amd64,libvirt-daemon-system,libvirt-clients,qemu-system-x86,qemu-utils
    # A small initramfs, made once: what the lab's own disk needs, and not every driver there is.
    cat >"$WORK/initramfs.conf" <<'E'
MODULES=list
E
    printf 'virtio_pci\nvirtio_blk\next4\n' >"$WORK/initramfs.modules"
    # shellcheck disable=SC2016 # the hooks are mmdebstrap's to expand
    bootstrap root minbase "$packages" \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
        --essential-hook="copy-in '$WORK/initramfs.conf' /etc/initramfs-tools/conf.d" \
        --essential-hook="cp '$WORK/initramfs.modules' \"\$1/etc/initramfs-tools/modules\""
}

configure_host() {
    cp -a "$here/host/." "$ROOT/"
    chown -R 0:0 "$ROOT/etc" 2>/dev/null || true
    : >"$ROOT/etc/machine-id"
    echo lab >"$ROOT/etc/hostname"
    echo '/dev/vda / ext4 noatime 0 1' >"$ROOT/etc/fstab"
    echo 'lab /mnt/lab 9p trans=virtio,version=9p2000.L,msize=262144,ro,nofail 0 0' >>"$ROOT/etc/fstab"
    mkdir -p "$ROOT/mnt/lab" "$ROOT/etc/croft"
    : >"$ROOT/etc/resolv.conf"
    rm -f "$ROOT"/etc/ssh/ssh_host_*_key*
    quietly ssh-keygen in_root ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
    quietly enable in_root systemctl enable systemd-networkd ssh libvirtd.socket virtlogd.socket \
        lab-end-of-interrupt@0 lab-end-of-interrupt@1
    # Nothing waits for a network that leads nowhere, and nothing runs by the calendar in a machine that lives minutes.
    quietly mask in_root systemctl mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer libvirt-guests.service getty@tty1.service
    local version
    version=$(ls "$ROOT/usr/lib/modules")
    [ "$version" = "$(cat "$WORK/providers/version")" ] || {
        echo "build.sh: the kernel is $version, its headers are $(cat "$WORK/providers/version"): the archive changed meanwhile; run it again" >&2
        exit 1
    }
    install -D -m 644 -t "$ROOT/usr/lib/modules/$version/extra" "$WORK"/providers/*.ko
    quietly depmod in_root depmod "$version"
    # Otherwise the first boot runs ldconfig and its like once more.
    in_root touch /etc/.updated /var/.updated
    cp "$ROOT/boot/vmlinuz-$version" "$NEW/vmlinuz"
    cp "$ROOT/boot/initrd.img-$version" "$NEW/initrd"
    echo "kernel $version" >"$NEW/facts"
    # shellcheck disable=SC2016 # dpkg-query's to expand
    in_root dpkg-query -W -f '${Package} ${Version}\n' qemu-system-x86 libvirt-daemon systemd >>"$NEW/facts"
}

# The guests inside: the same kernel, a static busybox, and the modules by which USB devices are seen.
make_guest() {
    local guest=$WORK/guest version module
    version=$(ls "$ROOT/usr/lib/modules")
    mkdir -p "$guest"/{bin,dev,etc,proc,sys,run,tmp,lib/modules}
    cp "$ROOT/usr/bin/busybox" "$guest/bin/busybox"
    install -m 755 "$here/guest/init" "$guest/init"
    : >"$guest/lib/modules/order"
    # modprobe knows the order, and what is built in.
    for module in button evdev xhci-pci ehci-pci uhci-hcd; do
        in_root modprobe -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' | while read -r file; do
        local name=${file##*/}
        case $name in
        *.xz) xz -dc "$ROOT$file" >"$guest/lib/modules/${name%.xz}" ;;
        *.zst) zstd -qdc "$ROOT$file" >"$guest/lib/modules/${name%.zst}" ;;
        *) cp "$ROOT$file" "$guest/lib/modules/$name" ;;
        esac
        echo "${name%%.*}" >>"$guest/lib/modules/order"
    done
    cp "$NEW/vmlinuz" "$NEW/guest/vmlinuz"
    (cd "$guest" && find . | LC_ALL=C sort | "$ROOT/usr/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) | gzip -n1 >"$NEW/guest/initrd"
}

# QEMU, its modules, its firmware and every library that these load. bin/qemu-system-x86_64 below runs it anywhere.
copy_emulator() {
    local tree=$NEW/emulator libraries=usr/lib/x86_64-linux-gnu file
    mkdir -p "$tree/bin" "$tree/lib" "$tree/share"
    cp "$ROOT/usr/bin/qemu-system-x86_64" "$ROOT/usr/bin/qemu-img" "$tree/lib/"
    cp -a "$ROOT/$libraries/qemu" "$tree/modules"
    # Not what draws windows or speaks to sound servers: it has neither.
    find "$tree/modules" -name '*.so' ! -name 'accel-*' ! -name 'hw-*' -delete
    for file in /usr/bin/qemu-system-x86_64 /usr/bin/qemu-img; do
        in_root ldd "$file"
    done | sed -n 's/.* => \([^ ]*\) .*/\1/p' | sort -u | while read -r file; do cp -L "$ROOT$file" "$tree/lib/"; done
    cp -L "$ROOT/lib64/ld-linux-x86-64.so.2" "$tree/lib/"
    for file in qemu seabios; do
        [ ! -d "$ROOT/usr/share/$file" ] || cp -aL "$ROOT/usr/share/$file" "$tree/share/"
    done
    for file in qemu-system-x86_64 qemu-img; do
        cat >"$tree/bin/$file" <<E
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")/..
export QEMU_MODULE_DIR="\$here/modules"
exec "\$here/lib/ld-linux-x86-64.so.2" --library-path "\$here/lib" "\$here/lib/$file" "\$@"
E
        chmod 755 "$tree/bin/$file"
    done
    # Of this one device: a list of all would load every module.
    quietly emulator "$tree/bin/qemu-system-x86_64" -L "$tree/share/qemu" -L "$tree/share/seabios" -machine q35 \
        -accel tcg -display none -device igb,help
}

make_disk() {
    # Sparse; the agent keeps ten gigabytes free for the host itself.
    truncate -s 32G "$NEW/root.img"
    quietly mke2fs mke2fs -q -t ext4 -L lab -d "$ROOT" -E lazy_itable_init=1 "$NEW/root.img"
}

# Both mostly wait for the archive and for tar.
compile_providers &
compiling=$!
unpack_host
say "packages of Debian $SUITE unpacked: $(du -sm "$ROOT" | cut -f1) MiB"
wait "$compiling"
say "providers of mediated devices compiled"
configure_host
make_guest
copy_emulator
make_disk
mv "$NEW" "$OUT"
say "done: $(du -sm "$OUT" | cut -f1) MiB"
