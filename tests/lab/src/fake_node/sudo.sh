#!/bin/sh
# Stands in for sudo on a fake node: as much of its behaviour as a client over SSH sees.
prompt='[sudo] password for pi: '
ask=yes
stdin=no
while :; do
    case $1 in
    -n) ask=no; shift ;;
    -S) stdin=yes; shift ;;
    -p) prompt=$2; shift 2 ;;
    --) shift; break ;;
    *) break ;;
    esac
done
case $FAKE_SUDO in
passwordless) ;;
refuse)
    printf '%s\n' "$FAKE_SUDO_SAYS" >&2
    exit 1
    ;;
password)
    if [ "$ask" = no ]; then
        echo 'sudo: a password is required' >&2
        exit 1
    fi
    if [ "$stdin" = no ]; then
        echo 'sudo: a terminal is required to read the password' >&2
        exit 1
    fi
    [ -z "$FAKE_SUDO_SAYS" ] || printf '%s\n' "$FAKE_SUDO_SAYS" >&2
    wrong=0
    while :; do
        printf '%s' "$prompt" >&2
        if ! IFS= read -r given; then
            printf '\nsudo: no password was provided\n' >&2
            [ "$wrong" -eq 0 ] || echo "sudo: $wrong incorrect password attempts" >&2
            exit 1
        fi
        echo attempt >>"$FAKE_SUDO_LOG"
        [ "$given" != "$FAKE_SUDO_PASSWORD" ] || break
        wrong=$((wrong + 1))
        if [ "$wrong" -ge 3 ]; then
            echo "sudo: $wrong incorrect password attempts" >&2
            exit 1
        fi
        echo 'Sorry, try again.' >&2
    done
    ;;
esac
exec "$@"
