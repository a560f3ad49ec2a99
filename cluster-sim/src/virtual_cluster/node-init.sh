#!/bin/bash
# Pid 1 of a node, in namespaces of its own (mount, uts, ipc, net, pid, cgroup): makes the machine look like one, starts its
# daemons, and reaps orphans until the cluster's maker closes our standard input or is gone.
# Told by environment: NODE FOLDER ETC RUN SHARED ADDRESS ADDRESS6 GATEWAY CGROUPS. Whatever fails ends the node; its log says
# what.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8

# mount --bind FROM TO, where there is such a TO
over() {
    if [ -e "$2" ]; then mount --bind "$1" "$2"; fi
}

hostname "$NODE"
mkdir -p "$FOLDER/log" "$FOLDER/var-tmp"
chmod 1777 "$FOLDER/var-tmp"

# Another machine's numbers. UCX takes boot_id for the identity of the host.
mount -t proc proc /proc
cat /proc/sys/kernel/random/uuid >"$FOLDER/boot_id"
chmod 444 "$FOLDER/boot_id"
mount --bind "$FOLDER/boot_id" /proc/sys/kernel/random/boot_id
[ -s "$FOLDER/machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >"$FOLDER/machine-id"
printf '%s\n' "$NODE" >"$FOLDER/hostname"
over "$FOLDER/machine-id" /etc/machine-id
over "$FOLDER/hostname" /etc/hostname
for name in passwd group shadow hosts; do over "$ETC/$name" "/etc/$name"; done

# A second proc without anything mounted on it: the kernel lets an unprivileged user namespace mount proc only where one is
# fully visible, and the one at /proc has boot_id on it.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/clean-proc /run/sshd /run/lock /run/ssh /run/keep
mount -t proc proc /run/clean-proc
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t devpts -o mode=620,ptmxmode=666,gid=5 devpts /dev/pts
if [ -d /dev/mqueue ]; then mount -t mqueue mqueue /dev/mqueue; fi
mount --bind "$ETC/ssh" /run/ssh

# What is to be seen is set aside, what it lies in is replaced, and it is put where it is wanted.
places=()
aside() {
    local keep=/run/keep/${#places[@]}
    if [ -d "$1" ]; then mkdir "$keep"; else : >"$keep"; fi
    mount --rbind "$1" "$keep"
    places+=("$2")
}
aside "$SHARED/home" /home
aside "$SHARED" /srv
aside "$FOLDER/log" /var/log
aside "$FOLDER/var-tmp" /var/tmp
while IFS=$'\t' read -r from to <&3; do aside "$from" "$to"; done 3<"$ETC/binds"
mount -t tmpfs -o mode=1777 tmpfs /tmp
for number in "${!places[@]}"; do
    to=${places[number]}
    if [ -d "/run/keep/$number" ]; then mkdir -p "$to"; else mkdir -p "${to%/*}" && : >>"$to"; fi
    mount --move "/run/keep/$number" "$to"
done

# /sys shows the interfaces of this network namespace, the groups below it those of this cgroup namespace, laid out
# as on a machine with version 2 only, or as on a hybrid one.
mount -t sysfs sysfs /sys
case $CGROUPS in
v2) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
*v1*)
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/freezer
    mount -t cgroup -o freezer cgroup /sys/fs/cgroup/freezer
    if [[ $CGROUPS == *v2* ]]; then mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified; fi
    ;;
esac

# The maker moves eth0 in and says so.
read -r _
ip link set lo up
ip address add "$ADDRESS" dev eth0
if [ -e /proc/sys/net/ipv6 ]; then ip address add "$ADDRESS6" dev eth0 nodad; fi
ip link set eth0 up
ip route add default via "$GATEWAY"

ulimit -l unlimited 2>/dev/null || echo "memory locking stays limited to $(ulimit -l) KiB"
ulimit -n "$(ulimit -Hn)"
/usr/sbin/sshd -f /run/ssh/sshd_config </dev/null
# It goes into the background before it listens, and says here that it does.
for ((look = 0; look < 2000; look++)); do
    [ -s /run/sshd.pid ] && break
    sleep 0.01
done
[ -s /run/sshd.pid ] || { echo "sshd does not listen"; exit 1; }
for daemon in "$ETC"/daemons/*; do
    if [ -e "$daemon" ]; then bash "$daemon" </dev/null; fi
done
echo up >"$RUN/$NODE.up"

# bash reaps whatever is orphaned to it, also while it reads.
while read -r _; do :; done
