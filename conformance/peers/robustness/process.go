package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// processState is the letter in /proc/PID/stat: R, S, T, Z, ...; empty if there is no such process.
func processState(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name before it may hold anything, so it is read from its last parenthesis on.
	rest := string(text)[strings.LastIndexByte(string(text), ')')+1:]
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// gone makes sure that a killed process runs no more.
func gone(pid int) error {
	return eventually(context.Background(), fmt.Sprintf("process %d is gone", pid), func() bool {
		state := processState(pid)
		return state == "" || state == "Z" || state == "X"
	})
}

// pauseProcess sends SIGSTOP and makes sure that the process stands still.
func pauseProcess(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	return eventually(context.Background(), fmt.Sprintf("process %d stands still", pid), func() bool {
		return processState(pid) == "T"
	})
}

// tail is the last lines of a text.
func tail(text []byte, count int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
