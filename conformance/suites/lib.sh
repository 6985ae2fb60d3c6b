# Sourced by the suites: where the peers' programs are, which program is judged, and how a suite ends.

# The path of a program in one of the directories of ALTHING_PEERS_BIN.
peer() { # program
  local directory
  for directory in ${ALTHING_PEERS_BIN//:/ }; do
    if [[ -x $directory/$1 ]]; then echo "$directory/$1"; return; fi
  done
  echo "$1 is in none of ALTHING_PEERS_BIN=$ALTHING_PEERS_BIN" >&2
  exit 1
}

# The program judged: etcd itself, or the one that ALTHING_BIN names.
judged() { # etcd | althing
  local program=${ALTHING_BIN:-}
  [[ $1 != etcd ]] || program=$(peer etcd)
  readlink -f "${program:?ALTHING_BIN names the program to judge}"
}

# Which program a suite without other flags is to judge: `--on etcd`, or nothing for Althing.
on_of() { # the suite's arguments...
  case $#:${1:-} in
    0:) echo althing ;;
    2:--on) echo "$2" ;;
    *) echo "${0##*/} [--on etcd]" >&2; exit 2 ;;
  esac
}

# Waits until etcdctl is answered; ends the suite if the server has ended or stays silent.
answers() { # endpoint, the server's process, its output
  local etcdctl tries=0
  etcdctl=$(peer etcdctl)
  until "$etcdctl" --endpoints="$1" get ready >/dev/null 2>&1; do
    kill -0 "$2" || { tail -5 "$3"; exit 1; }
    ((++tries < 200)) || { echo "no answer on $1"; exit 1; }
    sleep 0.3
  done
}

# A suite's last line, which record.sh counts; fails if something did.
verdict() { # how many passed, how many failed
  echo "test result: $([[ $2 -eq 0 ]] && echo ok || echo FAILED). $1 passed; $2 failed"
  [[ $2 -eq 0 ]]
}
