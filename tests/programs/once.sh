#!/bin/sh
# A program for `--exec-once`: the request on standard input, the reply on standard output.
read -r request
text=$(printf '%s' "$request" | sed 's/.*"text":"\([^"]*\)".*/\1/')
do=$(printf '%s' "$request" | sed 's/.*"do":"\([^"]*\)".*/\1/')
case "$do" in
  refuse) echo "never" >&2; exit 65 ;;
  later) echo "not yet" >&2; exit 75 ;;
  break) echo "a secret" >&2; exit 1 ;;
  kill) kill -9 $$ ;;
  hang) sleep 60 & echo $! > "$text"; wait ;;
  leave) sleep 60 & echo $! > "$text" ;;
  yes) yes | head -n 3000000 ;;
  pipe) yes | head -n 1 >&2 ;;
  stop) trap 'echo stopped > "$text"; exit 75' TERM; echo started > "$text"; sleep 60 & wait ;;
esac
[ "$do" = id ] && text="$REQUEST_ID $REQUEST_ATTEMPT $REQUEST_PRINCIPAL$BRIDGE_SCHEMAS"
echo "{\"text\":\"$text\",\"request_id\":\"$REQUEST_ID\",\"pid\":$$}"
