# What doctor wants to know of a node, in one script over one exec. Only reads, and takes no lock. It comes after
# probe.sh, whose functions it uses. Each measurement is a child of its own, and all run at once; what hangs is not
# waited for beyond its deadline: a process that is stuck in the kernel cannot be killed, so only its parent is, which
# holds our stdout. On a node that is merely busy, where others still come to their end, a child has longer. /proc and /sys are read before a tool is called, and nothing below a network mount is touched.
# A measurement's text goes out when it is whole, in lines "@NONCE part NAME TEXT" short enough for one write, with
# newlines as \001; then "@NONCE done NAME". The text is made of frames, as the probe's reply.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # nonce, deadline, limit, virtual and the lists are set by the workstation
# shellcheck disable=SC2317,SC2329  # the measurements are called by their names

measure() { # NAME
	(
		measured=$("$1" 2>/dev/null </dev/null | tr '\n\000\200-\377' '\001[?*]')
		[ "${#measured}" -le 3800 ] || measured=$(printf '%s' "$measured" | fold -b -w 3800)
		IFS='
'
		set -f
		for part in $measured; do printf '@%s part %s %s\n' "$nonce" "$1" "$part"; done
		printf '@%s done %s\n' "$nonce" "$1"
	) 2>/dev/null &
	children="$children $!"
}

timer() { # gives up what hangs: when nothing has come to its end for as long as the deadline, or at the limit
	alive=$children idle=0 age=0
	while [ "$idle" -lt "$deadline" ] && [ "$age" -lt "$limit" ]; do
		sleep 1
		before=$alive alive=
		for child in $children; do kill -0 "$child" && alive="$alive $child"; done
		[ "$alive" = "$before" ] && idle=$((idle + 1)) || idle=0
		age=$((age + 1))
	done
	# shellcheck disable=SC2086  # numbers
	kill -KILL $children
}

line() { # NAME FILE: a frame with the file's first line
	frame "$1"
	[ -r "$2" ] && IFS= read -r first_line <"$2" && printf '%s' "$first_line"
	return 0
}

soon() { timeout -k 1 "$((limit + 2))" "$@"; } # a tool that may hang: it does not stay behind for ever

clock() { frame 'doctor clock' && date +%s.%N; }

boot_files() { # the probe's, and those that tell how Ubuntu's trial boots went
	for boot_path in $boot_paths; do file "$boot_path"; done
}

managed_files() {
	show ledger /var/lib/selfheal/ledger
	[ -r /var/lib/selfheal/ledger ] || return 0
	set --
	while IFS='	' read -r _ owned_kind owned_key _; do
		[ "$owned_kind" = file ] && set -- "$@" "$owned_key"
	done </var/lib/selfheal/ledger
	frame 'doctor hashes'
	[ $# -eq 0 ] || sha256sum -- "$@"
	return 0
}

kernel() {
	for key in kernel.panic kernel.panic_on_oops kernel.softlockup_panic kernel.panic_on_rcu_stall; do
		sysctl_key "$key"
	done
	line 'doctor expedited-timeout' /sys/module/rcupdate/parameters/rcu_exp_cpu_stall_timeout
	show 'doctor pressure-memory' /proc/pressure/memory
	show 'doctor pressure-io' /proc/pressure/io
	frame 'doctor watchdog'
	[ -c /dev/watchdog0 ] && printf 'device yes\n'
	for key in identity state timeout bootstatus; do
		[ -r "/sys/class/watchdog/watchdog0/$key" ] || continue
		IFS= read -r first_line <"/sys/class/watchdog/watchdog0/$key" && printf '%s %s\n' "$key" "$first_line"
	done
	frame 'doctor ext4-errors' && grep -s . /sys/fs/ext4/*/errors_count /dev/null
	line 'doctor rtc' /sys/class/rtc/rtc0/name
	return 0
}

tasks() { # in uninterruptible sleep: id, name, when it last ran (ms since boot), where it waits
	frame 'doctor waiting-tasks'
	cat /proc/[0-9]*/stat 2>/dev/null | grep ') D ' | head -n 20 | while IFS= read -r task; do
		task_id=${task%% *}
		task_name=${task#*\(}
		task_name=${task_name%\) D *}
		ran=$(grep -m 1 exec_start "/proc/$task_id/sched") || ran=' -'
		IFS= read -r waits_in <"/proc/$task_id/wchan" || waits_in=${waits_in:--}
		printf '%s %s %s %s\n' "$task_id" "${ran##* }" "$waits_in" "$task_name"
	done
	return 0
}

kernel_log() { # BOOT: lines of its kernel log that tell of trouble
	soon journalctl -q --no-pager -k -b "$1" -o short-unix |
		grep -E 'rcu.*(stall|starved)|blocked for more than|EXT4-fs error|ounting filesystem read-only|Kernel panic' |
		tail -n 500 | cut -c 1-400
}

log() {
	command -v journalctl >/dev/null || return 1
	frame 'doctor log' && kernel_log 0
}

log_before() {
	frame 'doctor log-before' && kernel_log -1
	frame 'doctor last-words' && soon journalctl -q --no-pager -b -1 -n 60 -o short-unix | cut -c 1-400
	return 0
}

journal() {
	frame 'doctor journal-boots' && soon journalctl -q --no-pager --list-boots
	frame 'doctor journal-storage' && soon systemd-analyze cat-config systemd/journald.conf | grep '^ *Storage='
	frame 'doctor journal-files'
	for journal_file in /run/log/journal/*/system.journal /var/log/journal/*/system.journal; do
		[ -e "$journal_file" ] && printf '%s\n' "$journal_file"
	done
	[ -d /var/log/journal ] && printf '/var/log/journal\n'
	return 0
}

systemd() {
	frame 'doctor manager' && soon systemctl show -p RuntimeWatchdogUSec -p RebootWatchdogUSec
	units='watchdog.service wd_keepalive.service nftables.service firewalld.service' packages=
	answers_in_bulk
}

debian() {
	frame 'doctor architecture' && soon dpkg --print-architecture
	packages='nfs-common nfs-kernel-server cifs-utils' units=
	answers_in_bulk
}

sshd_settings() { sshd_effective; }

space() { # of local file systems: total, free, available blocks; total and free inodes; where
	frame 'doctor space'
	spaces=
	while read -r device point type _; do
		case "$type" in ext2 | ext3 | ext4 | xfs | btrfs | f2fs) ;; *) continue ;; esac
		case "$spaces" in *"|$device|"*) continue ;; esac
		spaces="$spaces|$device|"
		case "$point" in *\\*) point=$(printf '%b' "$(printf '%s' "$point" | sed 's/\\/\\0/g')") ;; esac
		stat -f -c '%b %f %a %c %d %n' -- "$point"
	done </proc/mounts
	return 0
}

board() {
	line 'doctor temperature' /sys/class/thermal/thermal_zone0/temp
	frame 'doctor throttled'
	[ -n "$virtual" ] && return 0
	if [ -r /sys/devices/platform/soc/soc:firmware/get_throttled ]; then
		printf 'throttled=0x%s' "$(cat /sys/devices/platform/soc/soc:firmware/get_throttled)"
	elif command -v vcgencmd >/dev/null; then
		soon vcgencmd get_throttled
	else
		for monitor in /sys/class/hwmon/hwmon*; do
			[ "$(cat "$monitor/name")" = rpi_volt ] && printf 'undervoltage=%s' "$(cat "$monitor/in0_lcrit_alarm")"
		done
	fi
	return 0
}

time_sync() {
	frame 'doctor synchronised'
	if [ -e /run/systemd/timesync/synchronized ]; then
		printf yes
	else
		soon timedatectl show -p NTPSynchronized --value
	fi
	frame 'doctor last-clock' && stat -c %Y /var/lib/systemd/timesync/clock
	return 0
}

network() {
	frame 'fact addresses' && ip -o addr show scope global
	frame 'fact default-route' && ip -o -4 route show default
	show 'doctor hosts' /etc/hosts
	return 0
}

peers() { # ADDRESS PORT OUTCOME: whether the other nodes' ports answer; "refused" is an answer, too
	frame 'doctor peers'
	for peer in $peer_ports; do
		(
			# shellcheck disable=SC2016  # bash's own arguments
			said=$(timeout 3 bash -c ': <>"/dev/tcp/$1/$2"' bash "${peer%,*}" "${peer#*,}" 2>&1)
			case "$?/$said" in
			0/*) peer_is=open ;;
			124/*) peer_is=silent ;;
			*refused*) peer_is=refused ;;
			*oute\ to\ host* | *nreachable*) peer_is=unreachable ;;
			*) peer_is=unknown ;;
			esac
			printf '%s %s %s\n' "${peer%,*}" "${peer#*,}" "$peer_is"
		) &
	done
	wait
}

settings() {
	show 'doctor fstab' /etc/fstab
	frame 'doctor initiator' && sed -n 's/^InitiatorName *= *//p' /etc/iscsi/initiatorname.iscsi | tail -n 1
	frame 'doctor ufw' && grep -s -m 1 '^ENABLED=' /etc/ufw/ufw.conf
	frame 'doctor flush' && grep -s -n '^[[:space:]]*flush ruleset' /etc/nftables.conf /etc/nftables/*.nft /dev/null
	return 0
}

tick_rate() { # CONFIG_HZ, which turns jiffies into seconds
	IFS= read -r release </proc/sys/kernel/osrelease
	frame 'doctor hz'
	grep -h -m 1 '^CONFIG_HZ=' "/boot/config-$release" 2>/dev/null ||
		{ [ -r /proc/config.gz ] && zcat /proc/config.gz | grep -m 1 '^CONFIG_HZ='; }
	return 0
}

kernels() { # when a reboot was asked for, and when each kernel came
	frame 'doctor reboot-required' && stat -c %Y /run/reboot-required
	show 'doctor reboot-packages' /run/reboot-required.pkgs
	frame 'doctor kernels' && stat -c '%Y %n' /lib/modules/*/
	return 0
}

records() { # what selfheal and the kernel wrote down of earlier boots
	frame 'doctor boots' && [ -r /var/lib/selfheal/boots.log ] && tail -n 500 /var/lib/selfheal/boots.log
	frame 'doctor safe-mode'
	if [ -e /run/selfheal/safe-mode ]; then
		printf 'yes\n' && cat /run/selfheal/safe-mode
	fi
	frame 'doctor pstore' && find /sys/fs/pstore /var/lib/systemd/pstore -type f -exec stat -c '%Y %n' {} +
	frame 'doctor panics' &&
		find /sys/fs/pstore /var/lib/systemd/pstore -type f -exec grep -h -a -m 1 'Kernel panic' {} + | tail -n 3
	return 0
}

kernel_modules() {
	frame 'doctor modules'
	for name in $module_names; do
		if [ -d "/sys/module/$name" ]; then
			state=loaded
		else
			state=$(modprobe --show-depends -q "$name" | tail -n 1)
			case "$state" in builtin*) state=loaded ;; '') state=missing ;; *) state=loadable ;; esac
		fi
		printf '%s %s\n' "$name" "$state"
	done
	return 0
}

nvme_health() {
	frame 'doctor nvme'
	for controller in /sys/class/nvme/nvme*; do
		[ -e "$controller" ] && printf '%s\n' "${controller##*/}"
	done
	command -v nvme >/dev/null || return 0
	for controller in /sys/class/nvme/nvme*; do
		[ -e "$controller" ] || continue
		frame "doctor smart ${controller##*/}" && soon nvme smart-log -o json "/dev/${controller##*/}"
	done
	return 0
}

storage_log() { # what the kernel says of cards and drives, in a day
	command -v journalctl >/dev/null || return 1
	frame 'doctor storage-log'
	soon journalctl -q --no-pager _TRANSPORT=kernel --since=-24h -o short-unix |
		grep -E 'mmc[0-9]+:.*(error|timeout|timed out|CRC)|I/O error|nvme.*(timeout|reset controller|controller is down|I/O Cmd)|usb .*reset SuperSpeed|uas_eh_(abort|device_reset)' |
		grep -v -E 'dev (loop|fd|sr|zram)[0-9]' | tail -n 200 | cut -c 1-400
	return 0
}

k3s_units() { # k3s, the gate before it, and what Longhorn needs or cannot bear
	frame 'doctor k3s-units'
	soon systemctl show --property=Id,LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result \
		--property=ActiveEnterTimestampMonotonic,After,ExecStartPre -- k3s.service k3s-agent.service \
		selfheal-clock.service iscsid.service iscsid.socket multipathd.service multipathd.socket
}

k3s_version() {
	frame 'doctor k3s-version'
	command -v k3s >/dev/null && soon k3s --version
	return 0
}

k3s_files() { # modes and sizes; what is secret is not read
	frame 'doctor k3s-files'
	for k3s_file in /etc/rancher/k3s/k3s.yaml /etc/rancher/k3s/config.yaml /etc/rancher/k3s/token \
		/etc/rancher/k3s/agent-token /etc/rancher/node/password \
		/var/lib/rancher/k3s/server/token /var/lib/rancher/k3s/server/agent-token \
		/var/lib/rancher/k3s/server/db/state.db /var/lib/rancher/k3s/server/db/state.db-wal \
		/var/lib/rancher/k3s/server/db/etcd/member/snap/db; do
		[ -e "$k3s_file" ] && stat -L -c '%a %U %s %n' -- "$k3s_file"
	done
	show 'doctor last-guard' /var/lib/selfheal/last-guard
	show 'doctor guard-outcome' /run/selfheal/guard
	show 'doctor clock-gate' /var/lib/selfheal/last-clock
	frame 'doctor scripts'
	for k3s_file in guard clock reap alive; do
		[ -x "/usr/local/libexec/selfheal/$k3s_file" ] && printf '%s\n' "$k3s_file"
	done
	return 0
}

# Names that are taken, of the last 15 minutes; of the last two that the cluster does not accept this node, for it asks
# again every few seconds, and doctor is to see that it is over.
k3s_log() {
	frame 'doctor k3s-log'
	k3s_now=$(date +%s)
	soon journalctl -q --no-pager -u k3s.service -u k3s-agent.service --since=-15min -o short-unix |
		awk -v now="$k3s_now" '
			/failed to reserve (sandbox|container) name|is reserved for/ { print }
			/Node password rejected/ && $1 > now - 120 { print }' |
		tail -n 50 | cut -c 1-400
	return 0
}

certificates() { # the first of each file is its own, the others are the CA's
	for certificate in /var/lib/rancher/k3s/server/tls/*.crt /var/lib/rancher/k3s/server/tls/etcd/*.crt \
		/var/lib/rancher/k3s/agent/*.crt; do
		[ -s "$certificate" ] || continue
		frame "doctor certificate $certificate"
		sed -n '/-----BEGIN CERTIFICATE/,$p; /-----END CERTIFICATE/q' "$certificate"
	done
	return 0
}

api() { # five times: exit code, uptime before and after, the milliseconds that kubectl says, its last line
	[ -r /etc/rancher/k3s/k3s.yaml ] || return 0
	frame 'doctor api'
	for _ in 1 2 3 4 5; do
		read -r api_began _ </proc/uptime
		api_said=$(timeout -k 1 8 k3s kubectl --kubeconfig /etc/rancher/k3s/k3s.yaml get --raw /readyz -v=6 2>&1)
		api_code=$?
		read -r api_ended _ </proc/uptime
		api_took=$(printf '%s\n' "$api_said" | sed -n 's/.* in \([0-9]*\) milliseconds.*/\1/p; s/.* milliseconds=\([0-9]*\).*/\1/p' | tail -n 1)
		printf '%s %s %s %s %s\n' "$api_code" "$api_began" "$api_ended" "${api_took:--}" \
			"$(printf '%s\n' "$api_said" | tail -n 1 | cut -c 1-300)"
		[ "$api_code" -eq 0 ] || break
	done
	return 0
}

cluster() { # what a server's API knows of nodes and pods
	[ -r /etc/rancher/k3s/k3s.yaml ] || return 0
	frame 'doctor cluster'
	soon k3s kubectl --kubeconfig /etc/rancher/k3s/k3s.yaml get nodes,pods -A -o json
	return 0
}

guard() { # what systemd complains of in k3s's own units
	frame 'doctor verify'
	for guard_unit in k3s.service k3s-agent.service; do
		[ -e "/etc/systemd/system/$guard_unit" ] || continue
		soon systemd-analyze verify "$guard_unit" 2>&1 | grep -E 'k3s|selfheal' | head -n 5 | cut -c 1-400
	done
	return 0
}

k3s_runs() { soon systemctl is-active --quiet k3s.service || soon systemctl is-active --quiet k3s-agent.service; }

ghosts() { # what the reaper would remove
	frame 'doctor ghosts'
	[ -x /usr/local/libexec/selfheal/reap ] && k3s_runs || return 0
	soon /usr/local/libexec/selfheal/reap look 2>&1
	printf 'exit %s\n' "$?"
}

leases() { # files of 0 bytes; addresses with their owners, those of the last two minutes left out; all sandboxes
	frame 'doctor leases'
	[ -d /var/lib/cni ] || { printf 'answered\n' && return 0; }
	find /var/lib/cni -type f -size 0 ! -name lock ! -path '*.stale-*' | head -n 20 | sed 's/^/empty /'
	find /var/lib/cni/networks -type f -mmin +2 ! -name lock ! -name 'last_reserved_ip*' | head -n 300 |
		while IFS= read -r lease_file; do
			lease_owner=
			IFS= read -r lease_owner <"$lease_file"
			printf 'lease %s %s\n' "${lease_file##*/}" "$(printf '%s' "${lease_owner%% *}" | tr -d '\r')"
		done
	k3s_runs || return 0
	lease_sandboxes=$(soon k3s crictl --timeout 30s pods -q --no-trunc) || return 0
	printf '%s\n' "$lease_sandboxes" | sed '/./s/^/sandbox /'
	printf 'answered\n'
}

examine() {
	printf '\n@%s begin\n' "$nonce"
	for measurement in $measurements; do measure "$measurement"; done
	timer >/dev/null 2>&1 &
	timer_id=$!
	# shellcheck disable=SC2086  # numbers
	wait $children 2>/dev/null
	kill "$timer_id" 2>/dev/null
	printf '\n@%s end\n' "$nonce"
}
