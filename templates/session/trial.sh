# Ubuntu's two sets of boot files (domain.md §1.3): a new command line goes into new/, the next boot tries it, and the
# node keeps it only if it comes up. current/, which it boots otherwise, is never touched. Needs step.sh and boot.sh.
# shellcheck shell=sh
# shellcheck disable=SC2154  # state, run and the exit codes are step.sh's
# shellcheck disable=SC2015  # `a && b || stop …`: stop does not return

# Locks of apt and dpkg are fcntl(2)'s, which only the kernel's list shows.
locks=/proc/locks dpkg=/var/lib/dpkg

await_packages() { # SECONDS: apt and dpkg rebuild boot files; while they work, nothing here is to be relied upon
	packages_waited=0
	while packages_at_work; do
		[ "$packages_waited" -lt "$1" ] || stop "$unsafe" "apt or dpkg has been at work for $1 s; boot files are left alone meanwhile"
		packages_waited=$((packages_waited + 2))
		sleep 2
	done
}

packages_at_work() {
	for packages_lock in "$dpkg/lock-frontend" "$dpkg/lock"; do
		[ -e "$packages_lock" ] || continue
		packages_inode=$(stat -c %i -- "$packages_lock") && grep -q "POSIX.*:$packages_inode " "$locks" && return 0
	done
	return 1
}

hash_of() { # FILE: its sha256; nothing where there is none
	[ -f "$1" ] || return 0
	hash_line=$(sha256sum <"$1") && printf '%s' "${hash_line%% *}"
}

trial_state() { # FOLDER
	trial_word=
	[ ! -r "$1/new/state" ] || read -r trial_word <"$1/new/state"
	printf '%s' "$trial_word"
}

await_trial() { # FOLDER SECONDS: a trial boot under way is over soon
	trial_waited=0
	while [ "$(trial_state "$1")" = trying ] && [ "$trial_waited" -lt "$2" ]; do
		trial_waited=$((trial_waited + 1))
		sleep 1
	done
}

# flash-kernel clears old/ and new/ away first. A newer kernel may be larger than the one in current/: an eighth more,
# and what the line itself takes.
require_second_set() { # FOLDER
	set_needed=$(($(kibibytes "$1/current") * 9 / 8 + 1024))
	set_free=$(df -Pk -- "$1" | {
		read -r _
		read -r _ _ _ set_available _
		printf '%s' "$set_available"
	})
	set_free=$((${set_free:-0} + $(kibibytes "$1/old") + $(kibibytes "$1/new")))
	[ "$set_free" -ge "$set_needed" ] ||
		stop "$unsafe" "$1 has room for $set_free KiB, and a second set of boot files takes $set_needed KiB: make the partition larger, or set boot.trial = false and do without the trial"
}

kibibytes() { # FOLDER
	[ -d "$1" ] || {
		printf 0
		return 0
	}
	du -sk -- "$1" | {
		read -r kibibytes_used _
		printf '%s' "$kibibytes_used"
	}
}

# What the running kernel was started with, and what the next one will be: until then, a reboot is pending. In /run, so
# that it goes with the boot that it speaks of.
remember_line() { # BOOTED_FILE NEW_FILE
	[ ! -s "$run/boot-line" ] || remember_booted=$(head -n 1 -- "$run/boot-line")
	{
		printf '%s\n' "${remember_booted-$(head -n 1 -- "$1")}"
		cat -- "$2"
	} >"$run/boot-line.new" && mv -f -- "$run/boot-line.new" "$run/boot-line" || stop 1 "cannot write $run/boot-line"
}

write_boot() { # FILE SHA256, the new content on stdin
	cat >"$run/boot-file" || stop 1 "cannot write to $run"
	[ "${1##*/}" = config.txt ] || remember_line "$1" "$run/boot-file"
	boot_put "$1" "$2" "$state/boot-backup" <"$run/boot-file" || stop $? "$1 was not written"
	mark_reboot "$1"
}

# NEW_SHA256 is that of the new/cmdline.txt that the plan saw waiting for its trial, or `-` where it saw none.
try_boot() { # FOLDER CURRENT_SHA256 NEW_SHA256, the new line on stdin
	command -v flash-kernel >/dev/null && command -v piboot-try >/dev/null ||
		stop "$unsafe" "flash-kernel or piboot-try is not installed, so nothing can be tried; set boot.trial = false to do without"
	cat >"$run/boot-file" || stop 1 "cannot write to $run"
	await_packages 300
	expect_hash "$1/current/cmdline.txt" "$2"
	try_state=$(trial_state "$1")
	[ "$try_state" != trying ] || stop "$stale" "a trial boot is under way"
	if [ "$3" = - ]; then
		if [ "$try_state" = unknown ] && [ -f "$1/new/cmdline.txt" ]; then
			stop "$stale" "new boot files have appeared in $1/new since the plan was made"
		fi
		require_second_set "$1"
		attempt flash-kernel 900 flash-kernel
		[ "$(trial_state "$1")" = unknown ] && [ "$(hash_of "$1/new/cmdline.txt")" = "$2" ] ||
			stop "$unsafe" "flash-kernel did not make a copy of $1/current in $1/new to be tried; nothing was edited"
	else
		[ "$try_state" = unknown ] || stop "$stale" "what waited in $1/new is no longer to be tried"
		expect_hash "$1/new/cmdline.txt" "$3"
	fi
	# Another line than the one that was rejected, or the user wants it once more.
	rm -f -- "$state/boot-rejected"
	remember_line "$1/current/cmdline.txt" "$run/boot-file"
	boot_put "$1/new/cmdline.txt" "$(hash_of "$1/new/cmdline.txt")" "$state/boot-backup" <"$run/boot-file" ||
		stop $? "$1/new/cmdline.txt was not written; $1/current is as it was"
	mark_reboot "$1/new/cmdline.txt"
}

# An initramfs rebuild or a kernel upgrade since the edit has made new/ anew, without it.
still_to_be_tried() { # FOLDER SHA256
	await_packages 300
	[ "$(trial_state "$1")" = unknown ] && [ "$(hash_of "$1/new/cmdline.txt")" = "$2" ] ||
		stop "$stale" "$1/new is not what selfheal wrote there: a kernel upgrade or an initramfs rebuild has made it anew; not rebooted"
}
