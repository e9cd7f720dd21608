@# The command of the crontab line. cron takes a command of one line and at most 999 bytes: comments are left out, and
@# the lines are joined by blanks. Files beside the config are named through $n, because paths are long. What the command
@# prints goes into the log, so that cron has nothing to mail. The run inherits file 9: the lock is held while it lives.
n=@{stem}; {
  export PATH=/usr/local/bin:/usr/bin:/bin;
  flock -n 9 || { echo "$(date): not started, the previous run is still running"; exit 75; };
  @# Each line of the file is NAME=value, as systemd and Kubernetes read it: the shell never evaluates a value.
  [ ! -r "$n.env" ] ||
    while IFS= read -r e || [ "$e" ]; do
      case ${e%%=*} in ""|[0-9]*|*[!A-Za-z0-9_]*);; *) export "$e"; esac;
    done <"$n.env";
  while :; do
    @{run}; code=$?;
    echo "$(date): exit code $code";
    @# Is it still before the end of the retries? The 1 keeps 0830 from being read as an octal number.
    [ $code -eq 75 ] && sleep 60 &&
      { [ "1$(date +%H%M)" -ge 1@{at_hhmm} ] @{and_or} [ "1$(date +%H%M)" -lt 1@{until_hhmm} ]; } || exit $code;
  done;
} >>"$n.log" 2>&1 9>>"$n.lock"
