package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"go.etcd.io/etcd/tests/v3/robustness/model"
)

// demo is `althing demo`: four organisations, a process each, mutual TLS everywhere.
type demo struct {
	program string
	// reader prints the requests of a data directory.
	reader     string
	home       string
	members    []member
	forwarders []*forwarder
	stopped    bool
}

type member struct {
	name string
	url  string
}

// demoState is the part of demo.json that is needed here.
type demoState struct {
	Organisations []struct {
		Name       string `json:"name"`
		ClientPort int    `json:"client_port"`
		Process    *struct {
			Pid int `json:"pid"`
		} `json:"process"`
	} `json:"organisations"`
}

func startDemo(program, reader, directory string) (*demo, error) {
	d := &demo{program: program, reader: reader, home: filepath.Join(directory, "demo")}
	if err := d.run("--detach"); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	state, err := d.state()
	if err != nil {
		return nil, errors.Join(err, d.stop())
	}
	for _, organisation := range state.Organisations {
		address := fmt.Sprintf("127.0.0.1:%d", organisation.ClientPort)
		config, err := d.credentials(organisation.Name)
		if err != nil {
			return nil, errors.Join(err, d.stop())
		}
		f, err := forward(address, config)
		if err != nil {
			return nil, errors.Join(err, d.stop())
		}
		d.forwarders = append(d.forwarders, f)
		d.members = append(d.members, member{organisation.Name, f.endpoint()})
	}
	return d, nil
}

// run runs a command of the demo. Its output goes to a file: replicas inherit it, and a pipe would never end.
func (d *demo) run(arguments ...string) error {
	path := d.home + ".output"
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	command := exec.Command(d.program, append([]string{"demo", "--home", d.home}, arguments...)...)
	command.Stdout, command.Stderr = file, file
	if err := command.Run(); err != nil {
		said, _ := os.ReadFile(path)
		return fmt.Errorf("althing demo %s: %w\n%s", strings.Join(arguments, " "), err, tail(said, 20))
	}
	return nil
}

func (d *demo) state() (state demoState, err error) {
	text, err := os.ReadFile(filepath.Join(d.home, "demo.json"))
	if err != nil {
		return state, err
	}
	return state, json.Unmarshal(text, &state)
}

// credentials are those that `demo env` names for etcdctl.
func (d *demo) credentials(name string) (*tls.Config, error) {
	said, err := exec.Command(d.program, "demo", "--home", d.home, "env", name).Output()
	if err != nil {
		return nil, fmt.Errorf("althing demo env %s: %w", name, err)
	}
	files := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(string(said)))
	for lines.Scan() {
		variable, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		files[variable] = strings.Trim(value, "'")
	}
	certificate, err := tls.LoadX509KeyPair(files["ETCDCTL_CERT"], files["ETCDCTL_KEY"])
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(files["ETCDCTL_CACERT"])
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("no certificate in %s", files["ETCDCTL_CACERT"])
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		RootCAs:      pool,
		ServerName:   "127.0.0.1",
		NextProtos:   []string{"h2"},
	}, nil
}

func (d *demo) names() (names []string) {
	for _, m := range d.members {
		names = append(names, m.name)
	}
	return names
}

func (d *demo) endpoints() (endpoints []string) {
	for _, m := range d.members {
		endpoints = append(endpoints, m.url)
	}
	return endpoints
}

// pid of a replica, which must run.
func (d *demo) pid(place int) (int, error) {
	state, err := d.state()
	if err != nil {
		return 0, err
	}
	organisation := state.Organisations[place]
	if organisation.Process == nil {
		return 0, fmt.Errorf("%s does not run", organisation.Name)
	}
	// The number may have gone to another process; that one does not name this home.
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", organisation.Process.Pid))
	if err != nil || !strings.Contains(string(command), d.home) {
		return 0, fmt.Errorf("process %d is not %s", organisation.Process.Pid, organisation.Name)
	}
	return organisation.Process.Pid, nil
}

// kill is SIGKILL: that is what `demo stop` does, and it waits for the end.
func (d *demo) kill(place int) error {
	pid, err := d.pid(place)
	if err != nil {
		return err
	}
	if err := d.run("stop", d.members[place].name); err != nil {
		return err
	}
	return gone(pid)
}

func (d *demo) restart(place int) error { return d.run("start", d.members[place].name) }

func (d *demo) pause(place int) error {
	pid, err := d.pid(place)
	if err != nil {
		return err
	}
	return pauseProcess(pid)
}

func (d *demo) resume(place int) error {
	pid, err := d.pid(place)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGCONT)
}

func (d *demo) cut(place int) error { return d.run("cut", d.members[place].name) }

func (d *demo) heal(place int) error { return d.run("heal", d.members[place].name) }

func (d *demo) canCut() bool { return true }

func (d *demo) stop() error {
	if d.stopped {
		return nil
	}
	d.stopped = true
	for _, f := range d.forwarders {
		f.close()
	}
	if state, err := d.state(); err == nil {
		for place := range state.Organisations {
			// Whoever still stands still would not hear that it is to end.
			if pid, err := d.pid(place); err == nil {
				syscall.Kill(pid, syscall.SIGCONT)
			}
		}
	}
	d.settle()
	return d.run("down")
}

// settle waits, if it must, until no replica is making its next log segment: `althing log verify` does not
// read past one that was cut short, as the replica itself does.
func (d *demo) settle() {
	eventually(context.Background(), "whole segments", func() bool {
		segments, _ := filepath.Glob(filepath.Join(d.home, "*", "data", "log", "*.segment"))
		for _, segment := range segments {
			file, err := os.Open(segment)
			if err != nil {
				return false
			}
			head := make([]byte, 8)
			_, err = io.ReadFull(file, head)
			file.Close()
			if err != nil || string(head) != "ALTHLOG\n" {
				return false
			}
		}
		return true
	})
}

func (d *demo) requests() ([]model.EtcdRequest, error) {
	var all [][]logged
	for _, m := range d.members {
		home := filepath.Join(d.home, m.name)
		if said, err := exec.Command(d.program, "log", "verify", "--home", home).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("althing log verify --home %s: %w\n%s", home, err, tail(said, 5))
		}
		found, err := readLog(d.reader, home)
		if err != nil {
			return nil, err
		}
		fmt.Printf("  %s's log verifies, %d requests took effect\n", m.name, len(found))
		all = append(all, found)
	}
	longest, err := agree(all, d.names())
	if err != nil {
		return nil, err
	}
	return toModel(longest)
}
