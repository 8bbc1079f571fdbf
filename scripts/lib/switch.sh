# shellcheck shell=bash
# Reading the switch's metrics, which are plain text.

# True when something listens on that TCP port of this machine.
port_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Prints the first port from 9477 upwards that nobody listens on.
free_metrics_port() {
    local port=9477
    while port_taken "$port"; do port=$((port + 1)); done
    echo "$port"
}

# Sums every series of a metric whose labels match all the expressions: metric FILE NAME [EXPRESSION]...
metric() {
    local file=$1 name=$2
    shift 2
    awk -v name="$name" '
        function matches(   i) {
            for (i = 2; i < ARGC; i++) if (labels !~ expression[i]) return 0
            return 1
        }
        BEGIN { for (i = 2; i < ARGC; i++) { expression[i] = ARGV[i]; ARGV[i] = "" } }
        $1 == name || index($1, name "{") == 1 { labels = $1; if (matches()) total += $NF }
        END { printf "%.0f\n", total }' "$file" "$@"
}
