# Takes a node down for a reboot, whatever hangs (domain.md §2.2). It runs apart from the connection that ordered it, and
# from everything that a shutdown stops.
#   go-down SECONDS STATE SYSRQ HOW
# SECONDS is how long an orderly shutdown may take; STATE is the folder where it notes what it had to do, SYSRQ the
# kernel's last resort. HOW is `trial` for Ubuntu's trial boot, else `plain`.
# shellcheck shell=sh
set -u
trap '' HUP
seconds=$1 state=$2 sysrq=$3 how=$4
read -r boot_id </proc/sys/kernel/random/boot_id

# A disk that hangs must not hold this up: nothing here waits for it.
note() { # COMMAND
	(printf '%s %s\n' "$boot_id" "$1" >"$state/forced-down" && sync -- "$state/forced-down") &
	logger -p daemon.crit -t selfheal "the shutdown hangs: $1" &
	sleep 5
}

# The reboot is for the trial also when it is forced.
ask() { # ARGUMENT…
	if [ "$how" = trial ]; then
		timeout -k 5 30 systemctl reboot "$@" '--reboot-argument=0 tryboot' </dev/null
	else
		timeout -k 5 30 systemctl reboot "$@" </dev/null
	fi
}

# The answer to the order goes first.
sleep 1
if [ "$how" = trial ]; then
	timeout -k 5 60 piboot-try --reboot </dev/null
else
	ask
fi
sleep "$seconds"
note 'systemctl reboot --force'
ask --force
sleep 30
note 'systemctl reboot --force --force'
ask --force --force
sleep 30
note 'sysrq s, u, b'
for key in s u b; do
	printf '%s\n' "$key" >"$sysrq"
	sleep 3
done
