#!/usr/bin/env bash
# tests/nspawn.sh PROGRAM: Debian's systemd boots in a container and runs the units for real. Start, reload, a refused
# reload, a killed worker, an upgrade, a hung master, a drain, a stop; then the same program sealed off and activated by
# its socket. Prints what was done and seen. Where it cannot run it says why and ends with 0; bin/test --long calls it.
set -euo pipefail

program=$(realpath "${1:?which program?}")
units=$(cd "$(dirname "${BASH_SOURCE[0]}")/../systemd" && pwd)
cache=${CHATCORN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chatcorn}/nspawn

skip() {
  echo "nspawn: not run: $*"
  exit 0
}
[ "$(id -u)" = 0 ] || skip "only root boots a container"
for tool in systemd-nspawn debootstrap nsenter; do
  command -v $tool >/dev/null || skip "$tool is missing (apt-get install systemd-container debootstrap)"
done

base=$cache/bookworm
if [ ! -e "$base/.whole" ]; then
  rm -rf --one-file-system "$base"
  mkdir -p "$base"
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libgomp1,libstdc++6,ca-certificates,curl \
    bookworm "$base" >"$cache/debootstrap.log" 2>&1 || skip "debootstrap failed, see $cache/debootstrap.log"
  touch "$base/.whole"
fi

place=$(mktemp -d "$cache/run.XXXXXX")
mkdir "$place/upper" "$place/work" "$place/root"
leader='' nspawn=''
# shellcheck disable=SC2317 # the trap calls it
clean() {
  if [ -n "$nspawn" ] && kill "$nspawn" 2>/dev/null; then
    timeout 20 tail --pid="$nspawn" -f /dev/null || kill -9 "$nspawn"
  fi
  ! mountpoint -q "$place/root" || umount "$place/root"
  rm -rf --one-file-system "$place"
}
trap clean EXIT
mount -t overlay overlay -o "lowerdir=$base,upperdir=$place/upper,workdir=$place/work" "$place/root" 2>/dev/null ||
  skip "no overlay can be mounted on $cache"

root=$place/root
install -m 755 "$program" "$root/usr/local/bin/chatcorn"
install -m 644 "$units/chatcorn.service" "$units/chatcorn.socket" "$root/etc/systemd/system/"
chroot "$root" useradd --system --no-create-home --shell /usr/sbin/nologin chatcorn
mkdir "$root/etc/chatcorn"
# An engine of somebody else's, by a Unix socket that nobody listens on: this is about systemd.
echo 'CHAT_UPSTREAM=unix:/run/nobody.sock' >"$root/etc/chatcorn/env"
# Shorter times than the unit's, so that the hang does not take half a minute.
mkdir "$root/etc/systemd/system/chatcorn.service.d"
printf '[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\n' >"$root/etc/systemd/system/chatcorn.service.d/test.conf"

systemd-nspawn --quiet --directory="$root" --boot --register=no --keep-unit --private-network --console=pipe \
  </dev/null >"$place/console" 2>&1 &
nspawn=$!

inside() { nsenter -t "$leader" -m -u -i -n -p -C -r -w -- "$@"; }
# Waits up to 20 s for a command to succeed.
until_ok() {
  local end=$((SECONDS + 20))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "nspawn: waited in vain for: $*"; failed; }
    kill -0 "$nspawn" 2>/dev/null || { cat "$place/console"; skip "systemd does not boot here"; }
    read -rt 0.05 <> <(:) || true
  done
}
failed() {
  inside journalctl --no-pager -o cat -u chatcorn | tail -40
  exit 1
}
leader_is() { leader=$(cat "/proc/$nspawn/task/$nspawn/children") && leader=${leader%% *} && [ -n "$leader" ]; }
until_ok leader_is
until_ok inside test -S /run/systemd/private
inside timeout 60 systemctl is-system-running --wait >/dev/null || true

# Shows a command, its output and its exit code; the output stays in $out, the code in $code.
run() {
  echo "# $*"
  code=0
  out=$(inside sh -c "$*" 2>&1) || code=$?
  [ -z "$out" ] || sed 's/^/  /' <<<"$out"
  [ $code = 0 ] || echo "  (exit code $code)"
}
# want DESCRIPTION COMMAND...: the truth of it, or the end.
want() {
  local what=$1
  shift
  "$@" || { echo "nspawn: NOT SO: $what"; failed; }
  echo "  ok: $what"
}
show() { inside systemctl show -P "$1" chatcorn; }
is() { [ "$(show "$1")" = "$2" ]; }
has() { [[ $out == *"$1"* ]]; }
main_pid() { show MainPID; }
children() { # of the master, by name
  local pid
  for pid in $(inside cat "/proc/$1/task/$1/children"); do
    [[ $(inside cat "/proc/$pid/comm") != "$2"* ]] || echo "$pid"
  done
}
four_workers() { [ "$(children "$(main_pid)" worker | wc -l)" = 4 ]; }
journal_has() { inside journalctl --no-pager -o cat -u chatcorn | grep -q -- "$1"; }

echo "== booted: $(inside systemctl --version | head -1), $(inside systemctl is-system-running || true)"
run "echo 'wokers = 3' >/etc/chatcorn/chatcorn.toml; systemctl start chatcorn"
want "a start with a bad configuration fails" test $code != 0
run systemctl show chatcorn -p ActiveState -p ExecMainStatus -p NRestarts
want "for good: another start would only say the same" has 'failed'
want "with its own exit code, once" eval 'has ExecMainStatus=78 && has NRestarts=0'
run "rm /etc/chatcorn/chatcorn.toml; systemctl reset-failed chatcorn"
# A secret by systemd's own way.
echo 'sk-planted-credential-0123456789' >"$root/etc/chatcorn/key"
chmod 600 "$root/etc/chatcorn/key"
printf '[Service]\nLoadCredential=CHAT_UPSTREAM_API_KEY:/etc/chatcorn/key\n' \
  >"$root/etc/systemd/system/chatcorn.service.d/secret.conf"
run systemctl daemon-reload
run systemctl start chatcorn
want "start waits until the workers answer" test $code = 0
run curl -s http://127.0.0.1:7860/healthz
want "they do" has alive
run "systemctl status chatcorn --no-pager --lines=0"
want "the status says it in words" has '4 workers serve'
pid=$(main_pid)
readable="cat /proc/$pid/environ /proc/$pid/cmdline | tr '\\0' '\\n' | grep -c planted; journalctl --no-pager | grep -c planted"
run "$readable; runuser -u nobody -- cat /run/credentials/chatcorn.service/CHAT_UPSTREAM_API_KEY"
want "the secret is in no place that others read" eval '! has sk-planted'
run "grep -hE '^(Uid|NoNewPrivs|Seccomp|CapEff):' /proc/$(children "$pid" worker | sed -n 1p)/status; for p in $pid $(children "$pid" worker | tr '\n' ' '); do cat /proc/\$p/oom_score_adj; done | xargs"
want "workers have nothing that they could use" eval 'has "0000000000000000" && has "Seccomp:	2"'
want "and die before the master" has '0 300 300 300 300'

echo "== reload"
before=$(children "$pid" worker)
run systemctl reload chatcorn
want "reload succeeds with the same master" test "$code $(main_pid)" = "0 $pid"
others() { local old && for old in $before; do [ -z "$(children "$pid" worker | grep -x "$old")" ] || return 1; done; }
until_ok others
want "and other workers" four_workers
run "echo 'wokers = 3' >/etc/chatcorn/chatcorn.toml; systemctl reload chatcorn"
want "a reload that is refused fails" test $code != 0
want "and changes nothing" is ActiveState active
run systemctl show chatcorn -p StatusText -p MainPID -p ActiveState
want "which systemd is told" has 'the last reload was refused'
run "journalctl -u chatcorn --no-pager -o cat | grep 'reload refused'"
want "with file and line in the journal" has 'chatcorn.toml:1'
run rm /etc/chatcorn/chatcorn.toml

echo "== kill -9 of a worker"
victim=$(children "$pid" worker)
victim=${victim%%$'\n'*}
run kill -9 "$victim"
until_ok journal_has "\"worker died\",\"child_pid\":$victim"
until_ok four_workers
want "it is replaced and the service has not restarted" is NRestarts 0

echo "== upgrade"
run "cp /usr/local/bin/chatcorn /usr/local/bin/new && mv /usr/local/bin/new /usr/local/bin/chatcorn"
run "CONTROL_SOCKET=/run/chatcorn/control.sock chatcorn upgrade"
want "it is done" test $code = 0
want "by the same process" test "$(main_pid)" = "$pid"
run "ls -l /proc/$pid/exe | sed 's/.* \\//\\//'"
want "which runs the new file" [ "${out%deleted)}" = "$out" ]
run "curl -s http://127.0.0.1:7860/healthz"
want "and serves" has alive

echo "== a master that hangs"
run kill -STOP "$pid"
until_ok journal_has 'Watchdog timeout'
restarted() { is ActiveState active && [ "$(main_pid)" != "$pid" ] && four_workers; }
until_ok restarted
run "journalctl -u chatcorn --no-pager -o cat | grep -E 'Watchdog|Main process exited|Scheduled restart'"
want "systemd ends and restarts it" is NRestarts 1
run "curl -s http://127.0.0.1:7860/healthz"
want "and it serves" has alive

echo "== a stop that takes longer than TimeoutStopSec="
printf '[Service]\nTimeoutStopSec=3\n' >"$root/etc/systemd/system/chatcorn.service.d/stop.conf"
run systemctl daemon-reload
# A client whose body takes its time: the drain waits for it, and asks systemd to wait too.
slow='{ printf "{"; sleep 7; printf "}"; } | curl -s -T - -X POST -H "Content-Type: application/json" http://127.0.0.1:7860/api/chat'
run "$slow >/tmp/answer & sleep 1; systemctl stop chatcorn; systemctl show chatcorn -P Result; cat /tmp/answer"
want "it is not killed, for EXTEND_TIMEOUT_USEC= was heard" has success
want "and the slow client got its answer" has 'message is required'
rm "$root/etc/systemd/system/chatcorn.service.d/stop.conf"
run "systemctl daemon-reload; systemctl start chatcorn"

echo "== stop"
pid=$(main_pid)
run systemctl stop chatcorn
want "stop succeeds" is ActiveState inactive
want "with exit code 0" is ExecMainStatus 0
left=$(inside sh -c 'cat /proc/[0-9]*/comm' | grep -E '^(chatcorn|worker)' || true)
want "and leaves nobody" [ -z "$left" ]
run "journalctl -u chatcorn --no-pager -o cat | tail -3"

echo "== sealed, activated by its socket"
install -m 644 "$units/sealed.conf" "$root/etc/systemd/system/chatcorn.service.d/sealed.conf"
run "systemctl daemon-reload && systemctl start chatcorn.socket && systemctl is-active chatcorn.service"
want "systemd listens, nobody serves" has inactive
run "curl -s --max-time 10 http://127.0.0.1:7860/healthz"
want "the first connection starts it" has alive
pid=$(main_pid)
run "nsenter -t $pid -n ls /sys/class/net; nsenter -t $pid -n cat /proc/net/dev | tail -n +3 | cut -d: -f1"
run systemctl reload chatcorn
want "it reloads" test $code = 0
run "CONTROL_SOCKET=/run/chatcorn/control.sock chatcorn upgrade"
want "it upgrades, with systemd's socket" test "$code $(main_pid)" = "0 $pid"
run "curl -s --max-time 10 http://127.0.0.1:7860/healthz"
want "and serves" has alive
run "systemctl stop chatcorn; curl -s --max-time 10 http://127.0.0.1:7860/healthz"
want "who comes while it is stopped is served by the next one" has alive
run systemctl stop chatcorn.socket chatcorn.service
run systemctl --failed --no-legend --no-pager
want "nothing failed" [ -z "$out" ]
echo "nspawn: everything was as it should be"
