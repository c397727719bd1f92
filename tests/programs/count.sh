#!/bin/sh
# A program for `--exec` that streams: a part per number, in nothing but sh and sed.
while read -r line; do
  id=$(printf '%s' "$line" | sed 's/.*"id":"\([^"]*\)".*/\1/')
  to=$(printf '%s' "$line" | sed 's/.*"to":\([0-9]*\).*/\1/')
  echo "counts to $to" > /dev/stderr
  number=1
  while [ "$number" -le "$to" ]; do
    echo "{\"id\":\"$id\",\"part\":{\"number\":$number}}"
    number=$((number + 1))
  done
  echo "{\"id\":\"$id\",\"reply\":null}"
done
