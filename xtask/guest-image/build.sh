#!/bin/bash
# build.sh OUT.qcow2: a bootable Debian guest image (UEFI, GPT, ext4, cloud-init) made of Debian's own packages.
#
# Needs root and: mmdebstrap fdisk dosfstools mtools e2fsprogs qemu-utils debian-archive-keyring.
# Uses no loop device, mounts nothing of the image and boots no virtual machine, so it works in a container too.
# Boots by UEFI only, with Secure Boot as well (Debian's signed shim, GRUB and kernel).
# OUT appears only when the image is whole; `cargo xtask image` keeps it in a cache.
#
# Options (environment):
#   SUITE=trixie       Debian release
#   MIRROR=            package mirror; empty: mmdebstrap's own default, with security updates
#   KERNEL=linux-image-cloud-amd64
#   PACKAGES=          more packages, separated by blanks
#   SIZE=3G            virtual size; the guest grows its root to whatever disk it is given
#   CMDLINE=           more kernel arguments, in a file of GRUB's own as a vendor would bring it
#   ARCHIVE=           packages, separated by blanks: they and what they need beyond the image go into OUT.archive, for a
#                      machine without a network
set -euo pipefail

OUT=${1:?usage: build.sh OUT.qcow2}
SUITE=${SUITE:-trixie}
MIRROR=${MIRROR:-}
KERNEL=${KERNEL:-linux-image-cloud-amd64}
PACKAGES=${PACKAGES:-}
SIZE=${SIZE:-3G}
CMDLINE=${CMDLINE:-}
ARCHIVE=${ARCHIVE:-}

# Sectors of 512 bytes. The root comes last, so that cloud-init's growpart can grow it.
ESP_START=2048
ESP_LENGTH=$((64 * 2048))
ROOT_START=$((ESP_START + ESP_LENGTH))

[ "$(id -u)" = 0 ] || { echo "build.sh: needs root: it unpacks packages as their owners" >&2; exit 1; }
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/croft-guest-image.XXXXXX")
trap 'rm -rf --one-file-system "$WORK" "$OUT.part" "$OUT.archive.part"' EXIT
ROOT=$WORK/root
ROOT_UUID=$(cat /proc/sys/kernel/random/uuid)
ESP_ID=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ' | tr a-f A-F)

say() { echo "guest-image: $* (${SECONDS} s)"; }

in_root() {
  chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# Runs a command with its output in a file, which is shown only when it fails.
quietly() {
  local log=$WORK/$1.log
  shift
  "$@" > "$log" 2>&1 || { tail -n 30 "$log" >&2; echo "build.sh: failed: $*" >&2; exit 1; }
}

unpack_packages() {
  local include=systemd,systemd-sysv,systemd-resolved,dbus,udev,kmod,iproute2,zstd,ca-certificates
  include+=,libnss-myhostname # or sudo waits for a resolver to learn the guest's own name
  include+=,openssh-server,sudo,python3-minimal,cloud-init,cloud-guest-utils,qemu-guest-agent
  include+=,e2fsprogs,dosfstools,initramfs-tools,$KERNEL
  include+=,grub-efi-amd64,grub-efi-amd64-signed,shim-signed,efibootmgr
  local package
  for package in $PACKAGES; do include+=,$package; done
  # A later upgrade of GRUB must find the removable-media path and leave the host's NVRAM alone.
  cat > "$WORK/debconf" <<'E'
grub-efi-amd64 grub2/force_efi_extra_removable boolean true
grub-efi-amd64 grub2/update_nvram boolean false
E
  local archive=()
  if [ -n "$ARCHIVE" ]; then
    rm -rf --one-file-system "$OUT.archive.part"
    mkdir "$OUT.archive.part"
    # By the same apt, from the same lists; what it has downloaded so far is installed.
    archive=(
      --customize-hook="rm -f \"\$1\"/var/cache/apt/archives/*.deb"
      --customize-hook="APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get -qq -y --no-install-recommends --download-only install $ARCHIVE"
      --customize-hook="mv \"\$1\"/var/cache/apt/archives/*.deb '$OUT.archive.part/'"
    )
  fi
  quietly mmdebstrap mmdebstrap --mode=root --variant=minbase --include="$include" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="chroot \"\$1\" debconf-set-selections < '$WORK/debconf'" "${archive[@]}" \
    "$SUITE" "$ROOT" ${MIRROR:+"$MIRROR"}
}

configure_system() {
  # Each guest makes its own identity.
  : > "$ROOT/etc/machine-id"
  rm -f "$ROOT"/etc/ssh/ssh_host_*_key*
  # mmdebstrap copies the builder's resolv.conf and host name into the root.
  ln -sf ../run/systemd/resolve/stub-resolv.conf "$ROOT/etc/resolv.conf"
  echo debian > "$ROOT/etc/hostname"
  cat > "$ROOT/etc/fstab" <<E
UUID=$ROOT_UUID / ext4 errors=remount-ro 0 1
UUID=${ESP_ID:0:4}-${ESP_ID:4} /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=10 0 2
E
  mkdir -p "$ROOT/boot/efi"
  quietly enable in_root systemctl enable systemd-networkd ssh
  # A guest without an uplink must still finish booting.
  quietly mask in_root systemctl mask systemd-networkd-wait-online.service
  # Otherwise the first boot runs ldconfig and its like once more.
  in_root touch /etc/.updated /var/.updated
}

# Debian's cloud-init runs some forty modules; under emulation each costs up to a second. What is left out: apt sources,
# locale generation, snaps, and the agents of Puppet, Chef, Salt and Landscape.
configure_cloud_init() {
  cat > "$ROOT/etc/cloud/cloud.cfg.d/90_croft.cfg" <<'E'
datasource_list: [NoCloud, None]
ssh_genkeytypes: [ed25519]
cloud_init_modules: [seed_random, bootcmd, write_files, growpart, resizefs, disk_setup, mounts, set_hostname, update_etc_hosts, users_groups, ssh]
cloud_config_modules: [set_passwords, ntp, timezone, runcmd]
cloud_final_modules: [package_update_upgrade_install, write_files_deferred, scripts_per_once, scripts_per_boot, scripts_per_instance, scripts_user, phone_home, final_message, power_state_change]
E
}

# The real update-grub. In a chroot only grub-probe cannot work there, since it looks for the disk under /: for this one
# run a stand-in gives the answers that the new disk will give.
configure_boot() {
  mkdir -p "$ROOT/boot/grub" "$ROOT/etc/default/grub.d"
  cat > "$ROOT/etc/default/grub.d/10-croft.cfg" <<'E'
GRUB_TIMEOUT=0
GRUB_TERMINAL=console
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200n8 net.ifnames=0"
GRUB_DISABLE_OS_PROBER=true
E
  if [ -n "$CMDLINE" ]; then
    echo "GRUB_CMDLINE_LINUX_DEFAULT=\"\$GRUB_CMDLINE_LINUX_DEFAULT $CMDLINE\"" > "$ROOT/etc/default/grub.d/50-vendor.cfg"
  fi
  mv "$ROOT/usr/sbin/grub-probe" "$ROOT/usr/sbin/grub-probe.real"
  cat > "$ROOT/usr/sbin/grub-probe" <<E
#!/bin/sh
for argument; do
  case \$previous in -t|--target) target=\$argument;; esac
  case \$argument in --target=*) target=\${argument#*=};; esac
  previous=\$argument
done
case \$target in
  device) echo /dev/vda1;; fs_uuid) echo $ROOT_UUID;; fs) echo ext2;; partmap) echo gpt;; drive) echo '(hd0,gpt1)';;
esac
E
  chmod 755 "$ROOT/usr/sbin/grub-probe"
  mkdir -p "$ROOT/dev/disk/by-uuid"
  : > "$ROOT/dev/disk/by-uuid/$ROOT_UUID" # or grub.cfg says root=/dev/vda1
  # Boot variables for systemd-boot; its module is not part of the signed GRUB.
  chmod 644 "$ROOT/etc/grub.d/25_bli"
  quietly update-grub in_root update-grub
  rm -r "$ROOT/dev/disk"
  mv "$ROOT/usr/sbin/grub-probe.real" "$ROOT/usr/sbin/grub-probe"
  grep -q "root=UUID=$ROOT_UUID" "$ROOT/boot/grub/grub.cfg" || { echo "build.sh: grub.cfg does not name the root" >&2; exit 1; }
}

# Shim as the removable-media loader, GRUB beside it; both read the small grub.cfg in their own folder.
make_esp() {
  local esp=$1 dir shim
  cat > "$WORK/esp-grub.cfg" <<E
search.fs_uuid $ROOT_UUID root
set prefix=(\$root)'/boot/grub'
configfile \$prefix/grub.cfg
E
  truncate -s $((ESP_LENGTH * 512)) "$esp"
  quietly mkfs.vfat mkfs.vfat -F 32 -n ESP -i "$ESP_ID" "$esp"
  mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
  for dir in BOOT debian; do
    shim=shimx64.efi
    if [ "$dir" = BOOT ]; then shim=BOOTX64.EFI; fi
    mcopy -i "$esp" "$ROOT/usr/lib/shim/shimx64.efi.signed" "::/EFI/$dir/$shim"
    mcopy -i "$esp" "$ROOT/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "::/EFI/$dir/grubx64.efi"
    mcopy -i "$esp" "$ROOT/usr/lib/shim/mmx64.efi.signed" "::/EFI/$dir/mmx64.efi"
    mcopy -i "$esp" "$WORK/esp-grub.cfg" "::/EFI/$dir/grub.cfg"
  done
}

make_disk() {
  local disk=$1 sectors root_length
  truncate -s "$SIZE" "$disk"
  sectors=$(($(stat -c %s "$disk") / 512))
  root_length=$(((sectors - ROOT_START - 2048) / 2048 * 2048))
  sfdisk -q "$disk" <<E
label: gpt
15 : start=$ESP_START, size=$ESP_LENGTH, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
1 : start=$ROOT_START, size=$root_length, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root"
E
  make_esp "$WORK/esp.img"
  dd if="$WORK/esp.img" of="$disk" bs=512 seek=$ESP_START conv=notrunc,sparse status=none
  # mke2fs fills the file system from the directory, straight into its place.
  mke2fs -q -t ext4 -U "$ROOT_UUID" -L root -d "$ROOT" \
    -E offset=$((ROOT_START * 512)),lazy_itable_init=1 "$disk" $((root_length / 2))k
}

unpack_packages
say "packages of Debian $SUITE unpacked: $(du -sm "$ROOT" | cut -f1) MiB"
configure_system
configure_cloud_init
configure_boot
make_disk "$WORK/disk.raw"
qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd "$WORK/disk.raw" "$OUT.part"
# The image last: where it is, all of it is.
if [ -n "$ARCHIVE" ]; then
  rm -rf --one-file-system "$OUT.archive"
  mv "$OUT.archive.part" "$OUT.archive"
fi
mv "$OUT.part" "$OUT"
say "image written: $(($(stat -c %s "$OUT") / 1048576)) MiB"
