# One step of apply, as root, over one exec. The workstation appends the calls and wraps everything in one compound
# command, so that a script cut in half on its way runs nothing. A step that began goes on when the connection dies:
# it is bounded in time, and a half-made step helps nobody. Every function may be called again after an interruption.
# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034  # nonce, token, holder and step_seconds are set, and some codes used, elsewhere
# shellcheck disable=SC2015,SC2174  # `a && b || stop …`: stop does not return; only the deepest folder is selfheal's

state=/var/lib/selfheal
run=/run/selfheal

frame() { printf '\n@%s %s\n' "$nonce" "$*"; }

# Exit codes that the workstation understands; any other is a failed command.
held=10 stale=11 rejected=12 full=13 unsafe=14

stop() { # CODE MESSAGE
	stop_code=$1
	shift
	printf '%s\n' "$*" >&2
	[ "$stop_code" -eq $held ] || renew_lease 60
	exit "$stop_code"
}

uptime_seconds() {
	read -r uptime_now _ </proc/uptime
	printf '%s' "${uptime_now%%.*}"
}

# The lease says whose turn it is; it ends by itself, in uptime, because a Pi's clock lies. A step of a run that died is
# waited for: it still holds the lock.
take_lease() {
	mkdir -p -m 0755 "$run"
	exec 9>"$run/step.lock"
	flock -w 600 9 || stop $held "a step of an earlier run is still going on"
	if [ -r "$run/lease" ]; then
		read -r lease_token lease_end lease_holder <"$run/lease" || lease_end=0
		if [ "$lease_token" != "$token" ] && [ "$lease_token" != "$dead_token" ] && [ "${lease_end:-0}" -gt "$(uptime_seconds)" ]; then
			stop $held "$lease_holder"
		fi
	fi
	renew_lease "$step_seconds"
}

renew_lease() { # SECONDS
	printf '%s %s %s\n' "$token" "$(($(uptime_seconds) + $1))" "$holder" >"$run/lease.new" &&
		mv -f "$run/lease.new" "$run/lease"
}

expect_absent() { # PATH
	[ ! -e "$1" ] && [ ! -L "$1" ] || stop $stale "$1 has appeared since the plan was made"
}

# A file that already is as the interrupted run wanted it is no surprise either.
expect_hash() { # PATH SHA256 [ALSO-FINE]
	[ -f "$1" ] && [ ! -L "$1" ] || stop $stale "$1 has gone since the plan was made"
	expect_now=$(sha256sum <"$1") || stop 1 "cannot read $1"
	expect_now=${expect_now%% *}
	[ "$expect_now" = "$2" ] || stop $stale "$1 has changed since the plan was made"
}

require_space() { # KIBIBYTES: writing half a file helps nobody
	for space_path in /etc "${state%/*}"; do
		space_free=$(df -Pk "$space_path" | awk 'NR == 2 { print $4 }')
		[ "${space_free:-0}" -ge "$1" ] || stop $full "no space left on $space_path: $space_free KiB free, $1 KiB needed"
	done
}

# The first thing that a step leaves on a node for good: once it is clear that the plan still holds.
make_state() {
	mkdir -p -m 0700 "$state" || stop 1 "cannot make $state"
}

# Copies a file with owner and mode to a folder of selfheal's, whole or not at all.
copy_below() { # FOLDER PATH
	copy_to=$1$2
	mkdir -p "${copy_to%/*}" || return 1
	cp -a -- "$2" "$copy_to.new" && sync -- "$copy_to.new" && mv -f -- "$copy_to.new" "$copy_to" &&
		sync -- "${copy_to%/*}"
}

keep_original() { # PATH
	copy_below "$state/original" "$1" || stop 1 "cannot keep the original of $1"
}

set_aside() { # PATH
	copy_below "$state/aside/$(date -u +%Y%m%dT%H%M%SZ)" "$1" || stop 1 "cannot set $1 aside"
}

put_state() { # NAME, content on stdin: a file of selfheal's own state, atomically
	(umask 077 && cat >"$state/$1.new") && sync -- "$state/$1.new" && mv -f -- "$state/$1.new" "$state/$1" &&
		sync -- "$state" || stop 1 "cannot write $state/$1"
}

# Files go in three moves, so that one sync serves many: stage each beside its target, sync all, rename all.
staged=
stage() { # PATH MODE OWNER GROUP, content in base64 on stdin
	stage_new=$1.selfheal-new
	stage_folder=${1%/*}
	[ -d "$stage_folder" ] || mkdir -p -- "$stage_folder" || stop 1 "cannot make $stage_folder"
	rm -f -- "$stage_new"
	(umask 077 && base64 -d >"$stage_new") && chown -- "$3:$4" "$stage_new" && chmod -- "$2" "$stage_new" ||
		{
			rm -f -- "$stage_new"
			stop 1 "cannot write $stage_new"
		}
	staged="$staged $(printf '%s' "$1" | base64 -w0)"
}

commit() {
	[ -n "$staged" ] || return 0
	sync -f "$state"
	sync -f /etc
	for commit_word in $staged; do
		commit_path=$(printf '%s' "$commit_word" | base64 -d)
		mv -f -- "$commit_path.selfheal-new" "$commit_path" || stop 1 "cannot put $commit_path in place"
	done
	sync -f /etc
	staged=
}

# What was received beside it takes its place; an old one is kept, to go back to.
install_asset() { # PATH
	if [ ! -f "$1.selfheal-new" ]; then
		[ -f "$1" ] || stop $stale "$1 was not received"
		return 0
	fi
	[ ! -f "$1" ] || ln -f -- "$1" "$1.prev" || stop 1 "cannot keep $1"
	mv -f -- "$1.selfheal-new" "$1" && sync -- "${1%/*}" || stop 1 "cannot put $1 in place"
}

discard() { # PATH
	rm -f -- "$1" "$1.prev" "$1.selfheal-new" || stop 1 "cannot remove $1"
}

put_secret() { # PATH, content on stdin: for root only, from its first byte on
	[ -d "${1%/*}" ] || mkdir -p -m 0755 -- "${1%/*}" || stop 1 "cannot make ${1%/*}"
	(umask 077 && cat >"$1.selfheal-new" && printf '\n' >>"$1.selfheal-new") && sync -- "$1.selfheal-new" &&
		mv -f -- "$1.selfheal-new" "$1" && sync -- "${1%/*}" || stop 1 "cannot write $1"
}

own_secret() { # PATH: one that is there stays, or a cluster would lose what it is known by
	if [ -s "$1" ]; then
		close_secret "$1"
		return 0
	fi
	own_word=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
	[ ${#own_word} -eq 64 ] || stop 1 "the node has no random numbers to give"
	printf '%s' "$own_word" | put_secret "$1" || exit 1
}

close_secret() { # PATH
	chown root:root -- "$1" && chmod 0600 -- "$1" || stop 1 "cannot close $1 to others"
}

remove() { # PATH
	rm -f -- "$1" "$1.selfheal-new" || stop 1 "cannot remove $1"
}

restore_original() { # PATH
	copy_from=$state/original$1
	rm -f -- "$1.selfheal-new"
	cp -a -- "$copy_from" "$1.selfheal-new" && sync -- "$1.selfheal-new" && mv -f -- "$1.selfheal-new" "$1" ||
		stop 1 "cannot put the original of $1 back"
}

forget_original() { # PATH
	rm -f -- "$state/original$1"
}

# The node is as it was: what was kept for the way back goes. What was set aside is the user's and stays.
leave_node() {
	for leave_path in "$state"/* "$state"/.[!.]*; do
		[ "$leave_path" = "$state/aside" ] || rm -rf -- "$leave_path"
	done
	rmdir -- "$state" 2>/dev/null
	for leave_path in /boot/firmware /boot; do
		rm -f -- "$leave_path"/*.selfheal-bak "$leave_path"/current/*.selfheal-bak "$leave_path"/new/*.selfheal-bak \
			"$leave_path"/old/*.selfheal-bak
	done
	rm -rf -- "$run"
}

mark_reboot() { # PATH: what was written there waits for the next boot
	grep -qxF -- "$1" "$run/reboot-pending" 2>/dev/null || printf '%s\n' "$1" >>"$run/reboot-pending"
}

# Takes the node down after this connection has its answer, and goes on should that hang. Not in this session, which a
# shutdown ends first.
go_down() { # SECONDS HOW, the script on stdin
	cat >"$run/go-down" || stop 1 "cannot write $run/go-down"
	rm -f -- "$state/forced-down"
	sync
	set -- /bin/sh "$run/go-down" "$1" "$state" /proc/sysrq-trigger "$2"
	# A wedged PID 1 starts no unit.
	timeout 30 systemd-run --quiet --collect --no-block --unit="selfheal-go-down-$nonce" \
		--property=DefaultDependencies=no "$@" </dev/null >/dev/null 2>&1 9>&- && return 0
	setsid "$@" </dev/null >/dev/null 2>&1 9>&- &
}

attempt() { # WHAT SECONDS COMMAND…: bounded, quiet unless it fails
	attempt_what=$1
	attempt_seconds=$2
	shift 2
	timeout -k 10 "$attempt_seconds" "$@" </dev/null >"$run/output" 2>&1 9>&-
	attempt_code=$?
	[ "$attempt_code" -eq 0 ] && return 0
	tail -n 15 "$run/output" >&2
	# systemctl only points at the journal: what the unit said is there.
	if [ "$1" = systemctl ]; then
		for attempt_unit; do :; done
		timeout 20 journalctl -q -b -n 8 -o cat --no-pager -u "$attempt_unit" </dev/null >&2 2>/dev/null
	fi
	[ "$attempt_code" -eq 124 ] && stop 1 "$attempt_what took longer than $attempt_seconds s"
	stop 1 "$attempt_what failed (exit code $attempt_code)"
}

# apt is left holding the step's lock: if this shell dies, the next run waits for it.
apt() { # WHAT ARGUMENT…
	apt_what=$1
	shift
	DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l timeout -k 30 1500 apt-get -q -y \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
		"$@" </dev/null >"$run/apt" 2>&1
	apt_code=$?
	[ "$apt_code" -eq 0 ] && return 0
	tail -n 15 "$run/apt" >&2
	stop 1 "$apt_what failed (exit code $apt_code)"
}

install_packages() { # NAME…
	if command -v cloud-init >/dev/null 2>&1; then
		timeout 600 cloud-init status --wait </dev/null >/dev/null 2>&1
	fi
	# An interrupted installation is finished first, or apt refuses everything.
	attempt 'dpkg --configure -a' 900 env DEBIAN_FRONTEND=noninteractive dpkg --force-confold --configure -a
	apt 'apt-get update' update
	apt "apt-get install $*" install --no-install-recommends "$@"
}

set_sysctl() { # KEY VALUE
	sysctl_file=/proc/sys/$(printf '%s' "$1" | tr ./ /.)
	(printf '%s\n' "$2" >"$sysctl_file") || stop 1 "cannot set $1 to '$2'"
}

set_hostname() { # NAME
	(umask 022 && printf '%s\n' "$1" >/etc/hostname.selfheal-new) && sync -- /etc/hostname.selfheal-new &&
		mv -f /etc/hostname.selfheal-new /etc/hostname && printf '%s\n' "$1" >/proc/sys/kernel/hostname ||
		stop 1 "cannot set the host name"
}

swap_off() {
	if command -v dphys-swapfile >/dev/null 2>&1; then
		timeout 300 dphys-swapfile swapoff </dev/null >/dev/null 2>&1
	fi
	attempt 'swapoff -a' 300 swapoff -a
}

# systemd answers nobody for a moment while it starts anew.
reexec() {
	attempt 'systemctl daemon-reexec' 120 systemctl daemon-reexec
	reexec_tries=0
	until timeout 10 systemctl show --property=Version </dev/null >/dev/null 2>&1 9>&-; do
		reexec_tries=$((reexec_tries + 1))
		[ "$reexec_tries" -lt 60 ] || stop 1 "systemd does not answer after systemctl daemon-reexec"
		sleep 1
	done
}

# k3s takes as long to start as it takes (domain.md §4.1), so nobody waits for it here.
start_k3s() { # UNIT
	attempt "systemctl start $1" 60 systemctl --no-block start "$1"
}

# Stopped first, so that nobody takes the old one for the new; also one that an interrupted run left stopped.
restart_k3s() { # UNIT
	timeout 30 systemctl is-enabled --quiet "$1" </dev/null >/dev/null 2>&1 9>&- || return 0
	attempt "systemctl stop $1" 120 systemctl stop "$1"
	start_k3s "$1"
}

# Before an upgrade: a datastore that a newer k3s has written cannot be read by an older one (domain.md §4.5). k3s is
# stopped for the copy, which its pods outlive; the end of the step starts it again. Without the token it is worth nothing.
keep_datastore() { # VERSION
	keep_db=/var/lib/rancher/k3s/server/db
	[ -d "$keep_db" ] || return 0
	if [ -d "$keep_db/etcd" ]; then
		attempt 'k3s etcd-snapshot save' 300 /usr/local/bin/k3s etcd-snapshot save --name "selfheal-before-upgrade"
		return 0
	fi
	keep_to=$state/datastore-$1
	keep_need=$(du -sk "$keep_db" | awk '{ print $1 + 16384 }')
	keep_free=$(df -Pk "$state" | awk 'NR == 2 { print $4 }')
	[ "${keep_free:-0}" -ge "$keep_need" ] || stop $full "no space left to keep the datastore: $keep_free KiB free, $keep_need KiB needed"
	attempt 'systemctl stop k3s.service' 120 systemctl stop k3s.service
	rm -rf -- "$keep_to.new" && (umask 077 && mkdir -- "$keep_to.new") && cp -a -- "$keep_db" "$keep_to.new/db" &&
		cp -a -- /var/lib/rancher/k3s/server/token "$keep_to.new/token" && sync -f -- "$keep_to.new" ||
		stop 1 "cannot keep the datastore in $keep_to"
	for keep_old in "$state"/datastore-v*; do # the newest one is enough
		[ ! -d "$keep_old" ] || [ "$keep_old" = "$keep_to.new" ] || rm -rf -- "$keep_old"
	done
	mv -- "$keep_to.new" "$keep_to" && sync -- "$state" || stop 1 "cannot keep the datastore in $keep_to"
}

# Pods outlive k3s; a node that leaves its cluster ends them: their processes, then what they have mounted. Nothing below
# a mount is ever deleted.
end_pods() {
	for end_try in 1 2 3; do
		end_processes=$(pod_processes)
		[ -n "$end_processes" ] || break
		# shellcheck disable=SC2086  # numbers
		kill -KILL $end_processes 2>/dev/null
		sleep 1
	done
	[ -z "$(pod_processes)" ] || stop 1 "pods do not end: $(pod_processes | tr '\n' ' ')"
	for end_try in 1 2 3; do # mounts upon mounts
		awk '$5 ~ "^/(run/k3s|run/netns/cni-|var/lib/kubelet/(pods|plugins))" { print $5 }' /proc/self/mountinfo |
			sort -r | while read -r end_mount; do
			timeout 30 umount -- "$(printf '%b' "$end_mount")" </dev/null 2>/dev/null 9>&-
		done
	done
	for end_link in cni0 flannel.1 flannel-v6.1 flannel-wg; do
		[ ! -e "/sys/class/net/$end_link" ] || timeout 30 ip link delete "$end_link" </dev/null 2>/dev/null 9>&-
	done
	return 0
}

# What k3s keeps of its cluster goes, in order that the node can join as a new one. A server's datastore and the volumes
# of the local storage may be the user's only copy: they are set aside, where they need no more room than before.
leave_cluster() {
	leave_data=/var/lib/rancher/k3s
	leave_mount=$(awk -v own="^($leave_data|/var/lib/(kubelet|cni))/" \
		'$5 ~ own && $5 !~ "^/var/lib/rancher/k3s/(storage|aside-)" { print $5; exit }' /proc/self/mountinfo)
	[ -z "$leave_mount" ] || stop 1 "something is mounted at $leave_mount, so nothing of k3s's data was removed"
	leave_aside=$leave_data/aside-1
	while [ -e "$leave_aside" ]; do leave_aside=$leave_data/aside-$((${leave_aside##*-} + 1)); done
	for leave_part in "$leave_data/server" "$leave_data/storage"; do
		if [ ! -d "$leave_part" ] || [ -z "$(ls -A -- "$leave_part")" ] || mountpoint -q -- "$leave_part"; then continue; fi
		[ -d "$leave_aside" ] || mkdir -m 0700 -- "$leave_aside" || stop 1 "cannot make $leave_aside"
		mv -- "$leave_part" "$leave_aside/" && sync -- "$leave_data" || stop 1 "cannot set $leave_part aside"
	done
	for leave_part in "$leave_data"/* "$leave_data"/.[!.]* /var/lib/kubelet /var/lib/cni /etc/cni/net.d/10-flannel.conflist \
		/etc/rancher/node /etc/rancher/k3s/k3s.yaml /run/k3s /run/flannel; do
		case $leave_part in "$leave_data"/aside-*) continue ;; esac
		if [ ! -e "$leave_part" ] && [ ! -L "$leave_part" ] || mountpoint -q -- "$leave_part"; then continue; fi
		rm -rf --one-file-system -- "$leave_part" || stop 1 "cannot remove $leave_part"
	done
	for leave_part in /etc/rancher/k3s /etc/rancher "$leave_data" "${leave_data%/*}"; do
		[ ! -d "$leave_part" ] || rmdir --ignore-fail-on-non-empty -- "$leave_part" || stop 1 "cannot remove $leave_part"
	done
	return 0
}

# The shims of k3s's containerd, and all that they have started.
pod_processes() {
	ps -e -o pid= -o ppid= -o args= | awk '
		{ parent[$1] = $2 }
		$3 ~ "^/var/lib/rancher/k3s/data/[^/]+/bin/containerd-shim" { pod[$1] = 1 }
		END {
			do {
				more = 0
				for (id in parent) if (!(id in pod) && parent[id] in pod) { pod[id] = 1; more = 1 }
			} while (more)
			for (id in pod) print id
		}'
}

reload() { # UNIT: only what runs can reload
	systemctl is-active --quiet "$1" || return 0
	attempt "systemctl reload $1" 90 systemctl reload "$1"
}

restart() { # UNIT
	systemctl is-active --quiet "$1" || return 0
	attempt "systemctl restart $1" 90 systemctl restart "$1"
	# What journald held in memory has to follow it to the disk, or the next reboot erases it (domain.md §3.5).
	[ "$1" != systemd-journald.service ] || attempt 'journalctl --flush' 90 journalctl --flush
}

# sshd must accept its files, and must mean by them what was intended: an earlier file wins over a later one.
check_sshd() { # 'KEYWORD VALUE'…
	sshd_program=$(command -v sshd || printf /usr/sbin/sshd)
	mkdir -p /run/sshd
	sshd_said=$("$sshd_program" -t 2>&1) || {
		printf '%s\n' "$sshd_said" >&2
		return 1
	}
	sshd_means=$("$sshd_program" -T 2>/dev/null)
	for sshd_wanted in "$@"; do
		printf '%s\n' "$sshd_means" | grep -qixF -- "$sshd_wanted" || {
			printf 'sshd does not obey "%s": %s\n' "$sshd_wanted" \
				"another file decides it (it says '$(printf '%s\n' "$sshd_means" | grep -i "^${sshd_wanted%% *} ")')" >&2
			return 1
		}
	done
}
