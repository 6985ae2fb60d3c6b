# Sourced by the suites: where the peers' programs are, and which program is judged.

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
