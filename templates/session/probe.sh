# All questions about a node, in one script over one exec. Only reads. The workstation appends one call per question,
# wraps everything in one compound command (a script cut in half on its way must run nothing) and reads the frames:
# each starts with a line "@NONCE NAME ARGUMENT" and ends before the newline that precedes the next such line.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # nonce, content_limit and the question lists are set by the workstation

frame() { printf '\n@%s %s\n' "$nonce" "$*"; }

show() { # NAME FILE: a frame with the file's content, empty when there is no such file
	frame "$1"
	[ -r "$2" ] && cat -- "$2"
	return 0
}

# PATH: type and permissions in hex, owner, group, size; then the content, or its hash when it is large
file() {
	case "$files_asked" in *"|$1|"*) return 0 ;; esac
	files_asked="$files_asked|$1|"
	frame "file $1"
	if [ -L "$1" ]; then
		printf 'link %s' "$(readlink -- "$1")"
	elif [ -f "$1" ]; then
		file_stat=$(stat -c '%f %U %G %s' -- "$1") || return 0
		if [ "${file_stat##* }" -le "$content_limit" ]; then
			printf 'file %s content\n' "$file_stat"
			head -c "$content_limit" -- "$1"
		else
			file_hash=$(sha256sum -- "$1")
			printf 'file %s sha256 %s' "$file_stat" "${file_hash%% *}"
		fi
	elif [ -d "$1" ]; then
		printf 'directory'
	elif [ -e "$1" ]; then
		printf 'special'
	else
		printf 'absent'
	fi
}

sysctl_key() { # KEY: its runtime value; a missing key has no value line
	frame "sysctl $1"
	sysctl_path=$(printf '%s' "$1" | tr ./ /.)
	[ -r "/proc/sys/$sysctl_path" ] && cat "/proc/sys/$sysctl_path" 2>/dev/null
	return 0
}

module() { # NAME: whether it is there, loaded or built in
	frame "module $1"
	[ -d "/sys/module/$1" ] && printf 'loaded'
	return 0
}

authorized_keys() { # USER: where sshd looks for the user's keys, then the file itself
	frame "home $1"
	user_line=$(getent passwd "$1") || return 0
	user_home=${user_line%:*}
	user_home=${user_home##*:}
	printf '%s' "$user_home"
	file "$user_home/.ssh/authorized_keys"
}

owned() { # what selfheal owns on this node is looked at too, wanted or not
	show ledger /var/lib/selfheal/ledger
	[ -r /var/lib/selfheal/ledger ] || return 0
	while IFS='	' read -r _ owned_kind owned_key _; do
		case "$owned_kind" in
		directory) file "$owned_key" ;;
		file | edit) file "$owned_key" && file "/var/lib/selfheal/original$owned_key" ;;
		unit) units="$units $owned_key" ;;
		hold | package) packages="$packages $owned_key" ;;
		sysctl) sysctl_key "$owned_key" ;;
		secret) secret "$owned_key" ;;
		esac
	done </var/lib/selfheal/ledger
}

facts() {
	frame 'fact user' && id -u
	show 'fact os-release' /etc/os-release
	show 'fact kernel' /proc/sys/kernel/osrelease
	frame 'fact machine' && uname -m
	show 'fact hostname' /proc/sys/kernel/hostname
	show 'fact boot-id' /proc/sys/kernel/random/boot_id
	show 'fact machine-id' /etc/machine-id
	show 'fact uptime' /proc/uptime
	frame 'fact clock' && date +%s
	show 'fact command-line' /proc/cmdline
	show 'fact cgroup-controllers' /sys/fs/cgroup/cgroup.controllers
	frame 'fact psi' && [ -e /proc/pressure/cpu ] && printf yes
	show 'fact rcu-exp-cpu-stall-timeout' /sys/module/rcupdate/parameters/rcu_exp_cpu_stall_timeout
	frame 'fact watchdog'
	for watchdog_file in identity max_timeout; do
		[ -r "/sys/class/watchdog/watchdog0/$watchdog_file" ] &&
			printf '%s %s\n' "$watchdog_file" "$(cat "/sys/class/watchdog/watchdog0/$watchdog_file")"
	done
	resets
	show 'fact mounts' /proc/self/mountinfo
	show 'fact swaps' /proc/swaps
	show 'fact memory' /proc/meminfo
	frame 'fact model' && [ -r /proc/device-tree/model ] && tr -d '\0' </proc/device-tree/model
	for free_mount in / /boot/firmware /boot; do
		frame "free $free_mount" && [ -d "$free_mount" ] && stat -f -c '%a %S' -- "$free_mount"
	done
	frame 'fact init' && [ -d /run/systemd/system ] && printf systemd
	frame 'fact apt' && command -v apt-get
	frame 'fact cloud-init' && command -v cloud-init
	show 'lease' /run/selfheal/lease
	show 'pending-restart' /var/lib/selfheal/pending-restart
	show 'safe-mode' /run/selfheal/safe-mode
	show 'reboot-pending' /run/selfheal/reboot-pending
	show 'dead-man' /var/lib/selfheal/deadman/armed
	show 'dead-man-last' /var/lib/selfheal/deadman/last
	show 'forced-down' /var/lib/selfheal/forced-down
	frame 'state'
	for state_path in /var/lib/selfheal/*; do
		[ -e "$state_path" ] && printf '%s\n' "${state_path##*/}"
	done
	return 0
}

# Drives that the kernel had to reset since it booted, in its own words; asked only where there may be such drives. One
# that does not come back has no folder in /sys/class any more.
resets() {
	if [ -d /sys/module/nvme ]; then
		frame 'fact nvme-reset'
		dmesg 2>/dev/null | grep -m 1 -E 'nvme nvme[0-9]+: .*(will reset|reset controller|power saving mode)'
	fi
	for resets_host in /sys/bus/usb/drivers/uas/*:*/host*; do
		[ -d "$resets_host" ] || continue
		resets_drive=$(cat "${resets_host%/*}/../idVendor"):$(cat "${resets_host%/*}/../idProduct")
		frame "uas-reset $resets_drive"
		dmesg 2>/dev/null | grep -m 1 "scsi ${resets_host##*/}: uas_eh_device_reset_handler"
	done
	return 0
}

network() { # where the node is reached, and the interface that leads to everywhere else
	frame 'fact addresses' && ip -o addr show scope global 2>/dev/null
	frame 'fact default-route' && ip -o -4 route show default 2>/dev/null
	return 0
}

# PATH: of a secret only what it takes to compare it: mode, owner, and the hash of it without the newline at its end
secret() {
	frame "secret $1"
	[ -f "$1" ] && [ ! -L "$1" ] || return 0
	secret_hash=$(printf '%s' "$(cat -- "$1")" | sha256sum)
	printf '%s %s' "$(stat -c '%a %U' -- "$1")" "${secret_hash%% *}"
}

k3s_version() {
	frame k3s-version
	[ -x /usr/local/bin/k3s ] && timeout 20 /usr/local/bin/k3s --version 2>/dev/null
	return 0
}

cluster_nodes() { # nothing where no API server runs here, or does not answer
	frame cluster-nodes
	timeout 5 systemctl is-active --quiet k3s.service || return 0
	timeout 20 /usr/local/bin/k3s kubectl --kubeconfig /etc/rancher/k3s/k3s.yaml --request-timeout=15s \
		get nodes -o json 2>/dev/null
	return 0
}

stranger() { # what `selfheal init` wants to know besides, of a machine that it sees for the first time
	frame 'fact virtual-machine' && systemd-detect-virt --vm 2>/dev/null
	frame 'fact raspberry-pi-os' && [ -e /etc/rpi-issue ] && printf yes
	return 0
}

# ARGUMENT...: what `systemctl show` says. systemd answers nobody for a moment while it starts anew, and no answer must
# not be read as "there is no such unit".
systemd_says() {
	systemd_tries=0
	until systemd_said=$(timeout 10 systemctl show "$@" 2>/dev/null); do
		[ -d /run/systemd/system ] || return 0
		systemd_tries=$((systemd_tries + 1))
		[ "$systemd_tries" -lt 20 ] || { frame 'silent systemd' && return 0; }
		sleep 1
	done
	printf '%s\n' "$systemd_said"
}

answers_in_bulk() { # kinds of which one command answers for all
	# shellcheck disable=SC2086  # the lists are names without blanks
	if [ -n "$units" ]; then
		frame units
		systemd_says --property=Id,LoadState,ActiveState,UnitFileState -- $units
	fi
	# shellcheck disable=SC2086
	if [ -n "$packages" ]; then
		frame packages
		# shellcheck disable=SC2016  # dpkg-query's own format
		dpkg-query -W -f='${Package} ${db:Status-Want} ${db:Status-Status} ${Version}\n' $packages 2>/dev/null
	fi
	return 0
}

disks() { # the file systems of all disks, mounted or not
	frame disks
	timeout 20 blkid -o export 2>/dev/null
	return 0
}

manager() { # what systemd itself obeys, after all its files, and which of them speak of watchdogs
	frame manager
	systemd_says --property=RuntimeWatchdogUSec --property=RebootWatchdogUSec
	grep -ls '^ *\(Runtime\|Reboot\)WatchdogSec=' /etc/systemd/system.conf.d/*.conf /run/systemd/system.conf.d/*.conf \
		/usr/local/lib/systemd/system.conf.d/*.conf /usr/lib/systemd/system.conf.d/*.conf | sed 's/^/drop-in=/'
	return 0
}

sshd_effective() { # what sshd really obeys, after all its files
	frame sshd
	sshd_program=$(command -v sshd || printf /usr/sbin/sshd)
	"$sshd_program" -T 2>/dev/null
	return 0
}
