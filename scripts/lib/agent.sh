# shellcheck shell=bash
# Client of the guest's agent; the protocol is at the head of scripts/guest-image.

# Runs one command in a guest, prints its output, returns its status: agent_exec SOCKET COMMAND [SECONDS=30]
# 124 means that no answer came in time (a reboot is not answered, for one), 125 that nobody listens at the socket.
agent_exec() (
    at=$1 command=$2 deadline=$((SECONDS + ${3:-30}))
    begun='' line='' status=124
    [ -S "$at" ] || exit 125
    trap '' PIPE
    coproc AGENT { exec socat -t 1 - "UNIX-CONNECT:$at" 2>/dev/null; }
    # Bash closes AGENT and forgets AGENT_PID as soon as the process has ended: keep copies.
    socat_pid=$AGENT_PID
    exec {from}<&"${AGENT[0]}" {to}>&"${AGENT[1]}"
    trap 'kill "$socat_pid" 2>/dev/null || true' EXIT

    send() { printf '%s\n' "$1" >&"$to"; } 2>/dev/null
    send '' || exit 125
    while [ "$SECONDS" -lt "$deadline" ]; do
        outcome=0
        IFS= read -r -t 0.25 -u "$from" part || outcome=$?
        # A read cut short by its time limit leaves what it has got, the beginning of a line.
        line=$line$part
        if [ "$outcome" -gt 128 ]; then
            if [ -z "$begun" ]; then send '' || exit 125; fi
            continue
        elif [ "$outcome" -gt 0 ]; then
            exit 125
        fi
        case $begun:$line in
            :__ringway_ready)
                begun=yes
                send "$command" || exit 125 ;;
            :* | yes:__ringway_ready) ;;
            'yes:__ringway_done '*)
                status=${line#* }
                break ;;
            *) printf '%s\n' "$line" ;;
        esac
        line=''
    done
    exit "$status"
)
